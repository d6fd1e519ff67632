# SPDX-License-Identifier: GPL-3.0-or-later
"""Tower inputs against the released code's own, from the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pose_transfer.fpdm import FPDMPreprocess
from pose_transfer.fpdm.preprocess import RELEASED
from pose_transfer.images import from_uint8


@pytest.fixture(scope="module")
def recorded(fpdm_data: Path) -> Mapping[str, Any]:
    return np.load(fpdm_data / "preprocess.npz")


@pytest.mark.parametrize(
    ("picture", "method", "key", "stride"),
    [
        ("source_png", "source_pixels", "src_processed_source_image_stride37", 37),
        ("source_png", "embed_pixels", "fusion_processed_source_image_stride16", 16),
        ("pose_png", "embed_pose_pixels", "fusion_processed_target_pose_stride16", 16),
    ],
)
def test_pixels_as_released(
    recorded: Mapping[str, Any], picture: str, method: str, key: str, stride: int
) -> None:
    pixels = getattr(RELEASED, method)(from_uint8(recorded[picture]))
    assert pixels.shape[-2:] == ((512, 512) if method == "source_pixels" else (224, 224))
    got = pixels[0, :, ::stride, ::stride]
    torch.testing.assert_close(got, torch.from_numpy(recorded[key]), atol=1e-5, rtol=0)


def test_transparent_and_grey_pictures_are_taken() -> None:
    preprocess = FPDMPreprocess(source_size=(16, 8), embed_size=(8, 8))
    grey = preprocess.embed_pixels(torch.full((2, 16, 12, 1), 0.5))
    colour = preprocess.embed_pixels(torch.full((2, 16, 12, 3), 0.5))
    torch.testing.assert_close(grey, colour)
    assert preprocess.embed_pixels(torch.rand(1, 16, 12, 4)).shape == (1, 3, 8, 8)


def test_photo_size_is_for_photos_only() -> None:
    image = torch.rand(1, 16, 12, 3, generator=torch.Generator().manual_seed(0))
    straight = FPDMPreprocess(source_size=(8, 8), embed_size=(8, 8))
    through = FPDMPreprocess(source_size=(8, 8), embed_size=(8, 8), photo_size=(4, 4))
    assert not torch.equal(through.embed_pixels(image), straight.embed_pixels(image))
    assert not torch.equal(through.source_pixels(image), straight.source_pixels(image))
    assert torch.equal(through.embed_pose_pixels(image), straight.embed_pose_pixels(image))
