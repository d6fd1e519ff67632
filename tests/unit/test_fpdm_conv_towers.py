# SPDX-License-Identifier: GPL-3.0-or-later
"""The convolutional pose encoder: a stand-in that knows the whole pose."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pose_transfer.fpdm import FPDM, PoseEncoder, load_checkpoint, save_checkpoint
from pose_transfer.fpdm.conv_towers import ConvPoseEncoder, build_pose_encoder

SMALL = {"widths": (8, 8, 8, 16, 16), "hidden_size": 8, "out_channels": 8}


@pytest.fixture
def encoder() -> ConvPoseEncoder:
    torch.manual_seed(3)
    encoder = build_pose_encoder(SMALL)
    nn.init.normal_(encoder.conv_out.weight)
    return encoder


def test_untrained_encoder_changes_nothing() -> None:
    features = build_pose_encoder(SMALL)(torch.rand(2, 3, 64, 32))
    assert torch.equal(features, torch.zeros(2, 8, 8, 4))


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 40), (72, 104), (8, 8)])
def test_every_multiple_of_8_has_its_cells(
    encoder: ConvPoseEncoder, height: int, width: int
) -> None:
    assert encoder(torch.rand(1, 3, height, width)).shape == (1, 8, height // 8, width // 8)


@torch.no_grad()
def test_every_cell_knows_the_whole_pose(encoder: ConvPoseEncoder) -> None:
    pose = torch.zeros(1, 3, 256, 192)
    before = encoder(pose)
    pose[..., :8, :8] = 1.0
    far_corner = (encoder(pose) - before)[..., -1, -1]
    assert far_corner.abs().max() > 0
    released = PoseEncoder(8, (4, 8, 8, 8))
    nn.init.normal_(released.conv_out.weight)
    assert torch.equal(released(pose)[..., -1, -1], released(pose * 0)[..., -1, -1])


@torch.no_grad()
def test_saved_encoder_loads_as_the_same(
    make_fpdm: Callable[..., FPDM], encoder: ConvPoseEncoder, tmp_path: Path
) -> None:
    fpdm = make_fpdm(pose_encoder=encoder)
    save_checkpoint(fpdm, tmp_path / "model.safetensors")
    # Some processors round products by where the numbers lie; a copy lies as any tensor does.
    loaded = copy.deepcopy(load_checkpoint(tmp_path / "model.safetensors"))
    assert isinstance(loaded.pose_encoder, ConvPoseEncoder)
    pose = torch.rand(1, 3, 64, 48)
    assert torch.equal(loaded.pose_features(pose), fpdm.pose_features(pose))
