# SPDX-License-Identifier: GPL-3.0-or-later
import numpy as np
import pytest

from pose_transfer.pose import COLOURS, overlay
from pose_transfer.types import Person, Pose

PICTURE = np.full((100, 200, 3), 200, dtype=np.uint8)


def nose_at(x: float, y: float, width: int = 200, height: int = 100) -> Pose:
    body = np.zeros((18, 3), dtype=np.float32)
    body[0] = (x, y, 1)
    return Pose(width, height, (Person(body),))


def test_the_picture_is_darkened_and_stays_itself():
    before = PICTURE.copy()
    result = overlay(PICTURE, Pose(8, 8), Pose(8, 8))
    assert result.shape == PICTURE.shape and result.dtype == np.uint8
    assert (result == 90).all()
    assert np.array_equal(PICTURE, before)


def test_before_is_grey_and_after_is_coloured():
    result = overlay(PICTURE, nose_at(50, 50), nose_at(150, 50))
    assert np.ptp(result[50, 50].astype(int)) == 0 and result[50, 50, 0] > 100
    assert tuple(result[50, 150]) == COLOURS[0]
    both = overlay(PICTURE, nose_at(50, 50), nose_at(50, 50))
    assert tuple(both[50, 50]) == COLOURS[0]


@pytest.mark.parametrize(
    ("pose", "x", "y"),
    [
        (nose_at(25, 50, 50, 100), 100, 50),  # narrower: black margins left and right
        (nose_at(0, 0, 50, 100), 75, 0),
        (nose_at(400, 100, 400, 100), 199, 75),  # wider: margins above and below
        (nose_at(20, 10, 400, 200), 10, 5),
    ],
)
def test_another_canvas_is_fitted_in_its_proportions(pose, x, y):
    result = overlay(PICTURE, Pose(8, 8), pose)
    assert tuple(result[y, x]) == COLOURS[0]


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="float32"):
        overlay(PICTURE.astype(np.float32), Pose(8, 8), Pose(8, 8))  # type: ignore[arg-type]
