# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at parts and smaller copies of a picture: coordinates come back as they belong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pose_transfer.detectors.resample import resample
from pose_transfer.detectors.views import Found, detect_at, detect_within
from pose_transfer.types import Box, Person


class BrightSpots:
    """Finds two people: a point at the reddest and one at the greenest place."""

    name, provider = "spots", "none"

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def detect(self, picture: np.ndarray, boxes: Sequence[Box] | None = None) -> list[Found]:
        self.seen.append(picture.shape[:2])
        return detect_within(self._detect, picture, boxes)

    def _detect(self, picture: np.ndarray) -> list[Found]:
        assert picture.flags.c_contiguous
        found = []
        for channel in range(2):
            weight = picture[..., channel].astype(float)
            if weight.max() < 20:
                continue
            rows, columns = np.indices(weight.shape)
            x = (columns * weight).sum() / weight.sum()
            y = (rows * weight).sum() / weight.sum()
            body = np.zeros((18, 3), dtype=np.float32)
            body[3] = x, y, 1
            found.append(
                (Person(body, face=np.zeros((70, 3), dtype=np.float32)), Box(x - 2, y - 2, 5, 5))
            )
        return found


@pytest.fixture
def picture() -> np.ndarray:
    """Red around (30.5, 20.5), green around (100.5, 80.5), each 8 x 8 px."""
    picture = np.zeros((120, 160, 3), dtype=np.uint8)
    picture[17:25, 27:35, 0] = 255
    picture[77:85, 97:105, 1] = 255
    return picture


@pytest.mark.parametrize("resolution", [0, 119, 60, 45])
@pytest.mark.parametrize("boxes", [None, [Box(0, 0, 160, 120)]])
def test_a_smaller_copy_gives_the_picture_s_coordinates(
    picture: np.ndarray, resolution: int, boxes: list[Box] | None
) -> None:
    detector = BrightSpots()
    (red, red_box), (green, _) = detect_at(detector, picture, resolution, boxes)

    assert min(detector.seen[0]) == (resolution or 120)
    assert red.body[3] == pytest.approx((30.5, 20.5, 1), abs=0.2)
    assert green.body[3] == pytest.approx((100.5, 80.5, 1), abs=0.2)
    assert red_box.centre == pytest.approx((31, 21), abs=1.5)
    assert not red.body[0].any(), "absent points stay absent"
    assert red.face is not None and not red.face.any()


def test_a_small_picture_is_not_enlarged(picture: np.ndarray) -> None:
    detector = BrightSpots()
    detect_at(detector, picture, 512)
    assert detector.seen == [(120, 160)]


def test_boxes_keep_those_inside_where_they_are(picture: np.ndarray) -> None:
    detector = BrightSpots()
    ((only, box),) = detector.detect(picture, [Box(90, 70, 30.5, 30)])
    assert only.body[3] == pytest.approx((100.5, 80.5, 1), abs=1e-4)
    assert box.x == pytest.approx(98.5)

    both = detector.detect(picture, [Box(90, 70, 30, 30), Box(20, 10, 30, 30)])
    assert len(both) == 2
    assert detector.detect(picture, [Box(60, 10, 30, 30)]) == []
    assert detector.detect(picture, [Box(-90, 70, 30, 30), Box(5, 5, 0, 0)]) == []
    assert detector.detect(picture, []) == []


def test_sampling_interpolates_and_is_black_outside() -> None:
    ramp = np.zeros((6, 10, 3), dtype=np.uint8)
    ramp[..., 0] = 10 * np.arange(10)
    ramp[..., 1] = 20 * np.arange(6)[:, None]
    ramp[..., 2] = 100

    x, y = np.array([0, 2.25, 9, 9.5, 10, -0.25, -7]), np.array([0.0, 1.5, 5.0, 5.5])
    sampled = resample(ramp, x, y)
    assert sampled.shape == (4, 7, 3)
    assert sampled[1, :, 0] == pytest.approx([0, 22.5, 90, 45, 0, 0, 0])
    assert sampled[:, 1, 1] == pytest.approx([0, 30, 100, 50])
    assert sampled[0, :, 2] == pytest.approx([100, 100, 100, 50, 0, 75, 0])
