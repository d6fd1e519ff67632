# SPDX-License-Identifier: GPL-3.0-or-later
"""One person's pose on another person's proportions."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..types import PART_POINTS, Person, Pose
from .draw import require_person
from .skeleton import BODY_NAMES, HAND_LIMBS, LIMBS, NECK

Scale = Literal["target", "source"]
Position = Literal["target", "source"]
Hands = Literal["follow", "retarget", "leave out"]
SCALES: tuple[Scale, ...] = get_args(Scale)
POSITIONS: tuple[Position, ...] = get_args(Position)
HANDS: tuple[Hands, ...] = get_args(Hands)

Limbs = tuple[tuple[int, int], ...]
Lengths = dict[int, float]
Points = NDArray[np.float64]

_TORSO = tuple((NECK, BODY_NAMES.index(f"{side}_hip")) for side in ("right", "left"))
_HEAD = tuple(limb for limb in LIMBS if limb[0] == 0 or limb[0] in (14, 15))
_ANKLES = [BODY_NAMES.index(f"{side}_ankle") for side in ("left", "right")]
# From the neck outwards: what a person is put in place by is the first that both show.
_OUTWARDS = (NECK, *(child for _, child in LIMBS))


def _mirrored(point: int) -> int:
    name = BODY_NAMES[point]
    swapped = {"right": "left", "left": "right"}
    side, _, rest = name.partition("_")
    return BODY_NAMES.index(f"{swapped[side]}_{rest}") if side in swapped else point


_MIRROR = tuple(_mirrored(point) for point in range(len(BODY_NAMES)))


def retarget(
    source: Pose,
    target: Pose,
    *,
    scale: Scale = "target",
    position: Position = "target",
    ground: float | Literal["target"] | None = None,
    hands: Hands = "follow",
) -> Pose:
    """The target's pose with the source person's proportions, on the target's canvas.

    Every bone keeps the target's direction and gets the source's length, times one factor for
    the whole body. So angles are the target's and the ratios of bone lengths the source's, both
    exactly. What is measured are lengths in the picture: source and target should be seen from
    about the same side, or a foreshortened bone counts as a short one.

    - `scale` "target" keeps the size of the target's torso, "source" the source person's size
      relative to the height of their canvas.
    - `position` "target" leaves the neck where the target has it, "source" puts it where the
      source has it, relative to the canvas. Without a neck the next joint that both show decides.
    - `ground`, a height in px of the target's canvas, moves the person up or down so that the
      lowest of ankles and feet is there; "target" is the height of the target's own lowest. A
      person whose feet are not seen is not moved.
    - `hands` "follow" the wrist and keep the target's shape, "retarget" also gives their bones
      the source's lengths where the source shows a hand, "leave out" drops them.

    A bone that the source does not show is measured on its other side, or else keeps the
    target's length. A point whose bone is broken (a wrist without an elbow) keeps its offset to
    the next point up the body. Feet and face move with ankle and nose and keep their shape.
    Confidences stay. People are paired in order; further ones in the target stay as they are.
    Raises PoseError when either pose shows no person.
    """
    require_person(source)
    require_person(target)
    people = list(target.people)
    for i, model in enumerate(source.people[: len(people)]):
        # Source px to target px for what is taken from the source picture itself.
        to_target = target.height / source.height
        factor = None if scale == "target" else to_target
        person = _retarget_person(model, people[i], factor, hands)
        if position == "source":
            stretch = np.array([target.width / source.width, to_target])
            person = _moved(person, _to_place_of(model, person, stretch))
        if ground is not None:
            height = _lowest(people[i]) if ground == "target" else ground
            lowest = _lowest(person)
            if height is not None and lowest is not None:
                person = _moved(person, np.array([0.0, height - lowest]))
        people[i] = person
    return replace(target, people=tuple(people))


def _retarget_person(source: Person, target: Person, factor: float | None, hands: Hands) -> Person:
    """`factor`: target px per source px; None keeps the size of the target's torso."""
    lengths = _source_lengths(source)
    before = target.body.astype(np.float64)
    own = _lengths(before, LIMBS)
    if factor is None:
        factor = _body_factor(lengths, own)
    after = _grown(before, before, LIMBS, lengths, factor)

    new = _lengths(after, LIMBS)
    body_scale = _ratio(new, own, LIMBS)
    head_scale = _ratio(new, own, _HEAD)
    moved = {"face": _carry(target.face, before, after, BODY_NAMES.index("nose"), head_scale)}
    for side, other in (("left", "right"), ("right", "left")):
        hand = getattr(target, f"{side}_hand")
        wrist = BODY_NAMES.index(f"{side}_wrist")
        carried = _carry(hand, before, after, wrist, body_scale)
        model = getattr(source, f"{side}_hand")
        model = getattr(source, f"{other}_hand") if model is None else model
        if hands == "retarget" and hand is not None and carried is not None and model is not None:
            bones = _lengths(model.astype(np.float64), HAND_LIMBS)
            place = carried.astype(np.float64)
            grown = _grown(hand.astype(np.float64), place, HAND_LIMBS, bones, factor)
            carried = grown.astype(np.float32)
        moved[f"{side}_hand"] = None if hands == "leave out" else carried
    return Person(
        body=after.astype(np.float32),
        feet=_carry_feet(target.feet, before, after, body_scale),
        **moved,
    )


