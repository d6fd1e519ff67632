# SPDX-License-Identifier: GPL-3.0-or-later
"""Head, face and hair, drawn on an ellipsoid that turns with the head.

Places on the head are (X, Y, Z) in half axes: X to the person's left, Y down, Z to the front.
"""

from __future__ import annotations

import math

import numpy as np

from .identity import RGB, Identity
from .posing import Vector
from .raster import Canvas, Surface, paint_limb, shading

HEAD_WIDTH, HEAD_HEIGHT = 0.079, 0.101
"""Half axes of the head, body heights."""
CANONICAL_HEAD_Y = -0.47
_LABEL_HAIR, _LABEL_FACE = 1, 2


def _scaled(colour: RGB, factor: float) -> RGB:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


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
        x, y = x * np.float32(1.0 / rx), y * np.float32(1.0 / ry)
        x, y = np.broadcast_arrays(x, y)
        radius = np.sqrt(x * x + y * y)
        distance = (radius - 1.0) * np.float32(0.5 * (rx + ry))
        inverse = 1.0 / np.maximum(radius, 1.0)
        nx, ny = x * inverse, y * inverse
        nz = np.sqrt(np.maximum(1.0 - nx * nx - ny * ny, 0.0))
        across = nx * np.float32(self.cos_yaw) - nz * np.float32(self.sin_yaw)
        ahead = nx * np.float32(self.sin_yaw) + nz * np.float32(self.cos_yaw)
        down = ny - np.float32(self.pitch) * ahead
        return box, distance, (across, down, ahead), (nx, ny, nz)

    def _coordinates(self, place):
        across, down, ahead = place
        return (
            across * np.float32(HEAD_WIDTH),
            CANONICAL_HEAD_Y + down * np.float32(HEAD_HEIGHT),
            ahead * np.float32(HEAD_WIDTH),
        )

    def paint_skull(self, canvas: Canvas) -> None:
        """Ears and the face."""
        for side in (1.0, -1.0):
            if self.facing(side, 0.0) > -0.45:
                ear = self.project(side * 1.0, 0.12, -0.05)
                low = (ear[0], ear[1] + 0.16 * self.ry, ear[2])
                paint_limb(
                    canvas, ear, low, (0.15 * self.rx, 0.11 * self.rx), self.scale,
                    lambda surface: self.identity.skin, _LABEL_FACE,
                )  # fmt: skip
        skull = self._ellipsoid(canvas, 1.0)
        if skull is None:
            return
        box, distance, place, normal = skull
        colour = self._face_colours(place)
        canvas.paint(box, distance, colour, shading(*normal), _LABEL_FACE, self._coordinates(place))

    def _face_colours(self, place) -> np.ndarray:
        across, down, ahead = place
        face = self.identity.face
        colour = np.empty((3, *across.shape), np.float32)
        colour[:] = np.array(self.identity.skin, np.float32)[:, None, None]
        soft = np.float32(1.3 / self.rx)

        def blend(mask: np.ndarray, rgb: RGB | np.ndarray, strength: float = 1.0) -> None:
            nonlocal colour
            target = np.array(rgb, np.float32)[:, None, None] if isinstance(rgb, tuple) else rgb
            weight = mask * np.clip(ahead * 6.0, 0.0, 1.0) * np.float32(strength)
            colour += (target - colour) * weight

        def blob(x: float, y: float, wide: float, high: float) -> np.ndarray:
            dx, dy = (across - np.float32(x)) / wide, (down - np.float32(y)) / high
            return np.clip(
                0.5 + (1.0 - np.sqrt(dx * dx + dy * dy)) * (min(wide, high) / soft), 0, 1
            )

        if self.facing(0.0, 1.0) < -0.75:
            return colour
        skin = self.identity.skin
        darker = _scaled(skin, 0.8)
        brow = _scaled(self.identity.hair_colour, 0.75)
        if face.beard:
            beard = np.clip((down - 0.30 - 0.35 * np.clip(ahead - 0.6, 0, 1)) * 6.0, 0.0, 1.0)
            blend(beard, brow, 0.85)
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
                dx, dy = (across - np.float32(x)) / 0.27, (down - np.float32(y)) / 0.22
                ring = np.abs(np.sqrt(dx * dx + dy * dy) - 1.0)
                blend(np.clip(1.15 - ring * 6.0, 0, 1), (40, 40, 46))
        blend(blob(0.0, 0.56, face.mouth_width, face.mouth_height), face.lip_colour)
        return colour

    def paint_hair_behind(self, canvas: Canvas) -> None:
        """The volume of long, bob, bun, ponytail and afro hair."""
        style = self.identity.hair_style
        colour = self.identity.hair_colour

        def paint(surface: Surface) -> RGB:
            return colour

        def strand(top: Vector, bottom: Vector, radii: tuple[float, float]) -> None:
            paint_limb(
                canvas, top, bottom, (radii[0] * self.rx, radii[1] * self.rx), self.scale, paint,
                _LABEL_HAIR,
            )  # fmt: skip

        if style in ("long", "bob"):
            drop = 1.75 if style == "long" else 0.85
            for side in (0.42, -0.42, 0.0):
                strand(
                    self.project(side, -0.1, -0.42),
                    self.project(side * 1.25, drop, -0.5),
                    (0.72, 0.5 if side else 0.62),
                )
        elif style == "ponytail":
            strand(self.project(0, -0.35, -1.05), self.project(0, 0.25, -1.35), (0.24, 0.34))
            strand(self.project(0, 0.2, -1.35), self.project(0, 1.35, -1.12), (0.34, 0.14))
        elif style == "bun":
            strand(self.project(0, -0.92, -0.62), self.project(0, -1.0, -0.72), (0.4, 0.4))
        elif style == "afro":
            grown = self._ellipsoid(canvas, 1.34, 0.16)
            if grown is not None:
                box, distance, place, normal = grown
                canvas.paint(
                    box, distance, colour, shading(*normal), _LABEL_HAIR, self._coordinates(place)
                )

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
        side_line = np.clip((0.62 - ahead) * 2.6, 0.0, 1.0)
        back_line = np.clip((0.0 - ahead) * 2.2, 0.0, 1.0)
        lock = np.float32(self.identity.parting)
        fringe = -0.47 + 0.16 * across * lock - 0.1 * np.abs(across - lock)
        line = fringe + (temple - fringe) * side_line
        line = line + (nape - line) * back_line
        hairline = (down - line) * np.float32(self.ry * 0.9)
        strands = 1.0 + 0.05 * (np.abs((across * 7.0) - np.floor(across * 7.0) - 0.5) * 2.0 - 0.5)
        canvas.paint(
            box, np.maximum(distance, hairline), self.identity.hair_colour,
            shading(*normal) * strands, _LABEL_HAIR, self._coordinates(place), contact=False,
        )  # fmt: skip
