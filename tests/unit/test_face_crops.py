# SPDX-License-Identifier: GPL-3.0-or-later
"""Crops and masks of a face: where they lie, how large they are, and that they turn with it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from pose_transfer.detectors import Face
from pose_transfer.detectors.face_crops import (
    MASK_SHAPES,
    aligned_crop,
    alignment,
    crops,
    face_masks,
    loose_crop,
)
from pose_transfer.types import Box

# The upright face's own points: 35 px between the eyes.
UPRIGHT = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]],
    np.float32,
)  # fmt: skip
ELLIPSE_AREA = np.pi * 40 * 54


def face(scale: float = 1.0, angle: float = 0.0, x: float = 0.0, y: float = 0.0) -> Face:
    """The upright face, scaled and turned (radians, clockwise in the picture) about its middle,
    which is put to x, y.
    """
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    points = (UPRIGHT - (56, 66)) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    box = Box(x - 40 * scale, y - 50 * scale, 80 * scale, 100 * scale)
    return Face(box, points.astype(np.float32), np.zeros(512, np.float32))


def levels(height: int, width: int) -> NDArray[np.uint8]:
    """Red tells the column, green the row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)


def test_alignment_undoes_scale_turn_and_shift() -> None:
    one = face(1.7, 0.4, 90, 120)
    a, b = alignment(one.points)
    moved = a * (one.points[:, 0] + 1j * one.points[:, 1]) + b
    np.testing.assert_allclose(np.stack([moved.real, moved.imag], axis=1), UPRIGHT, atol=1e-3)
    assert abs(a) == pytest.approx(1 / 1.7)


def test_points_in_one_place_are_refused() -> None:
    with pytest.raises(ValueError, match="one place"):
        alignment(np.ones((5, 2), np.float32))


def test_an_upright_face_is_cut_out_px_for_px() -> None:
    crop = aligned_crop(levels(200, 200), face(x=56 + 30, y=66 + 40))
    expected = levels(200, 200)[40 : 40 + 112, 30 : 30 + 112]
    np.testing.assert_allclose(crop.astype(int), expected, atol=1)


def test_beyond_the_picture_the_upright_face_is_black() -> None:
    crop = aligned_crop(np.full((100, 100, 3), 200, np.uint8), face(x=20, y=66))
    assert not crop[:, :34].any()
    assert (crop[:98, 40:] == 200).all()


def test_a_loose_crop_shows_the_face_in_its_middle() -> None:
    one = face(0.5, x=120, y=90)  # 40 x 50 px
    crop = loose_crop(levels(200, 250), one, margin=2.0, size=50)
    assert crop.shape == (50, 50, 3)
    # 100 px square from 70 to 170 and 40 to 140; 2 px to one.
    assert crop[0, 0, :2] == pytest.approx([70.5, 40.5], abs=1)
    assert crop[-1, -1, :2] == pytest.approx([168.5, 138.5], abs=1)


@pytest.mark.parametrize(("x", "y", "left", "top"), [(5, 8, 0, 0), (245, 195, 150, 100)])
def test_a_loose_crop_at_an_edge_stays_in_the_picture(
    x: float, y: float, left: int, top: int
) -> None:
    crop = loose_crop(levels(200, 250), face(0.5, x=x, y=y), margin=2.0, size=100)
    np.testing.assert_array_equal(crop, levels(200, 250)[top : top + 100, left : left + 100])


def test_a_loose_crop_is_no_larger_than_the_picture() -> None:
    crop = loose_crop(levels(60, 250), face(1.0, x=125, y=30), margin=5.0, size=60)
    np.testing.assert_array_equal(crop, levels(60, 250)[:, 95:155])


def test_a_crop_of_no_face_is_black() -> None:
    pictures = np.full((2, 80, 90, 3), 200, np.uint8)
    cut = crops(pictures, [None, face(0.3, x=40, y=40)], 32, partial(loose_crop, margin=1, size=32))
    assert cut.shape == (2, 32, 32, 3)
    assert not cut[0].any()
    assert (cut[1] == 200).all()


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_a_mask_is_as_large_as_the_face_and_turned_with_it(angle: float, scale: float) -> None:
    one = face(scale, angle, 100.3, 110.4)
    ellipse, box = (face_masks([one], shape, 220, 200)[0] for shape in MASK_SHAPES)
    assert ellipse.sum() == pytest.approx(ELLIPSE_AREA * scale**2, rel=0.01)
    assert box.sum() == pytest.approx(80 * 108 * scale**2, rel=0.02)
    assert (box >= ellipse).all()
    across = np.array([np.cos(angle), np.sin(angle)]) * scale
    down = np.array([-np.sin(angle), np.cos(angle)]) * scale
    for mask, steps, expected in (
        (ellipse, 38 * across, 1),
        (ellipse, 42 * across, 0),
        (ellipse, 52 * down, 1),
        (ellipse, 56 * down, 0),
        (box, 38 * across - 52 * down, 1),
        (ellipse, 38 * across - 52 * down, 0),
    ):
        x, y = np.rint(np.array([100.3, 110.4]) + steps).astype(int)
        assert mask[y, x] == expected


def test_every_point_of_the_face_is_in_its_mask() -> None:
    one = face(0.8, 0.7, 100, 110)
    mask = face_masks([one], "ellipse", 220, 200)[0]
    for x, y in np.rint(one.points).astype(int):
        assert mask[y, x] == 1


def test_growing_moves_the_edge() -> None:
    def half_widths(grow: float) -> int:
        return int(face_masks([face(x=100, y=110)], "ellipse", 220, 200, grow)[0][110].sum())

    assert half_widths(0) == pytest.approx(80, abs=1)
    assert half_widths(10) == pytest.approx(100, abs=1)
    assert half_widths(-10) == pytest.approx(60, abs=1)
    assert half_widths(-60) == 0


def test_feathering_is_a_ramp_about_the_edge() -> None:
    row = face_masks([face(x=100, y=110)], "ellipse", 220, 200, 0, 20)[0][110]
    assert row.dtype == np.float32
    np.testing.assert_allclose(row[130:151], np.linspace(1, 0, 21), atol=1e-4)
    assert (row[100:130] == 1).all()
    assert (row[151:] == 0).all()


def test_a_face_beyond_the_picture_has_an_empty_mask() -> None:
    masks = face_masks([face(x=-500, y=50), None, face(x=50, y=900)], "box", 60, 70, 2, 4)
    assert masks.shape == (3, 60, 70)
    assert not masks.any()


def test_a_mask_that_reaches_beyond_the_picture_is_cut_off() -> None:
    whole = face_masks([face(x=100, y=110)], "ellipse", 220, 200, 3, 8)[0]
    part = face_masks([face(x=20, y=30)], "ellipse", 90, 70, 3, 8)[0]
    np.testing.assert_allclose(part, whole[80:170, 80:150], atol=1e-4)
