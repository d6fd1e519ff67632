# SPDX-License-Identifier: GPL-3.0-or-later
import numpy as np
import pytest

from pose_transfer.types import Box, FaceEmbedding


def test_a_box_knows_its_area_and_centre():
    box = Box(10, 20, 30, 40, 0.5)
    assert box.area == 1200
    assert box.centre == (25, 40)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        (Box(10, 20, 30, 40, 0.5), Box(10, 20, 30, 40, 0.5)),
        (Box(-10, -5, 30, 40), Box(0, 0, 20, 35)),
        (Box(90, 50, 30, 40), Box(90, 50, 10, 10)),
        (Box(-50, 70, 30, 40), Box(0, 60, 0, 0)),
    ],
)
def test_a_clipped_box_lies_on_the_canvas(box, clipped):
    assert box.clipped(100, 60) == clipped


def test_a_grown_box_keeps_its_centre():
    grown = Box(10, 20, 30, 40, 0.5).grown(1.5)
    assert grown == Box(2.5, 10, 45, 60, 0.5)
    assert grown.centre == (25, 40)


@pytest.mark.parametrize("size", [(-1, 5), (5, float("nan"))])
def test_a_box_of_negative_or_unknown_size_is_refused(size):
    with pytest.raises(ValueError, match="at least 0x0"):
        Box(0, 0, *size)


def embedding(**changed):
    batch = 2
    parts = {
        "raw": np.ones((batch, 512), dtype=np.float32),
        "normalised": np.zeros((batch, 512), dtype=np.float32),
        "boxes": np.zeros((batch, 4), dtype=np.float32),
        "points": np.zeros((batch, 5, 2), dtype=np.float32),
        "found": np.array([True, False]),
        "encoder": "test",
    }
    return FaceEmbedding(**(parts | changed))


def test_a_face_embedding_has_one_row_for_each_picture():
    assert embedding().found.tolist() == [True, False]
    with pytest.raises(ValueError, match=r"raw has shape \(3, 512\), expected \(2, 512\)"):
        embedding(raw=np.ones((3, 512)))
    with pytest.raises(ValueError, match="points has shape"):
        embedding(points=np.zeros((2, 10)))
