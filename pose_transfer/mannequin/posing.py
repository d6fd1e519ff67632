# SPDX-License-Identifier: GPL-3.0-or-later
"""How a mannequin stands: joint angles within natural limits, and the skeleton that they make.

Body axes: x to the person's left, y down, z to the front; lengths are in body heights. The camera
looks along -z from slightly above, so that feet and hems show a little depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .identity import Dice, Identity

Vector = tuple[float, float, float]
CAMERA_PITCH = math.radians(7.0)


@dataclass(frozen=True)
class Arm:
    """Angles in radians: away from the body, forward, elbow bend; the elbow bends towards `aim`."""

    abduction: float
    flexion: float
    elbow: float
    aim: Vector


@dataclass(frozen=True)
class Leg:
    """Angles in radians: to the side, forward, knee bend."""

    abduction: float
    flexion: float
    knee: float


@dataclass(frozen=True)
class BodyPose:
    """Joint angles in radians; `yaw` 0 faces the camera, pi / 2 the image's right, pi away."""

    seed: int
    yaw: float
    lean: float
    pitch: float
    head_yaw: float
    head_pitch: float
    left_arm: Arm
    right_arm: Arm
    left_leg: Leg
    right_leg: Leg


# name: (abduction, flexion, elbow) ranges in degrees and where the elbow bends to
# (x is outward from the body here).
_ARMS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float], Vector]] = {
    "hang": ((8, 22), (-10, 14), (4, 28), (-0.1, 0.0, 1.0)),
    "hip": ((38, 56), (-14, 4), (84, 104), (-1.0, 0.0, 0.25)),
    "wave": ((62, 88), (0, 20), (70, 110), (0.15, -1.0, 0.1)),
    "raise": ((128, 152), (-5, 15), (10, 50), (-0.4, -1.0, 0.1)),
    "out": ((46, 78), (-5, 15), (5, 35), (0.0, 0.3, 1.0)),
    "forward": ((6, 20), (30, 70), (10, 70), (0.0, -0.8, 0.6)),
    "back": ((8, 18), (-38, -15), (8, 35), (0.0, 0.0, 1.0)),
    "chest": ((14, 28), (8, 30), (95, 125), (-1.0, -0.35, 0.7)),
}
_ARM_WEIGHTS = (7, 3, 2.5, 2, 3, 2.5, 2, 2)
_STANCES: dict[str, tuple[tuple[float, float, float], ...]] = {
    # (abduction, flexion, knee) in degrees for one leg, then the other
    "stand": ((3, 0, 4), (3, 0, 4)),
    "wide": ((13, 2, 5), (13, 0, 5)),
    "contrapposto": ((2, 0, 2), (9, 10, 20)),
    "step": ((3, 24, 12), (3, -16, 14)),
    "stride": ((3, 32, 8), (3, -22, 22)),
    "lift": ((4, 0, 3), (7, 46, 74)),
}
_STANCE_WEIGHTS = (3, 3, 3, 2.5, 2, 1.2)


def _arm(dice: Dice, kind: str) -> Arm:
    abduction, flexion, elbow, aim = _ARMS[kind]
    return Arm(
        math.radians(dice.uniform(*abduction)),
        math.radians(dice.uniform(*flexion)),
        math.radians(dice.uniform(*elbow)),
        aim,
    )


def _leg(dice: Dice, base: tuple[float, float, float]) -> Leg:
    return Leg(
        math.radians(max(1.0, base[0] + dice.uniform(-2, 4))),
        math.radians(base[1] + dice.uniform(-5, 5)),
        math.radians(max(1.0, base[2] + dice.uniform(-4, 8))),
    )


def sample_pose(seed: int) -> BodyPose:
    """The pose named by `seed` (any non-negative integer)."""
    if seed < 0:
        raise ValueError(f"pose seed must not be negative, got {seed}")
    dice = Dice(seed, 2)
    # Front and back get somewhat more than their share: that is how people are photographed.
    view = dice.choose(("any", "front", "back"), (0.6, 0.24, 0.16))
    spread = math.radians(38)
    yaw = {
        "any": dice.uniform(0, 2 * math.pi),
        "front": dice.uniform(-spread, spread),
        "back": math.pi + dice.uniform(-spread, spread),
    }[view]
    kinds = tuple(_ARMS)
    left_kind = dice.choose(kinds, _ARM_WEIGHTS)
    right_kind = left_kind if dice.chance(0.4) else dice.choose(kinds, _ARM_WEIGHTS)
    first, second = _STANCES[dice.choose(tuple(_STANCES), _STANCE_WEIGHTS)]
    if dice.chance(0.5):
        first, second = second, first
    return BodyPose(
        seed=seed,
        yaw=yaw % (2 * math.pi),
        lean=math.radians(dice.uniform(-6, 6)),
        pitch=math.radians(dice.uniform(-3, 7)),
        head_yaw=math.radians(dice.uniform(-32, 32)),
        head_pitch=math.radians(dice.uniform(-8, 10)),
        left_arm=_arm(dice, left_kind),
        right_arm=_arm(dice, right_kind),
        left_leg=_leg(dice, first),
        right_leg=_leg(dice, second),
    )


