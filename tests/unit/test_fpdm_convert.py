# SPDX-License-Identifier: GPL-3.0-or-later
"""Released checkpoints into one safetensors of ours: the same numbers, complete or not at all."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from pose_transfer.errors import CheckpointError
from pose_transfer.fpdm import FPDM, load_checkpoint
from pose_transfer.fpdm.convert import DTYPES, convert, main, with_base

PACK = Path(__file__).parents[2]
Files = tuple[Path, Path]


class WritesAFile:
    """A pickle of this writes a file when its code runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (os.fspath(self.path), "w")


@pytest.fixture(scope="module")
def lightning(fpdm_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Stage 2 without a fusion model, and stage 1, in float32 as Lightning wrote them."""
    folder = tmp_path_factory.mktemp("lightning")
    tensors = {k: x.float() for k, x in load_file(fpdm_data / "tiny.safetensors").items()}
    stage_1 = {k: x for k, x in tensors.items() if k.startswith("fusion_model.")}
    stage_2 = {k: x for k, x in tensors.items() if k not in stage_1}
    stage_2 |= {
        k.replace("sd_model.unet.", "unet."): x
        for k, x in stage_2.items()
        if k.startswith("sd_model.unet.")
    }
    inner = {k.removeprefix("fusion_model."): x for k, x in stage_1.items()}
    inner |= {
        k.replace("img_encoder.", "pose_encoder."): x
        for k, x in inner.items()
        if k.startswith("img_encoder.")
    }
    torch.save({"epoch": 99, "state_dict": stage_2}, folder / "stage2.ckpt")
    torch.save({"epoch": 4, "state_dict": inner}, folder / "last.ckpt")
    return folder / "stage2.ckpt", folder / "last.ckpt"


@torch.no_grad()
def numbers(fpdm: FPDM) -> list[Tensor]:
    """What a model makes of one source and pose: fusion, tokens, a guided prediction."""
    # Weights that are mapped from a file lie where it has them, and some processors round products
    # by where the numbers lie: a copy lies as any tensor does.
    fpdm = copy.deepcopy(fpdm)
    generator = torch.Generator().manual_seed(5)
    source, pose = torch.rand(2, 1, 128, 96, 3, generator=generator)
    latents = torch.randn(1, 4, 16, 12, generator=generator)
    fusion = fpdm.fuse(source, pose)
    tokens = fpdm.source_tokens(fpdm.source_hidden(source))
    features = fpdm.pose_features(pose.movedim(-1, 1))
    return [fusion, tokens, fpdm.predict_guided(latents, 500, tokens, features, fusion)]


def test_converted_and_original_give_the_same_numbers(lightning: Files, tmp_path: Path) -> None:
    stage_2, stage_1 = lightning
    target = tmp_path / "new folder" / "fpdm.safetensors"
    assert convert(stage_2, target, stage_1) == ["vae"]
    for got, expected in zip(
        numbers(load_checkpoint(target)), numbers(load_checkpoint(*lightning)), strict=True
    ):
        assert torch.equal(got, expected)
    assert os.listdir(target.parent) == ["fpdm.safetensors"]


def test_every_tensor_is_stored_once(lightning: Files, tmp_path: Path) -> None:
    stage_2, stage_1 = lightning
    convert(stage_2, tmp_path / "fpdm.safetensors", stage_1)
    names = load_file(tmp_path / "fpdm.safetensors").keys()
    assert not any(n.startswith(("unet.", "fusion_model.pose_encoder.")) for n in names)


@pytest.mark.parametrize(("dtype", "atol"), [("fp16", 0.0), ("bf16", 0.1), ("fp32", 0.0)])
def test_numbers_are_stored_as_asked(
    lightning: Files, tmp_path: Path, dtype: str, atol: float
) -> None:
    # The tiny weights lie on the grid of fp16, so only bf16 (8 bits) rounds; numbers are up to 3.
    stage_2, stage_1 = lightning
    convert(stage_2, tmp_path / "fpdm.safetensors", stage_1, dtype)
    stored = load_file(tmp_path / "fpdm.safetensors")
    assert {x.dtype for x in stored.values()} == {DTYPES[dtype]}
    for got, expected in zip(
        numbers(load_checkpoint(tmp_path / "fpdm.safetensors")),
        numbers(load_checkpoint(*lightning)),
        strict=True,
    ):
        assert (got - expected).abs().max() <= atol


def test_the_new_file_says_what_it_was_made_from(lightning: Files, tmp_path: Path) -> None:
    stage_2, stage_1 = lightning
    convert(stage_2, tmp_path / "fpdm.safetensors", stage_1, "fp16")
    with safe_open(tmp_path / "fpdm.safetensors", framework="pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert provenance["stored as"] == "fp16"
    assert provenance["from"] == [
        {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in lightning
    ]


def test_a_file_without_fusion_model_or_autoencoder_says_so(
    lightning: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(lightning[0]), str(tmp_path / "new.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "--fusion" in printed
    assert "no autoencoder" in printed
    assert "no UNet" not in printed


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_write_a_file_writes_nothing(
    lightning: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str], zipped: bool
) -> None:
    content = torch.load(lightning[0], weights_only=True)
    content["callbacks"] = WritesAFile(tmp_path / "written")
    torch.save(content, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=zipped)
    for arguments in (
        ["convert", str(tmp_path / "evil.ckpt"), str(tmp_path / "new.safetensors")],
        ["convert", str(lightning[0]), str(tmp_path / "new.safetensors"), "--fusion",
         str(tmp_path / "evil.ckpt")],
    ):  # fmt: skip
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert "evil.ckpt was refused" in error
        assert "io.open" in error or "builtins.open" in error
    assert os.listdir(tmp_path) == ["evil.ckpt"]


@pytest.mark.parametrize("name", ["fpdm.ckpt", "fpdm"])
def test_a_name_that_load_fpdm_would_not_list_is_refused(
    lightning: Files, tmp_path: Path, name: str
) -> None:
    with pytest.raises(CheckpointError, match=r"ends in \.safetensors"):
        convert(lightning[0], tmp_path / name)


def test_an_input_is_not_written_over(fpdm_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "fpdm.safetensors"
    path.write_bytes((fpdm_data / "tiny.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="over what it is made from"):
        convert(path, tmp_path / ".." / tmp_path.name / "fpdm.safetensors")


def test_a_failed_conversion_leaves_an_older_file(lightning: Files, tmp_path: Path) -> None:
    (tmp_path / "fpdm.safetensors").write_text("older")
    with pytest.raises(CheckpointError, match="is no FPDM model"):
        convert(lightning[1], tmp_path / "fpdm.safetensors")
    assert (tmp_path / "fpdm.safetensors").read_text() == "older"


def test_the_command_runs_by_its_path(
    lightning: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["convert", lightning[0], tmp_path / "new.safetensors", "--fusion", lightning[1]]
    monkeypatch.setattr(sys, "argv", ["fpdm", *map(str, arguments)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(PACK / "pose_transfer" / "fpdm"), run_name="__main__")
    assert load_checkpoint(tmp_path / "new.safetensors").combiner is not None


def test_another_base_takes_the_place_of_the_first(released: FPDM) -> None:
    vae = AutoencoderKL(block_out_channels=(32,), latent_channels=4)
    assert released.unet is not None
    changed = with_base(released, released.unet, vae, 0.5)
    assert changed.vae is vae
    assert changed.combiner is released.combiner
    assert changed.preprocess.latent_scale == 0.5
    assert released.vae is None
    assert released.preprocess.latent_scale is None
