# SPDX-License-Identifier: GPL-3.0-or-later
"""One person's pose on another person's proportions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..types import Person, Pose
from .draw import require_person
from .skeleton import BODY_NAMES, LIMBS, NECK

_PARENT = {child: parent for parent, child in LIMBS}
_TORSO = tuple((NECK, BODY_NAMES.index(f"{side}_hip")) for side in ("right", "left"))
_HEAD = tuple(limb for limb in LIMBS if limb[0] == 0 or limb[0] in (14, 15))


def _mirrored(point: int) -> int:
    name = BODY_NAMES[point]
    swapped = {"right": "left", "left": "right"}
    side, _, rest = name.partition("_")
    return BODY_NAMES.index(f"{swapped[side]}_{rest}") if side in swapped else point


_MIRROR = tuple(_mirrored(point) for point in range(len(BODY_NAMES)))

Points = NDArray[np.float64]


def retarget(source: Pose, target: Pose) -> Pose:
    """The target's pose with the source person's proportions, on the target's canvas.

    Every bone keeps the target's direction and gets the source's length, times one factor for
    the whole body that keeps the size of the target's torso; the neck stays where it is. So
    angles are the target's and the ratios of bone lengths the source's, both exactly. What is
    measured are lengths in the picture: source and target should be seen from about the same
    side, or a foreshortened bone counts as a short one.

    A bone that the source does not show is measured on its other side, or else keeps the
    target's length. A point whose bone is broken (a wrist without an elbow) keeps its offset to
    the next point up the body. Hands, feet and face move with wrist, ankle and nose, and keep
    their shape. Confidences stay. People are paired in order; further ones in the target stay
    as they are. Raises PoseError when either pose shows no person.
    """
    require_person(source)
    require_person(target)
    people = list(target.people)
    for i, model in enumerate(source.people[: len(people)]):
        people[i] = _retarget_person(model, people[i])
    return replace(target, people=tuple(people))


def _retarget_person(source: Person, target: Person) -> Person:
    lengths = _source_lengths(source)
    before = target.body.astype(np.float64)
    own = _lengths(before)
    factor = _body_factor(lengths, own)
    after = before.copy()
    for parent, child in LIMBS:  # parents come first
        if before[child, 2] <= 0:
            continue
        anchor = _present_ancestor(before, child)
        if anchor is None:
            continue
        offset = before[child, :2] - before[anchor, :2]
        if anchor == parent and child in lengths and child in own:
            offset *= lengths[child] * factor / own[child]
        after[child, :2] = after[anchor, :2] + offset

    new = _lengths(after)
    body_scale = _ratio(new, own, LIMBS)
    head_scale = _ratio(new, own, _HEAD)
    at = BODY_NAMES.index
    return Person(
        body=after.astype(np.float32),
        left_hand=_carry(target.left_hand, before, after, at("left_wrist"), body_scale),
        right_hand=_carry(target.right_hand, before, after, at("right_wrist"), body_scale),
        face=_carry(target.face, before, after, at("nose"), head_scale),
        feet=_carry_feet(target.feet, before, after, body_scale),
    )


def _lengths(body: Points) -> dict[int, float]:
    """Lengths in px of the bones that a body shows, by the point at their far end.

    A bone seen end on has no direction and no length, and counts as not shown.
    """
    found = {}
    for parent, child in LIMBS:
        if body[parent, 2] > 0 and body[child, 2] > 0:
            length = float(np.hypot(*(body[child, :2] - body[parent, :2])))
            if length > 0:
                found[child] = length
    return found


def _source_lengths(source: Person) -> dict[int, float]:
    """Bone lengths of the source, missing ones taken from the other side."""
    shown = _lengths(source.body.astype(np.float64))
    mirrored = {_MIRROR[child]: length for child, length in shown.items()}
    return mirrored | shown


def _ratio(
    numerator: dict[int, float], denominator: dict[int, float], limbs: tuple[tuple[int, int], ...]
) -> float:
    """Summed length of the bones that both know, one over the other; 1 when there is none."""
    common = [child for _, child in limbs if child in numerator and child in denominator]
    if not common:
        return 1.0
    return sum(numerator[child] for child in common) / sum(denominator[child] for child in common)


def _body_factor(source: dict[int, float], target: dict[int, float]) -> float:
    """Target px per source px, on the torso where both show it, else on all common bones."""
    torso = any(child in source and child in target for _, child in _TORSO)
    return _ratio(target, source, _TORSO if torso else LIMBS)


def _present_ancestor(body: Points, point: int) -> int | None:
    while point in _PARENT:
        point = _PARENT[point]
        if body[point, 2] > 0:
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
    left, right = (BODY_NAMES.index(f"{side}_ankle") for side in ("left", "right"))
    moved_left = _carry(feet[:3], before, after, left, scale)
    moved_right = _carry(feet[3:], before, after, right, scale)
    assert moved_left is not None and moved_right is not None
    return np.concatenate([moved_left, moved_right])
