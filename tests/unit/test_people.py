# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a detector's user gets: order, choice, and pictures without anybody."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pose_transfer.detectors.people import (
    ORDERS,
    FramePeople,
    choose_people,
    describe_people,
    keep_parts,
    order_people,
    pick_people,
)
from pose_transfer.detectors.views import Found
from pose_transfer.errors import NoPersonError
from pose_transfer.types import PART_POINTS, Box, Person


def found(x: float, width: float, score: float, height: float = 10) -> Found:
    body = np.zeros((18, 3), dtype=np.float32)
    body[0] = x, 5, 1
    return Person(body), Box(x, 0, width, height, score)


LEFT, MIDDLE, RIGHT = found(0, 10, 0.5), found(20, 30, 0.4), found(60, 20, 0.9)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("area", [MIDDLE, RIGHT, LEFT]),
        ("left to right", [LEFT, MIDDLE, RIGHT]),
        ("confidence", [RIGHT, LEFT, MIDDLE]),
    ],
)
def test_order_is_the_rule_s_not_the_detector_s(order, expected: list[Found]) -> None:
    for shuffled in itertools.permutations([LEFT, MIDDLE, RIGHT]):
        assert order_people(shuffled, order) == expected


@pytest.mark.parametrize("order", ORDERS)
def test_equals_come_in_one_order_too(order) -> None:
    twins = [found(0, 10, 0.5), found(30, 10, 0.5)]
    assert order_people(twins, order) == order_people(twins[::-1], order)


def test_the_largest_is_the_same_in_any_order() -> None:
    for shuffled in itertools.permutations([LEFT, MIDDLE, RIGHT]):
        assert pick_people(shuffled, "largest", 7) == [MIDDLE]


def test_an_index_picks_one_or_nobody() -> None:
    people = [LEFT, MIDDLE]
    assert pick_people(people, "by index", 1) == [MIDDLE]
    assert pick_people(people, "by index", 2) == []
    assert pick_people(people, "all", 1) == people


def test_error_stops_at_the_first_picture_without_anybody() -> None:
    looked_at = []

    def frames():
        for number, people in enumerate([[LEFT], [], [LEFT]]):
            looked_at.append(number)
            yield people

    with pytest.raises(NoPersonError, match="Nobody was found in picture 1"):
        choose_people(frames(), "all", 0, "area", "error")
    assert looked_at == [0, 1]
    with pytest.raises(NoPersonError, match="1 person, so nobody at index 3"):
        choose_people([[LEFT]], "by index", 3, "area", "error")


def test_skip_leaves_the_picture_empty_and_in_its_place() -> None:
    frames = choose_people([[], [LEFT], []], "all", 0, "area", "skip")
    assert frames == [FramePeople((), 0), FramePeople((LEFT,), 1), FramePeople((), 0)]
    assert choose_people([[]], "all", 0, "area", "skip") == [FramePeople((), 0)]


def test_previous_repeats_the_last_picture_with_people() -> None:
    given = [[], [LEFT, RIGHT], [], [LEFT], [RIGHT, MIDDLE]]
    frames = choose_people(given, "by index", 1, "left to right", "previous")
    assert frames == [
        FramePeople((), 0),
        FramePeople((RIGHT,), 2),
        FramePeople((RIGHT,), 0, repeats=1),
        FramePeople((RIGHT,), 1, repeats=1),
        FramePeople((RIGHT,), 2),
    ]
    with pytest.raises(NoPersonError, match="none of the 2 pictures"):
        choose_people([[], []], "all", 0, "area", "previous")


def test_parts_that_were_not_asked_for_are_left_out() -> None:
    full = Person(**{part: np.ones((n, 3), np.float32) for part, n in PART_POINTS.items()})
    hands_only = Person(np.zeros((18, 3), np.float32), left_hand=np.ones((21, 3), np.float32))
    box = Box(0, 0, 1, 1)

    ((body_only, _),) = keep_parts([(full, box), (hands_only, box)], [])
    assert body_only == Person(full.body)
    first, second = (p for p, _ in keep_parts([(full, box), (hands_only, box)], ["hands", "feet"]))
    assert first.face is None
    assert first.feet is not None
    assert first.right_hand is not None
    assert second == hands_only


def test_the_report_tells_of_every_picture_in_few_lines() -> None:
    handy = Person(LEFT[0].body, left_hand=np.ones((21, 3), np.float32)), LEFT[1]
    given = [[handy], [handy], [], [LEFT, RIGHT], [LEFT, RIGHT]]
    frames = choose_people(given, "largest", 0, "area", "previous")

    assert describe_people(frames, ["hands"]).splitlines() == [
        "pictures 0 to 1: 1 person",
        "picture 2: nobody; as in picture 1",
        "pictures 3 to 4: 2 people found, 1 kept",
        "hands: on 3 of 5 people",
    ]
    skipped = choose_people([[LEFT], [LEFT]], "by index", 1, "area", "skip")
    assert describe_people(skipped, []) == "pictures 0 to 1: 1 person found, none kept"
