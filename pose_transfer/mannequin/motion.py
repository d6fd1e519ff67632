# SPDX-License-Identifier: GPL-3.0-or-later
"""How a mannequin moves: from one pose to another along natural arcs.

Limbs swing about their joints as a body's do: each bone turns along the shorter great circle from
its first to its last direction, so that hands and feet draw arcs, and everything starts and stops
gently. The body turns the shorter way round.
"""

from __future__ import annotations

import math
from dataclasses import replace

from .figure import _FILL, _TALL, Figure
from .identity import sample_identity
from .posing import Arm, BodyPose, Leg, Vector, add, dot, normalise, sample_pose
from .renderer import Sample, render_figure

_ALMOST = 1e-6


def body_motion(start: BodyPose, end: BodyPose, frames: int, loop: bool = False) -> list[BodyPose]:
    """`frames` poses from `start` to `end`.

    With `loop` they go there and back: after the last comes the first again, which is not
    repeated. Raises ValueError for less than 2 frames.
    """
    if frames < 2:
        raise ValueError(f"a motion has at least 2 frames, got {frames}")
    if loop:
        moments = [1 - abs(2 * frame / frames - 1) for frame in range(frames)]
    else:
        moments = [frame / (frames - 1) for frame in range(frames)]
    return [between(start, end, _eased(moment)) for moment in moments]


def render_motion(
    identity_seed: int,
    start_seed: int,
    end_seed: int,
    frames: int,
    loop: bool = False,
    height: int = 256,
    width: int = 192,
) -> list[Sample]:
    """The mannequin `identity_seed` in every frame of the motion between two poses by seed.

    The figure is as large in all frames as fits into the one with the widest reach: `render` makes
    each picture's figure as large as that picture allows.
    """
    identity = sample_identity(identity_seed)
    poses = body_motion(sample_pose(start_seed), sample_pose(end_seed), frames, loop)
    fitting = min(Figure(identity, pose, height, width).scale for pose in poses)
    identity = replace(identity, height=fitting / (height * _FILL / _TALL))
    return [render_figure(identity, pose, height, width).sample for pose in poses]


def between(start: BodyPose, end: BodyPose, share: float) -> BodyPose:
    """The pose at `share` (0..1) of the way; 0 is `start`, 1 is `end`."""
    if share <= 0.0:
        return start
    if share >= 1.0:
        return end

    def mixed(a: float, b: float) -> float:
        return a + share * (b - a)

    turn = (end.yaw - start.yaw + math.pi) % (2 * math.pi) - math.pi
    return BodyPose(
        seed=start.seed,
        yaw=(start.yaw + share * turn) % (2 * math.pi),
        lean=mixed(start.lean, end.lean),
        pitch=mixed(start.pitch, end.pitch),
        head_yaw=mixed(start.head_yaw, end.head_yaw),
        head_pitch=mixed(start.head_pitch, end.head_pitch),
        left_arm=_arm_between(start.left_arm, end.left_arm, share),
        right_arm=_arm_between(start.right_arm, end.right_arm, share),
        left_leg=_leg_between(start.left_leg, end.left_leg, share),
        right_leg=_leg_between(start.right_leg, end.right_leg, share),
    )


def _eased(moment: float) -> float:
    """0..1 -> 0..1 with no speed at both ends."""
    return moment * moment * (3 - 2 * moment)


def _arm_between(start: Arm, end: Arm, share: float) -> Arm:
    upper = _swung(_upper_arm(start), _upper_arm(end), share)
    lower = _swung(_forearm(start), _forearm(end), share)
    return Arm(
        abduction=math.atan2(upper[0], upper[1]),
        flexion=math.asin(max(-1.0, min(1.0, upper[2]))),
        elbow=math.acos(max(-1.0, min(1.0, dot(upper, lower)))),
        aim=_aside(lower, upper),
    )


def _leg_between(start: Leg, end: Leg, share: float) -> Leg:
    # Legs stay near the vertical, where angles mix as well as directions do.
    return Leg(
        *(a + share * (b - a) for a, b in (
            (start.abduction, end.abduction), (start.flexion, end.flexion), (start.knee, end.knee)
        ))
    )  # fmt: skip


def _upper_arm(arm: Arm) -> Vector:
    """Its direction; x is outward from the body."""
    flat = math.cos(arm.flexion)
    return (
        math.sin(arm.abduction) * flat,
        math.cos(arm.abduction) * flat,
        math.sin(arm.flexion),
    )


def _forearm(arm: Arm) -> Vector:
    upper = _upper_arm(arm)
    bend = _aside(arm.aim, upper)
    straight = (0.0, 0.0, 0.0)
    return add(add(straight, upper, math.cos(arm.elbow)), bend, math.sin(arm.elbow))


def _aside(target: Vector, axis: Vector) -> Vector:
    """The part of `target` across `axis`, of length 1; any such direction where there is none."""
    across = add(target, axis, -dot(target, axis))
    if dot(across, across) < _ALMOST**2:
        across = add((0.0, 0.0, 1.0), axis, -axis[2])
    if dot(across, across) < _ALMOST**2:
        across = (0.0, 1.0, 0.0)
    return normalise(across)


def _swung(start: Vector, end: Vector, share: float) -> Vector:
    """The direction at `share` of the shorter arc between two directions of length 1."""
    angle = math.acos(max(-1.0, min(1.0, dot(start, end))))
    if angle < _ALMOST:
        return end
    # The arc's plane is spanned by the start and what the end adds across it.
    across = _aside(end, start)
    at = share * angle
    return normalise(add(add((0.0, 0.0, 0.0), start, math.cos(at)), across, math.sin(at)))
