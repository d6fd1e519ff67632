# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM on the host's stock classes, in numbers: the nodes against the library and diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pose_transfer.demo.architecture import UNET

DATA = Path(__file__).parent.parent / "data" / "fpdm"
CLOSE = 1e-4


def test_a_step_in_the_host_is_the_library_s(
    run_in_host: Callable[..., dict[str, Any]], untrained_demo: tuple[Path, Path]
) -> None:
    base, fpdm = untrained_demo
    report = run_in_host("in_host_fpdm.py", base_path=str(base), fpdm_path=str(fpdm))

    assert report["latent"] == [1, UNET["in_channels"], 8, 6]
    for t in (999, 500, 20):
        assert report[f"guided at {t}"] < CLOSE
    assert report["batches"] == [3], "the three passes must be one call"
    assert report["two weights are not one"] > 100 * CLOSE

    assert report["equal weights"] < CLOSE
    assert report["equal batches"] == [2], "the source pass cancels at equal weights"
    assert report["switched off"] < CLOSE
    assert report["forced batches"] == [3]
    assert report["split"] < CLOSE
    assert report["split batches"] == [1, 1, 1]

    assert report["four passes"] < CLOSE
    assert report["four batches"] == [4]
    assert report["four split"] < CLOSE
    assert report["four split batches"] == [1, 1, 1, 1]
    assert report["pose with the source"] < CLOSE
    assert report["pose with the source's batches"] == [3]
    assert report["rescaled"] < CLOSE
    assert report["rescaling's effect"] > 100 * CLOSE

    assert report["fusion not yet"] < CLOSE
    assert report["fusion still"] < CLOSE
    assert report["nothing guided"] < CLOSE
    assert report["nothing guided's batches"] == [1]

    assert report["stock guider"] < CLOSE
    assert report["stranger's conditioning"] < CLOSE
    assert report["original model"] < CLOSE
    assert report["patches seen"] == ["after", "before", "conds"]
    assert report["applied twice"] < CLOSE
    assert report["lora"] < CLOSE
    assert report["lora's effect"] > 10 * CLOSE
    assert report["half"] < CLOSE
    assert report["pose control"] < CLOSE
    assert report["pose control's effect"] > 10 * CLOSE
    assert report["pose control's batches"] == [4, 2]


def test_loaded_models_are_what_their_files_say(
    run_in_host: Callable[..., dict[str, Any]],
    untrained_demo: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    base, fpdm = untrained_demo
    reference = json.loads((DATA / "reference.json").read_text())
    report = run_in_host(
        "in_host_models.py",
        base_path=str(base),
        fpdm_path=str(fpdm),
        tiny_path=str(DATA / "tiny.safetensors"),
        tiny_heads={
            part: {"num_attention_heads": reference[part]["num_attention_heads"]}
            for part in ("source_tower", "image_tower")
        },
        folder=str(tmp_path),
    )

    # The host keeps text encoders in half precision.
    assert report["text"] < 0.01 * report["text's size"]
    assert report["decode"] < CLOSE
    assert report["encode"] < CLOSE
    assert report["idle blocks"] == 11 and report["weights changed"] == []
    assert report["preview"] == [UNET["in_channels"], 3]
    assert report["captions misread"] == []
    assert report["loaded once"]
    assert report["schedule"] < CLOSE

    assert report["tiny unet"] < CLOSE
    assert report["tiny prediction"] == "V_PREDICTION"
    assert report["tiny scale"] == pytest.approx(0.5)
    assert report["tiny vae"] < CLOSE
    assert report["fpdm keeps"] == []