def _grown(before: Points, place: Points, limbs: Limbs, lengths: Lengths, factor: float) -> Points:
    """Points (N, 3) with each bone's direction as `before` and its length from `lengths`.

    `limbs` lead from parents to children, parents first. Points without anything further up stay
    at their `place`. A bone of unknown length keeps its own.
    """
    parents = {child: parent for parent, child in limbs}
    own = _lengths(before, limbs)
    after = place.copy()
    for parent, child in limbs:
        anchor = _present_ancestor(before, child, parents)
        if before[child, 2] <= 0 or anchor is None:
            continue
        offset = before[child, :2] - before[anchor, :2]
        if anchor == parent and child in lengths and child in own:
            offset *= lengths[child] * factor / own[child]
        after[child, :2] = after[anchor, :2] + offset
    return after


def _lengths(points: Points, limbs: Limbs) -> Lengths:
    """Lengths in px of the bones that are shown, by the point at their far end.

    A bone seen end on has no direction and no length, and counts as not shown.
    """
    found = {}
    for parent, child in limbs:
        if points[parent, 2] > 0 and points[child, 2] > 0:
            length = float(np.hypot(*(points[child, :2] - points[parent, :2])))
            if length > 0:
                found[child] = length
    return found


def _source_lengths(source: Person) -> Lengths:
    """Bone lengths of the source, missing ones taken from the other side."""
    shown = _lengths(source.body.astype(np.float64), LIMBS)
    mirrored = {_MIRROR[child]: length for child, length in shown.items()}
    return mirrored | shown


def _ratio(numerator: Lengths, denominator: Lengths, limbs: Limbs) -> float:
    """Summed length of the bones that both know, one over the other; 1 when there is none."""
    common = [child for _, child in limbs if child in numerator and child in denominator]
    if not common:
        return 1.0
    return sum(numerator[child] for child in common) / sum(denominator[child] for child in common)


def _body_factor(source: Lengths, target: Lengths) -> float:
    """Target px per source px, on the torso where both show it, else on all common bones."""
    torso = any(child in source and child in target for _, child in _TORSO)
    return _ratio(target, source, _TORSO if torso else LIMBS)


def _present_ancestor(points: Points, point: int, parents: dict[int, int]) -> int | None:
    while point in parents:
        point = parents[point]
        if points[point, 2] > 0:
            return point
    return None


def _carry(
    part: NDArray[np.float32] | None, before: Points, after: Points, joint: int, scale: float
) -> NDArray[np.float32] | None:
    """A part that hangs on a body joint: moved with it and scaled about it.

    Without the joint the part stays where it is.
    """
    if part is None or before[joint, 2] <= 0:
        return part
    moved = part.copy()
    moved[:, :2] = after[joint, :2] + (part[:, :2] - before[joint, :2]) * scale
    return np.where(part[:, 2:] > 0, moved, part)


def _carry_feet(
    feet: NDArray[np.float32] | None, before: Points, after: Points, scale: float
) -> NDArray[np.float32] | None:
    if feet is None:
        return None
    moved = [
        _carry(foot, before, after, ankle, scale)
        for foot, ankle in zip((feet[:3], feet[3:]), _ANKLES, strict=True)
    ]
    return np.concatenate([foot for foot in moved if foot is not None])


def _to_place_of(source: Person, person: Person, stretch: Points) -> Points:
    """The way (x, y) in px that a person has to go to stand where the source does."""
    for point in _OUTWARDS:
        if source.body[point, 2] > 0 and person.body[point, 2] > 0:
            return source.body[point, :2] * stretch - person.body[point, :2]
    return np.zeros(2)


def _lowest(person: Person) -> float | None:
    """How far down ankles and feet reach, in px; None when none is seen."""
    points = person.body[_ANKLES]
    if person.feet is not None:
        points = np.concatenate([points, person.feet])
    heights = points[points[:, 2] > 0, 1]
    return float(heights.max()) if heights.size else None


def _moved(person: Person, way: Points) -> Person:
    """The person, shifted by (x, y) px."""
    parts = {}
    for part in PART_POINTS:
        points = getattr(person, part)
        if points is not None:
            shifted = points + np.append(way, 0)
            parts[part] = np.where(points[:, 2:] > 0, shifted, points)
    return Person(**parts)