def add(a: Vector, b: Vector, scale: float = 1.0) -> Vector:
    return (a[0] + scale * b[0], a[1] + scale * b[1], a[2] + scale * b[2])


def dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


def normalise(a: Vector) -> Vector:
    length = math.sqrt(dot(a, a))
    return (a[0] / length, a[1] / length, a[2] / length)


def _perpendicular(target: Vector, axis: Vector) -> Vector:
    return normalise(add(target, axis, -dot(target, axis)))


@dataclass(frozen=True)
class Skeleton:
    """Joints in camera space (x right, y down, z to the viewer; body heights), and the body axes.

    `joints` has neck, head, pelvis, waist and, with the prefixes `left_` and `right_`, shoulder,
    elbow, wrist, hand, hip, knee, ankle, toe. `left`, `down`, `front` are the torso's axes;
    `head_yaw` is the head's yaw to the camera.
    """

    joints: dict[str, Vector]
    left: Vector
    down: Vector
    front: Vector
    head_yaw: float


def pose_skeleton(identity: Identity, pose: BodyPose) -> Skeleton:
    """Forward kinematics of `pose` for the proportions of `identity`."""
    cos_yaw, sin_yaw = math.cos(pose.yaw), math.sin(pose.yaw)
    cos_tilt, sin_tilt = math.cos(CAMERA_PITCH), math.sin(CAMERA_PITCH)

    def to_camera(v: Vector) -> Vector:
        x, z = v[0] * cos_yaw + v[2] * sin_yaw, v[2] * cos_yaw - v[0] * sin_yaw
        tilted = (x, v[1] * cos_tilt + z * sin_tilt, z * cos_tilt - v[1] * sin_tilt)
        return (round(tilted[0], 6), round(tilted[1], 6), round(tilted[2], 6))

    up = normalise((math.sin(pose.lean), -math.cos(pose.lean), math.sin(pose.pitch)))
    down = (-up[0], -up[1], -up[2])
    left = _perpendicular((1.0, 0.0, 0.0), down)
    front = cross(left, down)
    joints: dict[str, Vector] = {"pelvis": (0.0, 0.0, 0.0)}
    joints["waist"] = add(joints["pelvis"], up, 0.085)
    joints["neck"] = add(joints["pelvis"], up, 0.325)
    nod = normalise(add(up, front, math.sin(pose.head_pitch) + 0.1))
    joints["head"] = add(joints["neck"], nod, 0.143)
    for name, side, arm, leg in (
        ("left", 1.0, pose.left_arm, pose.left_leg),
        ("right", -1.0, pose.right_arm, pose.right_leg),
    ):
        shoulder = add(joints["neck"], left, side * 0.118 * identity.shoulders)
        shoulder = add(shoulder, down, 0.05)
        upper = (
            side * math.sin(arm.abduction) * math.cos(arm.flexion),
            math.cos(arm.abduction) * math.cos(arm.flexion),
            math.sin(arm.flexion),
        )
        bend = _perpendicular((side * arm.aim[0], arm.aim[1], arm.aim[2]), upper)
        lower = normalise(
            add(
                (
                    upper[0] * math.cos(arm.elbow),
                    upper[1] * math.cos(arm.elbow),
                    upper[2] * math.cos(arm.elbow),
                ),
                bend,
                math.sin(arm.elbow),
            )
        )
        joints[f"{name}_shoulder"] = shoulder
        joints[f"{name}_elbow"] = add(shoulder, upper, 0.158)
        joints[f"{name}_wrist"] = add(joints[f"{name}_elbow"], lower, 0.142)
        joints[f"{name}_hand"] = add(joints[f"{name}_wrist"], lower, 0.045)
        hip = add((0.0, 0.02, 0.0), left, side * 0.06 * identity.hips)
        thigh = (
            side * math.sin(leg.abduction) * math.cos(leg.flexion),
            math.cos(leg.abduction) * math.cos(leg.flexion),
            math.sin(leg.flexion),
        )
        back = _perpendicular((0.0, 0.0, -1.0), thigh)
        bent = (
            thigh[0] * math.cos(leg.knee),
            thigh[1] * math.cos(leg.knee),
            thigh[2] * math.cos(leg.knee),
        )
        shin = normalise(add(bent, back, math.sin(leg.knee)))
        joints[f"{name}_hip"] = hip
        joints[f"{name}_knee"] = add(hip, thigh, 0.218 * identity.legs)
        joints[f"{name}_ankle"] = add(joints[f"{name}_knee"], shin, 0.205 * identity.legs)
        ahead = _perpendicular((side * 0.28, 0.15, 1.0), shin)
        joints[f"{name}_toe"] = add(joints[f"{name}_ankle"], ahead, 0.088)
        joints[f"{name}_heel"] = add(add(joints[f"{name}_ankle"], ahead, -0.022), shin, 0.022)
    return Skeleton(
        joints={name: to_camera(joint) for name, joint in joints.items()},
        left=to_camera(left),
        down=to_camera(down),
        front=to_camera(front),
        head_yaw=pose.yaw + pose.head_yaw,
    )
