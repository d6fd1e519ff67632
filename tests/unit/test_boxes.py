# SPDX-License-Identifier: GPL-3.0-or-later
"""BOUNDING_BOX in every form that the host's nodes give it, and what boxes have in common."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_transfer.detectors.boxes import (
    around,
    distinct,
    lies_in,
    read_boxes,
    share_inside,
    write_boxes,
)
from pose_transfer.errors import PoseTransferError
from pose_transfer.types import Box

A = {"x": 1, "y": 2, "width": 30, "height": 40}
B = {"x": 5.5, "y": 6.5, "width": 7, "height": 8, "label": "person", "score": 0.5}
BOX_A, BOX_B = Box(1, 2, 30, 40), Box(5.5, 6.5, 7, 8, 0.5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (A, [[BOX_A], [BOX_A]]),  # Bounding Box
        ([A, B], [[BOX_A, BOX_B], [BOX_A, BOX_B]]),
        ([[A, B]], [[BOX_A, BOX_B], [BOX_A, BOX_B]]),  # Create Bounding Boxes
        ([[A], [B]], [[BOX_A], [BOX_B]]),  # RT-DETR and SDPose in a batch
        ([[A], []], [[BOX_A], []]),
        ([], [[], []]),
        (((A,), [B]), [[BOX_A], [BOX_B]]),
    ],
)
def test_every_form_of_boxes_is_read(given: Any, expected: list[list[Box]]) -> None:
    assert read_boxes(given, 2) == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([[A], [A], [A]], "3 pictures and 2 pictures"),
        (None, "NoneType"),
        ("x", "str"),
        ([A, [A]], "dict"),
        ([[(1, 2, 3, 4)]], "tuple"),
        ({"x": 1}, "'y'"),
        ({**A, "width": -1}, "at least 0"),
        ({**A, "x": float("nan")}, "finite"),
        ({**A, "x": "left"}, "left"),
    ],
)
def test_what_is_no_boxes_is_said(given: Any, says: str) -> None:
    with pytest.raises(PoseTransferError, match=says):
        read_boxes(given, 2)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "1", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*A, "score"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(json_values, st.integers(1, 3))
def test_no_input_raises_anything_but_our_error(obj: Any, frames: int) -> None:
    try:
        boxes = read_boxes(obj, frames)
    except PoseTransferError:
        return
    assert len(boxes) == frames
    assert all(isinstance(box, Box) for frame in boxes for box in frame)


def test_written_boxes_are_whole_pixels_that_cover_the_same_place() -> None:
    written = write_boxes([[Box(1.6, 2.4, 9.8, 10.0, 0.7)], []])
    assert written == [
        [{"x": 2, "y": 2, "width": 9, "height": 10, "label": "person", "score": 0.7}],
        [],
    ]
    assert read_boxes(written, 2) == [[Box(2, 2, 9, 10, 0.7)], []]


def test_repeats_are_left_out_best_first() -> None:
    best, repeat = Box(0, 0, 10, 10, 0.9), Box(1, 0, 10, 10, 0.8)
    half, elsewhere = Box(5, 0, 10, 10, 0.95), Box(50, 50, 10, 10, 0.1)

    kept = distinct([repeat, elsewhere, half, best], overlap=0.45)
    assert kept == [half, best, elsewhere]
    assert distinct([], 0.45) == []
    assert distinct([Box(1, 1, 0, 0)], 0.45) == [Box(1, 1, 0, 0)]


def test_half_of_a_box_must_be_inside() -> None:
    outer = Box(0, 0, 10, 10)
    assert share_inside(Box(5, 0, 10, 10), outer) == 0.5
    assert lies_in(Box(5, 0, 10, 10), [outer])
    assert not lies_in(Box(6, 0, 10, 10), [outer])
    assert not lies_in(Box(20, 20, 5, 5), [outer])
    assert not lies_in(Box(2, 2, 0, 5), [outer])


def test_around_holds_all() -> None:
    assert around([Box(1, 2, 3, 4), Box(-1, 3, 1, 10)]) == Box(-1, 2, 5, 11)
