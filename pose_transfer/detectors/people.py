# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the people in a picture, in what order, and what to do where there is nobody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, get_args

from ..errors import NoPersonError
from ..types import PART_POINTS, Person
from .views import Found

Order = Literal["area", "left to right", "confidence"]
Choice = Literal["all", "largest", "by index"]
OnMissing = Literal["error", "skip", "previous"]
ORDERS: tuple[Order, ...] = get_args(Order)
CHOICES: tuple[Choice, ...] = get_args(Choice)
ON_MISSING: tuple[OnMissing, ...] = get_args(OnMissing)


@dataclass(frozen=True)
class FramePeople:
    """The people chosen in one frame; `seen` counts all that the detector found there.

    `repeats` is the index of the frame whose people were taken, where this one had none.
    """

    people: tuple[Found, ...]
    seen: int
    repeats: int | None = None


def order_people(found: Iterable[Found], order: Order) -> list[Found]:
    """Sorted by a rule that does not depend on the order in which a detector found them.

    "area": largest box first; "left to right": by the centre of the box; "confidence": by the score
    of the box. Equals are told apart by the other rules.
    """

    def key(one: Found) -> tuple[float, ...]:
        box = one[1]
        rules = {
            "area": -box.area,
            "left to right": box.centre[0],
            "confidence": -box.score,
        }
        return (rules.pop(order), *rules.values(), box.centre[1])

    return sorted(found, key=key)


def pick_people(ordered: Sequence[Found], choice: Choice, index: int) -> list[Found]:
    """All, the one with the largest box, or the one at `index` (from 0), where there is one."""
    if choice == "all":
        return list(ordered)
    if choice == "largest":
        return order_people(ordered, "area")[:1]
    return list(ordered[index : index + 1])


def choose_people(
    frames: Iterable[Sequence[Found]],
    choice: Choice,
    index: int,
    order: Order,
    on_missing: OnMissing,
) -> list[FramePeople]:
    """Orders and picks in every frame. A frame in which nobody is left is "missing":

    "error" raises NoPersonError at once, so that a long video is not looked at in vain; "skip"
    leaves the frame empty; "previous" takes the people of the frame before, and leaves frames
    empty before anybody was seen. "previous" raises NoPersonError where no frame shows anybody.
    """
    chosen: list[FramePeople] = []
    last: int | None = None
    for number, found in enumerate(frames):
        people = tuple(pick_people(order_people(found, order), choice, index))
        if people:
            last = number
            chosen.append(FramePeople(people, len(found)))
            continue
        if on_missing == "error":
            raise NoPersonError(
                f"{_what_is_missing(len(found), index)} in picture {number} of the batch (the "
                "first is 0). Use a picture that shows the person larger or more completely, "
                "another detector, or other boxes; or set on_missing to 'skip' or 'previous'."
            )
        if on_missing == "previous" and last is not None:
            chosen.append(FramePeople(chosen[last].people, len(found), last))
        else:
            chosen.append(FramePeople((), len(found)))
    if on_missing == "previous" and last is None:
        raise NoPersonError(
            f"Nobody to repeat: none of the {len(chosen)} pictures shows the person asked for. Use "
            "pictures that show one, another detector, other boxes or another index."
        )
    return chosen


PARTS = {
    "hands": ("left_hand", "right_hand"),
    "face": ("face",),
    "feet": ("feet",),
}


def keep_parts(found: Iterable[Found], parts: Iterable[str]) -> list[Found]:
    """People with their bodies and those of `PARTS` that are named; nobody without any point."""
    kept = {"body"}.union(*(PARTS[part] for part in parts))
    dropped = {field: None for field in PART_POINTS if field not in kept}
    reduced = [(replace(person, **dropped), box) for person, box in found]
    return [(person, box) for person, box in reduced if _has_points(person)]


def _has_points(person: Person) -> bool:
    values = (getattr(person, field) for field in PART_POINTS)
    return any(points is not None and points[:, 2].any() for points in values)


def describe_people(frames: Sequence[FramePeople], parts: Iterable[str]) -> str:
    """The report: one line for each run of frames alike, one for each part that was asked for."""
    texts = [_describe_frame(frame) for frame in frames]
    lines, start = [], 0
    for text, run in groupby(texts):
        end = start + sum(1 for _ in run) - 1
        where = f"picture {start}" if start == end else f"pictures {start} to {end}"
        lines.append(f"{where}: {text}")
        start = end + 1
    people = [person for frame in frames for person, _ in frame.people]
    for part in parts:
        having = sum(any(getattr(p, field) is not None for field in PARTS[part]) for p in people)
        lines.append(f"{part}: on {having} of {len(people)} people")
    return "\n".join(lines)


def _describe_frame(frame: FramePeople) -> str:
    kept = 0 if frame.repeats is not None else len(frame.people)
    text = _count(kept)
    if kept != frame.seen:
        text = f"{_count(frame.seen)} found, {kept or 'none'} kept"
    return text if frame.repeats is None else f"{text}; as in picture {frame.repeats}"


def _what_is_missing(seen: int, index: int) -> str:
    return f"{_count(seen)}, so nobody at index {index}," if seen else "Nobody was found"


def _count(people: int) -> str:
    return {0: "nobody", 1: "1 person"}.get(people, f"{people} people")
