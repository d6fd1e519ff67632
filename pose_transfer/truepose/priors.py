# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the regions of a person will be in a picture of which only the pose is known.

[D] TruePose's region correspondence wants a parsing of the target. Before there is a picture, the
keypoints give a rough one: each region is a union of capsules (lines with round ends) and discs
around joints, with soft edges. Lengths are in units of the person's torso, from neck to hips.
Regions overlap where the pose alone cannot tell: a forearm is half sleeve, half skin.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..pose import BODY_NAMES, require_person
from ..types import Person, Pose
from .regions import REGIONS

Map = NDArray[np.float32]
Point = NDArray[np.float32]

_SOFTNESS = 0.06
"""Half the width of an edge, torsos."""


class _Limb(NamedTuple):
    """A capsule between two joints: its radius in torsos, and how sure it is of its region."""

    start: str
    end: str
    radius: float
    sure: float = 1.0


_SIDES = ("left", "right")
_LIMBS: dict[str, tuple[_Limb, ...]] = {
    "upper": (
        _Limb("chest", "hips", 0.24),
        _Limb("left_shoulder", "right_shoulder", 0.1),
        *(_Limb(f"{side}_shoulder", f"{side}_hip", 0.1) for side in _SIDES),
        *(_Limb(f"{side}_shoulder", f"{side}_elbow", 0.12) for side in _SIDES),
        *(_Limb(f"{side}_elbow", f"{side}_wrist", 0.09, 0.5) for side in _SIDES),
    ),
    "lower": (
        _Limb("hips", "knees", 0.2, 0.6),  # a skirt, where legs are apart
        *(_Limb(f"{side}_hip", f"{side}_knee", 0.16) for side in _SIDES),
        *(_Limb(f"{side}_knee", f"{side}_ankle", 0.12, 0.6) for side in _SIDES),
    ),
    "skin": (
        _Limb("neck", "nose", 0.1, 0.5),
        *(_Limb(f"{side}_shoulder", f"{side}_elbow", 0.09, 0.3) for side in _SIDES),
        *(_Limb(f"{side}_elbow", f"{side}_wrist", 0.09, 0.6) for side in _SIDES),
        *(_Limb(f"{side}_wrist", f"{side}_wrist", 0.13) for side in _SIDES),
        *(_Limb(f"{side}_knee", f"{side}_ankle", 0.11, 0.5) for side in _SIDES),
    ),
    "shoes": tuple(_Limb(f"{side}_ankle", f"{side}_ankle", 0.15) for side in _SIDES),
}
_HEAD = ("nose", "eye", "ear")


def limb_priors(pose: Pose, height: int, width: int) -> Map:
    """[D] Soft masks of `REGIONS` on a picture of height x width px: (R, height, width) in [0, 1].

    The pose's canvas is stretched to the picture. Several people share the masks. Raises PoseError
    where there is nobody.
    """
    require_person(pose)
    scale = np.array([width / pose.width, height / pose.height], np.float32)
    masks = np.zeros((len(REGIONS), height, width), np.float32)
    for person in pose.people:
        masks = np.maximum(masks, _person(_joints(person, scale), height, width))
    somebody = masks.max(0)
    masks[REGIONS.index("background")] = 1.0 - somebody
    # Worn or carried somewhere on the person: it cannot be said where.
    masks[REGIONS.index("accessories")] = 0.5 * somebody
    masks[REGIONS.index("dress")] = np.maximum(
        masks[REGIONS.index("upper")], masks[REGIONS.index("lower")]
    )
    return masks


def _joints(person: Person, scale: Point) -> dict[str, Point]:
    """The joints that are there, and points between them, in px of the picture."""
    joints: dict[str, Point] = {
        name: row[:2] * scale
        for name, row in zip(BODY_NAMES, person.body, strict=True)
        if row[2] > 0
    }
    for middle, kind in (("hips", "hip"), ("knees", "knee")):
        both = [joints[f"{side}_{kind}"] for side in _SIDES if f"{side}_{kind}" in joints]
        if both:
            joints[middle] = np.asarray(np.mean(both, axis=0), np.float32)
    if "neck" in joints and "hips" in joints:
        chest = 0.7 * joints["neck"] + 0.3 * joints["hips"]
        joints["chest"] = np.asarray(chest, np.float32)
    return joints


def _person(joints: dict[str, Point], height: int, width: int) -> Map:
    torso = _torso(joints)
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    masks = np.zeros((len(REGIONS), height, width), np.float32)

    def draw(region: str, a: Point, b: Point, radius: float, sure: float = 1.0) -> None:
        inside = sure * _soft(_distance(x, y, a, b) - radius * torso, torso)
        masks[REGIONS.index(region)] = np.maximum(masks[REGIONS.index(region)], inside)

    for region, limbs in _LIMBS.items():
        for limb in limbs:
            if limb.start in joints and limb.end in joints:
                draw(region, joints[limb.start], joints[limb.end], limb.radius, limb.sure)
    head = [joints[n] for n in BODY_NAMES if n in joints and n.split("_")[-1] in _HEAD]
    if head:
        centre = np.mean(head, axis=0).astype(np.float32)
        up = np.array([0.0, -1.0], np.float32)
        if "neck" in joints and (length := float(np.linalg.norm(centre - joints["neck"]))) > 0:
            up = (centre - joints["neck"]) / length
        draw("hair", centre + 0.08 * torso * up, centre + 0.08 * torso * up, 0.29)
        faces = any(name in joints for name in ("nose", "left_eye", "right_eye"))
        if faces:
            draw("face", centre + 0.06 * torso * up, centre - 0.1 * torso * up, 0.19)
            # Hair is around a face that is seen, not on it.
            masks[REGIONS.index("hair")] *= 1.0 - 0.7 * masks[REGIONS.index("face")]
    return masks


def _torso(joints: dict[str, Point]) -> float:
    """From neck to hips in px; from other lengths of an adult where those are not seen."""
    for a, b, torsos in (
        ("neck", "hips", 1.0),
        ("neck", "nose", 0.5),
        ("left_shoulder", "right_shoulder", 0.75),
        ("left_hip", "left_knee", 0.85),
        ("right_hip", "right_knee", 0.85),
    ):
        if a in joints and b in joints and (length := math.dist(joints[a], joints[b])) > 0:
            return length / torsos
    points = np.array(list(joints.values()))
    return max(float(np.ptp(points, axis=0).max()) / 2.5, 1.0)


def _distance(x: Map, y: Map, a: Point, b: Point) -> Map:
    """From each pixel to the line from a to b, px."""
    along = b - a
    share = ((x - a[0]) * along[0] + (y - a[1]) * along[1]) / max(float(along @ along), 1e-6)
    share = share.clip(0, 1)
    return np.hypot(x - a[0] - share * along[0], y - a[1] - share * along[1])


def _soft(beyond: Map, torso: float) -> Map:
    """1 well inside, 0 well outside, linear in between."""
    return (0.5 - beyond / (2 * _SOFTNESS * torso)).clip(0, 1)
