# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of trained pairs are known by their tensors, and refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pose_transfer.errors import CheckpointError
from pose_transfer.truepose.checkpoint import load_pair, save_pair
from tests.leffa_layout import leffa_tensors


def test_a_shared_net_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "pair.safetensors"
    target, tokens = {"conv_in.weight": torch.rand(2, 3)}, {"norm.bias": torch.rand(4)}
    config = {"unet": {"in_channels": 3}, "prediction": "epsilon", "image_tokens": {"tokens": 1}}
    save_pair(path, target, {"image_tokens": tokens}, config)
    pair = load_pair(path)
    assert pair.source is None and not pair.leffa and pair.config == config
    assert torch.equal(pair.target["conv_in.weight"], target["conv_in.weight"])
    assert torch.equal(pair.parts["image_tokens"]["norm.bias"], tokens["norm.bias"])

    save_pair(path, target, {"image_tokens": tokens}, config, source={"a": torch.ones(1)})
    assert load_pair(path).source == {"a": torch.ones(1)}


def test_leffa_s_layout_is_known_by_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "pose_transfer.pth"
    torch.save(leffa_tensors(), path)
    pair = load_pair(path)
    assert pair.leffa and pair.config["prediction"] == "epsilon" and pair.vae
    unet, source = pair.config["unet"], pair.config["source_unet"]
    assert (unet["in_channels"], source["in_channels"]) == (12, 4)
    assert unet["cross_attention_dim"] is None and unet["attention_head_dim"] == 8
    assert unet["block_out_channels"] == [32, 64, 64, 64]
    assert unet["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]


def test_a_reference_net_may_lack_what_nobody_reads(tmp_path: Path) -> None:
    tensors = leffa_tensors()
    cut = {k: v for k, v in tensors.items() if not k.startswith("unet_encoder.conv_out")}
    save_file(cut, tmp_path / "cut.safetensors")
    pair = load_pair(tmp_path / "cut.safetensors")
    assert pair.source is not None
    assert pair.source["conv_out.weight"].shape == pair.target["conv_out.weight"].shape


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: {k: v for k, v in t.items() if not k.startswith("unet_encoder.")}, "no trained"),
        (
            lambda t: {**t, "unet.conv_in.weight": t["unet_encoder.conv_in.weight"]},
            "takes 0 channels",
        ),
        (
            lambda t: {k: v for k, v in t.items() if k != "unet_encoder.conv_in.weight"},
            "conv_in.weight",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change, reason: str) -> None:
    tensors: dict[str, Tensor] = change(leffa_tensors())
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=reason):
        load_pair(tmp_path / "x.safetensors")


def test_an_incomplete_file_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pair.safetensors"
    save_pair(path, {}, {"image_tokens": {"a": torch.ones(1)}}, {"unet": {}, "image_tokens": {}})
    with pytest.raises(CheckpointError, match=r"no unet\.\*"):
        load_pair(path)
