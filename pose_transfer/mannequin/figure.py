# SPDX-License-Identifier: GPL-3.0-or-later
"""A dressed figure: which parts there are, what they wear, and who hides whom."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .head import HEAD_HEIGHT, HEAD_LANE, Head
from .identity import Garment, Identity
from .limbs import Bone, limb_axes, paint_bones, paint_limb
from .patterns import logo_mix, pattern_mix
from .posing import CAMERA_PITCH, BodyPose, Vector, add, normalise, pose_skeleton
from .raster import Canvas, Frame, Paint, Profile, Surface, coloured, paint_tube, unit

_UPPER, _LOWER, _ARMS, _LEGS, _SHOES = 3, 4, 5, 6, 7

_FILL = 0.93
"""Share of the canvas height that a standing figure takes."""
_HAIR_TOP = {"afro": 1.52, "bun": 1.45}
_TALL = 0.985
"""Standing height in body heights, from the top of the hair to the ground."""
_TORSO_RATIO = 0.62
_DOWN: Vector = (0.0, 1.0, 0.0)
_ARM_LANE, _LEG_LANE = 0.3, 0.15


def cloth(garment: Garment, girth: float, length: float, pixel: float, start: float) -> Paint:
    """Paint for a part of `garment`; `start` is where the part begins, body heights."""
    has_logo = garment.pattern == "logo" and start < 0.01 and girth > 0.5
    if garment.pattern == "plain" or (garment.pattern == "logo" and not has_logo):
        return garment.colour
    first, second = coloured(garment.colour), coloured(garment.second_colour)

    def paint(surface: Surface) -> np.ndarray:
        along = surface.along + np.float32(start)
        if has_logo:
            mix = logo_mix(garment, along, surface.around, girth, pixel)
        else:
            mix = pattern_mix(garment, along, surface.around, girth, length, pixel)
        colour = (second - first) * mix
        colour += first
        return colour

    return paint


class Figure:
    """One identity in one pose, ready to be painted on a canvas of `height` x `width` pixels."""

    def __init__(self, identity: Identity, pose: BodyPose, height: int, width: int) -> None:
        self.identity = identity
        self.pose = pose
        self.size = (height, width)
        skeleton = pose_skeleton(identity, pose)
        self.skeleton = skeleton
        joints = skeleton.joints
        reach = 0.05
        xs = [j[0] for j in joints.values()]
        top = min(
            joints["head"][1] - HEAD_HEIGHT * _HAIR_TOP.get(identity.hair_style, 1.16),
            *(joints[f"{s}_hand"][1] - 0.03 for s in _SIDES),
        )
        bottom = max(joints[f"{s}_toe"][1] for s in _SIDES) + 0.035
        left, right = min(xs) - reach, max(xs) + reach
        wanted = height * _FILL / _TALL * identity.height
        self.scale = round(
            min(wanted, 0.975 * height / (bottom - top), 0.98 * width / (right - left)), 4
        )
        self.pixel = 1.0 / self.scale
        # The trunk stays in the middle unless an arm would leave the picture.
        middle = 0.5 * width
        x = middle - self.scale * joints["waist"][0]
        x = max(x, 0.01 * width - self.scale * left)
        x = min(x, 0.99 * width - self.scale * right)
        ground = height * (0.5 + 0.5 * _FILL) + 0.015 * height
        self.origin = (round(x, 3), round(ground - self.scale * bottom, 3))
        self.points = {name: self._to_canvas(joint) for name, joint in joints.items()}
        self.head = Head(
            identity, self.points["head"], skeleton.head_yaw, pose.head_pitch + CAMERA_PITCH,
            self.scale,
        )  # fmt: skip

    def _to_canvas(self, joint: Vector) -> Vector:
        return (
            round(self.origin[0] + self.scale * joint[0], 3),
            round(self.origin[1] + self.scale * joint[1], 3),
            round(self.scale * joint[2], 3),
        )

    def paint(self, canvas: Canvas) -> None:
        """Paint every part, the far ones first."""
        self._paint_ground(canvas)
        parts: list[tuple[float, Callable[[Canvas], None]]] = []
        joints = self.skeleton.joints
        for side in _SIDES:
            knee = 0.4 * joints[f"{side}_hip"][2] + 0.6 * joints[f"{side}_knee"][2]
            parts.append((knee - 0.12, lambda c, s=side: self._paint_leg(c, s)))
            arm = (
                0.3 * joints[f"{side}_shoulder"][2]
                + 0.4 * joints[f"{side}_elbow"][2]
                + 0.3 * joints[f"{side}_wrist"][2]
            )
            parts.append((arm, lambda c, s=side: self._paint_arm(c, s)))
        parts.append((-0.03, self._paint_trunk))
        facing = math.cos(self.skeleton.head_yaw)
        # Hair behind the head hangs in front of the trunk when the back is turned.
        parts.append((-0.031 if facing > -0.1 else 0.055, self.head.paint_hair_behind))
        parts.append((0.05, self._paint_head))
        for _, part in sorted(parts, key=lambda item: item[0]):
            part(canvas)

    def _paint_ground(self, canvas: Canvas) -> None:
        feet = [self.points[f"{s}_ankle"] for s in _SIDES]
        x = 0.5 * (feet[0][0] + feet[1][0])
        y = max(p[1] for p in feet) + 0.03 * self.scale
        wide = 0.5 * abs(feet[0][0] - feet[1][0]) + 0.13 * self.scale
        high = 0.035 * self.scale
        box = canvas.box(x - wide, y - high, x + wide, y + high, 2.0)
        if box is not None:
            px, py = canvas.pixels(box, x, y)
            falloff = unit(1.0 - (px / wide) * (px / wide) - (py / high) * (py / high))
            canvas.rgb[:, box[0], box[1]] *= 1.0 - 0.09 * falloff

    def _limb(
        self,
        canvas: Canvas,
        names: tuple[str, str],
        radii: tuple[float, float],
        paint: Paint,
        label: int,
        canonical: tuple[Vector, Vector],
        along: tuple[float, float] = (0.0, 0.1),
        upto: float = 1.0,
        butt: bool = False,
        bulge: float = 0.0,
        contact: bool = True,
    ) -> None:
        """A limb between two joints; radii in body heights, `upto` a share of its length."""
        # What has one colour looks the same from all sides.
        turned = canvas.coordinates is not None or not isinstance(paint, tuple)
        frame = self._limb_frame(names) if turned else Frame()
        start, end = self.points[names[0]], self.points[names[1]]
        stop = add(start, add(end, start, -1.0), upto)
        first, last = canonical
        bone = Bone(
            start, stop, (radii[0] * self.scale, radii[1] * self.scale),
            (first, add(first, add(last, first, -1.0), upto)),
        )  # fmt: skip
        paint_limb(
            canvas, bone, self.scale, paint, label,
            _ARM_LANE if names[1].endswith(("elbow", "wrist")) else _LEG_LANE, frame,
            (along[0], along[0] + (along[1] - along[0]) * upto), bulge, butt, contact,
        )  # fmt: skip

    def _limb_frame(self, names: tuple[str, str]) -> Frame:
        joints = self.skeleton.joints
        axis = normalise(add(joints[names[1]], joints[names[0]], -1.0))
        left, front = limb_axes(axis, self.skeleton.down, self.skeleton.front)
        return Frame.of(axis, left, front)

    def _paint_arm(self, canvas: Canvas, side: str) -> None:
        identity = self.identity
        bulk = identity.bulk
        sign = 1.0 if side == "left" else -1.0
        shoulder, elbow, wrist = f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"
        rest = [(sign * x, y, 0.0) for x, y in ((0.125, -0.29), (0.19, -0.145), (0.24, -0.012))]
        bare, garment = identity.skin, identity.upper
        upper, lower, hand = 0.036 * bulk, 0.03 * bulk, 0.021
        self._limb(canvas, (shoulder, elbow), (upper, lower), bare, _ARMS, (rest[0], rest[1]))
        self._paint_hand(canvas, side, rest[2])
        self._limb(
            canvas,
            (elbow, wrist),
            (lower, hand),
            bare,
            _ARMS,
            (rest[1], rest[2]),
            bulge=0.06,
            contact=False,
        )
        if garment.kind == "vest":
            return
        loose = 0.006
        sleeve = cloth(garment, 0.24, 0.36, self.pixel, 0.06)
        if garment.kind == "shirt":
            self._limb(
                canvas, (shoulder, elbow), (upper + loose + 0.004, lower + loose + 0.007), sleeve,
                _UPPER, (rest[0], rest[1]), (0.0, 0.158), 0.72, True,
            )  # fmt: skip
            return
        cuff = cloth(garment, 0.24, 0.36, self.pixel, 0.218)
        self._limb(
            canvas, (shoulder, elbow), (upper + loose + 0.003, lower + loose), sleeve, _UPPER,
            (rest[0], rest[1]), (0.0, 0.158),
        )  # fmt: skip
        self._limb(
            canvas, (elbow, wrist), (lower + loose, hand + 0.009), cuff, _UPPER,
            (rest[1], rest[2]), (0.0, 0.142), 0.95, True, contact=False,
        )  # fmt: skip

    def _paint_hand(self, canvas: Canvas, side: str, rest: Vector) -> None:
        joints = self.skeleton.joints
        wrist, hand = joints[f"{side}_wrist"], joints[f"{side}_hand"]
        axis = normalise(add(hand, wrist, -1.0))
        sign = 1.0 if side == "left" else -1.0
        left, front = limb_axes(axis, self.skeleton.down, self.skeleton.front)
        # The thumb points forward and a little inward; the palm is widest from thumb to little
        # finger, so fingers fan out along that line.
        spread = normalise(add(front, left, -0.35 * sign))
        canonical = (rest, add(rest, (sign * 0.02, 0.06, 0.0)))
        palm_end = add(wrist, axis, 0.034)

        def bone(start: Vector, end: Vector, first: float, last: float) -> Bone:
            radii = first * self.scale, last * self.scale
            return Bone(self._to_canvas(start), self._to_canvas(end), radii, canonical)

        thumb = add(wrist, axis, 0.012)
        bones = [bone(thumb, add(add(thumb, axis, 0.03), spread, 0.028), 0.0095, 0.0068)]
        for place, length in ((0.014, 0.034), (0.005, 0.038), (-0.005, 0.035), (-0.014, 0.028)):
            base = add(palm_end, spread, place)
            tip = add(add(base, axis, length), spread, place * 0.35)
            bones.append(bone(base, tip, 0.0072, 0.0058))
        bones.append(bone(add(wrist, axis, 0.004), palm_end, 0.0195, 0.0205))
        colours = [self.identity.skin] * len(bones)
        paint_bones(canvas, bones, self.scale, colours, _ARMS, _ARM_LANE, contact=False)

    def _paint_leg(self, canvas: Canvas, side: str) -> None:
        identity = self.identity
        bulk = 0.5 + 0.5 * identity.bulk
        sign = 1.0 if side == "left" else -1.0
        hip, knee, ankle = f"{side}_hip", f"{side}_knee", f"{side}_ankle"
        rest = [(sign * x, y, 0.0) for x, y in ((0.062, 0.02), (0.075, 0.24), (0.085, 0.445))]
        bare, garment = identity.skin, identity.lower
        thigh, calf, thin = 0.055 * bulk, 0.042 * bulk, 0.025 * bulk
        self._limb(canvas, (hip, knee), (thigh, calf), bare, _LEGS, (rest[0], rest[1]))
        self._limb(
            canvas,
            (knee, ankle),
            (calf, thin),
            bare,
            _LEGS,
            (rest[1], rest[2]),
            bulge=0.13,
            contact=False,
        )
        self._paint_shoe(canvas, side, rest[2])
        if garment.kind == "skirt":
            return
        start = 0.10
        leg = cloth(garment, 0.34, 0.5, self.pixel, start)
        if garment.kind == "shorts":
            self._limb(
                canvas, (hip, knee), (thigh + 0.008, calf + 0.018), leg, _LOWER,
                (rest[0], rest[1]), (0.0, 0.218), 0.78, True,
            )  # fmt: skip
            return
        shin = cloth(garment, 0.34, 0.5, self.pixel, start + 0.218)
        self._limb(
            canvas, (knee, ankle), (calf + 0.007, thin + 0.016), shin, _LOWER,
            (rest[1], rest[2]), (0.0, 0.205), 0.97, True,
        )  # fmt: skip
        self._limb(
            canvas, (hip, knee), (thigh + 0.006, calf + 0.0075), leg, _LOWER,
            (rest[0], rest[1]), (0.0, 0.218), contact=False,
        )  # fmt: skip

    def _paint_shoe(self, canvas: Canvas, side: str, rest: Vector) -> None:
        heel, toe = self.points[f"{side}_heel"], self.points[f"{side}_toe"]
        ankle = self.points[f"{side}_ankle"]
        colour, sole = self.identity.shoe_colour, self.identity.sole_colour
        canonical = (rest, add(rest, (0.0, 0.02, 0.09)))
        drop = 0.012 * self.scale

        def bone(start: Vector, end: Vector, first: float, last: float) -> Bone:
            return Bone(start, end, (first * self.scale, last * self.scale), canonical)

        low_heel, low_toe = (heel[0], heel[1] + drop, heel[2]), (toe[0], toe[1] + drop, toe[2])
        middle = add(ankle, add(toe, ankle, -1.0), 0.3)
        bones = [
            bone(low_heel, low_toe, 0.0245, 0.0245),
            bone(heel, toe, 0.026, 0.0245),
            bone(ankle, middle, 0.0275, 0.026),
        ]
        paint_bones(canvas, bones, self.scale, (sole, colour, colour), _SHOES, _LEG_LANE)

    def _paint_trunk(self, canvas: Canvas) -> None:
        identity = self.identity
        joints = self.skeleton.joints
        axes = (self.skeleton.left, self.skeleton.front)
        bulk, hips, shoulders = identity.bulk, identity.hips, identity.shoulders
        tilt = round(math.sin(CAMERA_PITCH), 6)
        self._paint_lower(canvas, axes, tilt)
        turned = self.skeleton.front[2] < -0.15
        if turned:
            self._paint_neck(canvas)
        down = normalise(add(joints["pelvis"], joints["neck"], -1.0))
        top = add(joints["neck"], down, -0.012)
        hem = 0.33 if identity.lower.kind == "skirt" else 0.375
        length = hem + 0.012
        bottom = add(top, down, length)
        belly = 0.103 + 0.012 * (bulk - 1.0) * 4
        profile = Profile(
            (
                (0.0, 0.036),
                (0.05, 0.066),
                (0.18, 0.142 * shoulders),
                (0.32, 0.128 * (0.4 * shoulders + 0.6) * (0.75 + 0.25 * bulk)),
                (0.62, belly),
                (1.0, 0.124 * hips * (0.8 + 0.2 * bulk)),
            )
        )
        girth = 2 * math.pi * 0.095
        garment = identity.upper
        paint_tube(
            canvas, self._to_canvas(top), self._to_canvas(bottom), profile, _TORSO_RATIO, axes,
            self.scale, length, cloth(garment, girth, 0.36, self.pixel, 0.0), _UPPER, tilt,
            (-0.337, -0.337 + length),
        )  # fmt: skip
        if not turned:
            self._paint_neck(canvas)

    def _paint_lower(self, canvas: Canvas, axes: tuple[Vector, Vector], tilt: float) -> None:
        identity, joints = self.identity, self.skeleton.joints
        garment, hips = identity.lower, identity.hips
        bulk = 0.8 + 0.2 * identity.bulk
        down = self.skeleton.down
        top = add(joints["pelvis"], down, -0.075)
        if garment.kind == "skirt":
            knees = add(joints["left_knee"], joints["right_knee"])
            middle = (0.5 * knees[0], 0.5 * knees[1], 0.5 * knees[2])
            bottom = add(top, add(middle, top, -1.0), 0.86)
            apart = math.dist(joints["left_knee"], joints["right_knee"])
            flare = max(0.15, 0.5 * apart + 0.055)
            length = math.dist(top, bottom)
            profile = Profile(((0.0, 0.1 * bulk), (0.34, 0.124 * hips * bulk), (1.0, flare)))
            ratio, girth = 0.75, 2 * math.pi * 0.11
        else:
            bottom = add(top, down, 0.12)
            length = 0.12
            profile = Profile(
                ((0.0, 0.1 * bulk), (0.6, 0.113 * hips * bulk), (1.0, 0.105 * hips * bulk))
            )
            ratio, girth = 0.66, 2 * math.pi * 0.095
        paint_tube(
            canvas, self._to_canvas(top), self._to_canvas(bottom), profile, ratio, axes, self.scale,
            length, cloth(garment, girth, 0.5, self.pixel, 0.0), _LOWER, tilt,
            (-0.075, -0.075 + length),
        )  # fmt: skip

    def _paint_neck(self, canvas: Canvas) -> None:
        """The neck; from the front its round end lies over the shirt as the neckline."""
        joints, front = self.skeleton.joints, self.skeleton.front
        deep = 0.03 if self.identity.upper.kind == "vest" else 0.012
        base = add(add(joints["neck"], self.skeleton.down, deep), front, 0.02)
        bone = Bone(
            self._to_canvas(base), self.points["head"], (0.036 * self.scale, 0.032 * self.scale),
            ((0.0, -0.33, 0.0), (0.0, -0.43, 0.0)),
        )  # fmt: skip
        paint_limb(canvas, bone, self.scale, self.identity.skin, _ARMS, HEAD_LANE)

    def _paint_head(self, canvas: Canvas) -> None:
        self.head.paint_skull(canvas)
        self.head.paint_hair_cap(canvas)


_SIDES = ("left", "right")
