# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM's nodes in the real host against numbers made by the released code (tests/data/fpdm)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data" / "fpdm"
CLOSE = 1e-4


def test_the_nodes_reproduce_the_released_numbers(
    run_in_host: Callable[..., dict[str, Any]],
) -> None:
    reference = json.loads((DATA / "reference.json").read_text())
    report = run_in_host(
        "in_host_fpdm_reference.py",
        tiny_path=str(DATA / "tiny.safetensors"),
        io_path=str(DATA / "io.safetensors"),
        heads={
            part: {"num_attention_heads": reference[part]["num_attention_heads"]}
            for part in ("source_tower", "image_tower")
        },
    )
    for name in ("ddpm", "ddim"):
        assert report.pop(f"{name} timesteps"), "ddim_uniform has the checkpoint's timesteps"
        assert report.pop(f"{name} moves") > 1000 * CLOSE
    assert {name: value for name, value in report.items() if not value < CLOSE} == {}
    assert len(report) == 16
