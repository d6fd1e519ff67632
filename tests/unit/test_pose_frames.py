# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames without anybody, and canvases of several sizes."""

from __future__ import annotations

import numpy as np
import pytest

from pose_transfer.errors import NoPersonError, PoseError
from pose_transfer.pose.frames import size_of, with_people
from pose_transfer.types import Person, Pose


def somebody(x: float) -> Pose:
    body = np.zeros((18, 3), np.float32)
    body[0] = (x, 5, 1)
    return Pose(20, 30, (Person(body),))


EMPTY = np.zeros((18, 3), np.float32)
NOBODY = Pose(20, 30)
ONLY_A_HAND = Pose(20, 30, (Person(EMPTY, left_hand=np.ones((21, 3), np.float32)),))
A, B = somebody(1), somebody(2)


def test_the_error_names_the_frames_and_the_way_out():
    with pytest.raises(NoPersonError, match=r"frame 1, 3 of the 4 frames.*'skip'.*'previous'"):
        with_people([A, NOBODY, B, ONLY_A_HAND], "error")
    with pytest.raises(NoPersonError, match=r"frame 0, 1, 2, 3, 4 and 2 more of the 8"):
        with_people([NOBODY] * 7 + [A], "error")


def test_they_are_left_out_or_held():
    film = [NOBODY, A, NOBODY, B, NOBODY]
    assert with_people(film, "skip") == [A, B]
    assert with_people(film, "previous") == [A, A, A, B, B]
    assert with_people([A, B], "error") == [A, B]


@pytest.mark.parametrize("on_empty", ["error", "skip", "previous"])
def test_a_film_without_anybody_is_always_an_error(on_empty):
    with pytest.raises(NoPersonError, match="any of the 2 frames"):
        with_people([NOBODY, NOBODY], on_empty)


def test_one_size_for_all():
    assert size_of([A, B], 0, 0) == (30, 20)
    assert size_of([A, Pose(40, 30)], 24, 0) == (30, 24)
    with pytest.raises(PoseError, match="2 different canvas sizes"):
        size_of([A, Pose(40, 30)], 0, 0)
