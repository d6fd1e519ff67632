# SPDX-License-Identifier: GPL-3.0-or-later
"""Head, face and hair, drawn on an ellipsoid that turns with the head.

Places on the head are (X, Y, Z) in half axes: X to the person's left, Y down, Z to the front.
"""

from __future__ import annotations

import math

import numpy as np

from .identity import RGB, Identity
from .limbs import Bone, paint_limb
from .posing import Vector
from .raster import Canvas, coloured, number, shading, unit

HEAD_WIDTH, HEAD_HEIGHT = 0.079, 0.101
"""Half axes of the head, body heights."""
CANONICAL_HEAD_Y = -0.47
HEAD_LANE = -0.2
_STRAND_LANE = -0.26
_LABEL_HAIR, _LABEL_FACE = 1, 2


def _scaled(colour: RGB, factor: float) -> RGB:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def _on_reference(x: float, y: float, z: float) -> Vector:
    """A place given in half axes, on the reference body."""
    return x * HEAD_WIDTH, CANONICAL_HEAD_Y + y * HEAD_HEIGHT, z * HEAD_WIDTH


class Head:
    """Where the head is on the canvas: `centre` in pixels, `yaw` and `pitch` in radians."""

    def __init__(self, identity: Identity, centre: Vector, yaw: float, pitch: float, scale: float):
        self.identity = identity
        self.centre = centre
        self.scale = scale
        self.rx, self.ry = HEAD_WIDTH * scale, HEAD_HEIGHT * scale
        self.cos_yaw, self.sin_yaw = round(math.cos(yaw), 6), round(math.sin(yaw), 6)
        self.pitch = round(math.sin(pitch), 6)

    def project(self, x: float, y: float, z: float) -> Vector:
        """Canvas position of a place given in half axes."""
        return (
            self.centre[0] + self.rx * (x * self.cos_yaw + z * self.sin_yaw),
            self.centre[1] + self.ry * (y + self.pitch * z * self.cos_yaw),
            self.centre[2] + self.rx * (z * self.cos_yaw - x * self.sin_yaw),
        )

    def facing(self, x: float, z: float) -> float:
        """Cosine between the direction (x, z) on the head and the viewer."""
        return z * self.cos_yaw - x * self.sin_yaw

    def keypoints(self) -> dict[str, tuple[Vector, bool]]:
        """Nose, eyes and ears on the canvas and whether they can be seen."""
        spacing = self.identity.face.eye_spacing
        height = self.identity.face.eye_height
        ahead = math.sqrt(1.0 - spacing * spacing)
        return {
            "nose": (self.project(0.0, 0.26, 1.05), self.facing(0.0, 1.0) > -0.12),
            "left_eye": (
                self.project(spacing, height, ahead * 0.98),
                self.facing(spacing, ahead) > 0.02,
            ),
            "right_eye": (
                self.project(-spacing, height, ahead * 0.98),
                self.facing(-spacing, ahead) > 0.02,
            ),
            "left_ear": (self.project(1.0, 0.12, -0.05), self.facing(1.0, 0.0) > -0.35),
            "right_ear": (self.project(-1.0, 0.12, -0.05), self.facing(-1.0, 0.0) > -0.35),
        }

    def _ellipsoid(self, canvas: Canvas, grow: float, lift: float = 0.0):
        """Box, outline distance, head-frame X, Y, Z and camera normal of a grown head."""
        rx, ry = self.rx * grow, self.ry * grow
        cy = self.centre[1] - lift * self.ry
        box = canvas.box(self.centre[0] - rx, cy - ry, self.centre[0] + rx, cy + ry)
        if box is None:
            return None
        x, y = canvas.pixels(box, self.centre[0], cy)
        x, y = x * number(1.0 / rx), y * number(1.0 / ry)
        radius = x * x + y * y
        np.sqrt(radius, out=radius)
        distance = (radius - 1.0) * number(0.5 * (rx + ry))
        inverse = 1.0 / np.maximum(radius, 1.0)
        nx, ny = x * inverse, y * inverse
        nz = unit(1.0 - nx * nx - ny * ny)
        np.sqrt(nz, out=nz)
        cosine, sine = number(self.cos_yaw), number(self.sin_yaw)
        across = nx * cosine - nz * sine
        ahead = nx * sine + nz * cosine
        down = ny - number(self.pitch) * ahead
        return box, distance, (across, down, ahead), (nx, ny, nz)

    def _coordinates(self, canvas: Canvas, place):
        if canvas.coordinates is None:
            return None
        across, down, ahead = place
        x, z = across * np.float32(HEAD_WIDTH), ahead * np.float32(HEAD_WIDTH)
        y = CANONICAL_HEAD_Y + down * np.float32(HEAD_HEIGHT)
        # Faces do not repeat on the back of the head.
        return x, y, z, HEAD_LANE, y, x, z

    def paint_skull(self, canvas: Canvas) -> None:
        """Ears and the face."""
        for side in (1.0, -1.0):
            if self.facing(side, 0.0) > -0.45:
                ear = self.project(side * 1.0, 0.12, -0.05)
                low = (ear[0], ear[1] + 0.16 * self.ry, ear[2])
                bone = Bone(
                    ear, low, (0.15 * self.rx, 0.11 * self.rx),
                    (_on_reference(side, 0.12, 0.0), _on_reference(side, 0.28, 0.0)),
                )  # fmt: skip
                paint_limb(canvas, bone, self.scale, self.identity.skin, _LABEL_FACE, HEAD_LANE)
        skull = self._ellipsoid(canvas, 1.0)
        if skull is None:
            return
        box, distance, place, normal = skull
        canvas.paint(
            box, distance, self._skull_colours(distance, place), shading(*normal), _LABEL_FACE,
            self._coordinates(canvas, place),
        )  # fmt: skip

    def _skull_colours(self, distance: np.ndarray, place) -> np.ndarray | RGB:
        """Skin, with the face on the part of the skull that is seen and in front."""
        if self.facing(0.0, 1.0) < -0.75:
            return self.identity.skin
        across, down, ahead = place
        front = ((ahead > 0.0) & (distance < 0.5)).ravel().nonzero()[0]
        face = self._face_colours(across.take(front), down.take(front), ahead.take(front))
        colour = np.empty((3, distance.size), np.float32)
        colour[:] = coloured(self.identity.skin)[..., 0]
        for plane, values in zip(colour, face, strict=True):
            plane[front] = values
        return colour.reshape(3, *distance.shape)

    def _face_colours(self, across: np.ndarray, down: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """(3, n) colours of n places on the head."""
        face = self.identity.face
        colour = np.empty((3, *across.shape), np.float32)
        colour[:] = coloured(self.identity.skin)[..., 0]
        soft = np.float32(1.3 / self.rx)
        in_front = unit(ahead * 6.0)

        def blend(mask: np.ndarray, rgb: RGB, strength: float = 1.0) -> None:
            mask *= in_front
            mask *= number(strength)
            change = coloured(rgb)[..., 0] - colour
            change *= mask
            np.add(colour, change, out=colour)

        def blob(x: float, y: float, wide: float, high: float) -> np.ndarray:
            return unit(0.5 + (1.0 - radius(x, y, wide, high)) * (min(wide, high) / soft))

        def radius(x: float, y: float, wide: float, high: float) -> np.ndarray:
            """Distance from (x, y), 1 on the ellipse with these half axes."""
            dx, dy = (across - number(x)) / number(wide), (down - number(y)) / number(high)
            dx *= dx
            dy *= dy
            dx += dy
            return np.sqrt(dx, out=dx)

        skin = self.identity.skin
        darker = _scaled(skin, 0.8)
        brow = _scaled(self.identity.hair_colour, 0.75)
        if face.beard:
            beard = (down - 0.30 - 0.35 * unit(ahead - 0.6)) * 6.0
            blend(unit(beard), brow, 0.85)
        blend(blob(0.0, 0.27, face.nose, 0.15), darker, 0.75)
        blend(
            blob(0.0, 0.21, face.nose * 0.5, 0.16),
            _scaled(skin, 1.08),
            0.6,
        )
        for side in (1.0, -1.0):
            x, y = side * face.eye_spacing, face.eye_height
            blend(blob(x, y, face.eye_size * 1.15, face.eye_size * 0.8), (250, 250, 250))
            blend(blob(x, y, face.eye_size * 0.66, face.eye_size * 0.72), face.eye_colour)
            blend(blob(x, y - 0.235, face.eye_size * 1.3, face.brow), brow)
            blend(blob(side * 0.5, 0.3, 0.16, 0.1), (226, 110, 100), 0.22)
            if face.glasses:
                ring = np.abs(radius(x, y, 0.27, 0.22) - 1.0)
                blend(unit(1.15 - ring * 6.0), (40, 40, 46))
        blend(blob(0.0, 0.56, face.mouth_width, face.mouth_height), face.lip_colour)
        return colour

    def paint_hair_behind(self, canvas: Canvas) -> None:
        """The volume of long, bob, bun, ponytail and afro hair."""
        style = self.identity.hair_style
        colour = self.identity.hair_colour

        def strand(top: Vector, bottom: Vector, radii: tuple[float, float]) -> Bone:
            return Bone(
                self.project(*top), self.project(*bottom),
                (radii[0] * self.rx, radii[1] * self.rx),
                (_on_reference(*top), _on_reference(*bottom)),
            )  # fmt: skip

        strands: list[Bone] = []
        if style in ("long", "bob"):
            drop = 1.75 if style == "long" else 0.85
            for side in (0.42, -0.42, 0.0):
                thin = 0.5 if side else 0.62
                strands.append(strand((side, -0.1, -0.42), (side * 1.25, drop, -0.5), (0.72, thin)))
        elif style == "ponytail":
            strands.append(strand((0, -0.35, -1.05), (0, 0.25, -1.35), (0.24, 0.34)))
            strands.append(strand((0, 0.2, -1.35), (0, 1.35, -1.12), (0.34, 0.14)))
        elif style == "bun":
            strands.append(strand((0, -0.92, -0.62), (0, -1.0, -0.72), (0.4, 0.4)))
        elif style == "afro":
            grown = self._ellipsoid(canvas, 1.34, 0.16)
            if grown is not None:
                box, distance, place, normal = grown
                canvas.paint(
                    box, distance, colour, shading(*normal), _LABEL_HAIR,
                    self._coordinates(canvas, place),
                )  # fmt: skip
        for bone in strands:
            paint_limb(canvas, bone, self.scale, colour, _LABEL_HAIR, _STRAND_LANE)

    def paint_hair_cap(self, canvas: Canvas) -> None:
        """The hair that grows on the head itself, with the hairline as a line on the ellipsoid."""
        style = self.identity.hair_style
        grow, lift = {"crop": (1.03, 0.01), "afro": (1.16, 0.1)}.get(style, (1.09, 0.035))
        cap = self._ellipsoid(canvas, grow, lift)
        if cap is None:
            return
        box, distance, place, normal = cap
        across, down, ahead = place
        nape = 0.62 if style in ("short", "crop", "bun", "ponytail", "afro") else 0.85
        temple = 0.05 if style in ("short", "crop", "bun", "ponytail", "afro") else 0.45
        side_line = unit((0.62 - ahead) * 2.6)
        back_line = unit(ahead * -2.2)
        lock = np.float32(self.identity.parting)
        fringe = -0.47 + 0.16 * across * lock - 0.1 * np.abs(across - lock)
        line = fringe + (temple - fringe) * side_line
        line = line + (nape - line) * back_line
        hairline = (down - line) * np.float32(self.ry * 0.9)
        strands = 1.0 + 0.05 * (np.abs((across * 7.0) - np.floor(across * 7.0) - 0.5) * 2.0 - 0.5)
        canvas.paint(
            box, np.maximum(distance, hairline), self.identity.hair_colour,
            shading(*normal) * strands, _LABEL_HAIR, self._coordinates(canvas, place),
            contact=False,
        )  # fmt: skip
