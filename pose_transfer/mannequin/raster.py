# SPDX-License-Identifier: GPL-3.0-or-later
"""Shaded, anti-aliased body parts on a canvas.

A part is painted over what is there: coverage comes from the signed distance to its outline,
shading from the normal of the round surface that it stands for. Arrays see only +, -, *, /,
square root, comparison and table look-up, so that every machine paints the same bits; the few
trigonometric calls are scalars, rounded before use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .identity import RGB
from .posing import Vector, add, cross, dot, normalise

_STEPS = 1024
_SINES = [i / (_STEPS / 2) - 1.0 for i in range(_STEPS + 1)]
_ASIN = np.array([round(math.asin(s) / (2 * math.pi), 7) for s in _SINES], np.float32)
_COSINE = np.array([round(math.sqrt(1.0 - s * s), 7) for s in _SINES], np.float32)
_SINE = np.array(_SINES, np.float32)
_LIGHT = (-0.36, -0.48, 0.80)
_AMBIENT, _DIFFUSE = 0.64, 0.40
_CONTACT_PIXELS, _CONTACT_SHADE = 3.5, 0.16


@dataclass(frozen=True)
class Surface:
    """Where on the body the pixels of a part's box lie; arrays are (h, w).

    `along`: distance down the part in body heights; `around`: angle about it in turns from the
    front.
    """

    along: np.ndarray
    around: np.ndarray


Paint = Callable[[Surface], "np.ndarray | RGB"]
"""Colours a surface: (3, h, w) in 0..255, or one colour."""


class Canvas:
    """An image under construction: planar RGB, labels and, on request, body coordinates."""

    def __init__(self, height: int, width: int, background: RGB, with_coordinates: bool) -> None:
        self.rgb = np.empty((3, height, width), np.float32)
        self.rgb[:] = np.array(background, np.float32)[:, None, None]
        self.labels = np.zeros((height, width), np.uint8)
        self.coordinates = np.zeros((3, height, width), np.float32) if with_coordinates else None
        self._xs = np.arange(width, dtype=np.float32) + np.float32(0.5)
        self._ys = (np.arange(height, dtype=np.float32) + np.float32(0.5))[:, None]

    def box(
        self, left: float, top: float, right: float, bottom: float, margin: float = 4.0
    ) -> tuple[slice, slice] | None:
        """The pixels of a rectangle and a margin, or None where it lies outside."""
        height, width = self.labels.shape
        x0, x1 = max(0, int(left - margin)), min(width, int(right + margin) + 1)
        y0, y1 = max(0, int(top - margin)), min(height, int(bottom + margin) + 1)
        if x0 >= x1 or y0 >= y1:
            return None
        return slice(y0, y1), slice(x0, x1)

    def pixels(self, box: tuple[slice, slice], x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
        """Pixel centres of `box` relative to (x, y)."""
        return self._xs[box[1]] - np.float32(x), self._ys[box[0]] - np.float32(y)

    def paint(
        self,
        box: tuple[slice, slice],
        distance: np.ndarray,
        colour: np.ndarray | RGB,
        shade: np.ndarray,
        label: int,
        coordinates: Sequence[np.ndarray | float] | None = None,
        contact: bool = True,
    ) -> None:
        """Blend a part whose outline is `distance` (pixels, negative inside) over the canvas."""
        region = self.rgb[:, box[0], box[1]]
        if contact:
            reach = unit((_CONTACT_PIXELS - distance) * (0.5 / _CONTACT_PIXELS))
            reach *= self.labels[box] != 0
            reach *= -_CONTACT_SHADE
            reach += 1.0
            region *= reach
        coverage = unit(0.5 - distance)
        if isinstance(colour, tuple):
            colour = np.array(colour, np.float32)[:, None, None]
        painted = colour * shade
        painted -= region
        painted *= coverage
        region += painted
        inside = coverage >= 0.5
        self.labels[box][inside] = label
        if self.coordinates is not None and coordinates is not None:
            for plane, value in zip(self.coordinates, coordinates, strict=True):
                np.copyto(plane[box], value, where=inside)

    def image(self) -> np.ndarray:
        """The picture as (H, W, 3) uint8."""
        rounded = np.clip(self.rgb + 0.5, 0.0, 255.0).astype(np.uint8)
        return np.ascontiguousarray(rounded.transpose(1, 2, 0))


def shading(nx: np.ndarray, ny: np.ndarray, nz: np.ndarray) -> np.ndarray:
    """Lambert's law with a soft ambient term and darker rims."""
    diffuse = nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2]
    np.maximum(diffuse, 0.0, out=diffuse)
    rim = np.minimum(nz * 2.2, 1.0)
    return (_AMBIENT + _DIFFUSE * diffuse) * (0.82 + 0.18 * rim)


def unit(x: np.ndarray) -> np.ndarray:
    """Clip to 0..1, in place."""
    np.maximum(x, 0.0, out=x)
    return np.minimum(x, 1.0, out=x)


def _sine_index(sine: np.ndarray) -> np.ndarray:
    """Rows of the tables over -1..1; what lies outside is clipped."""
    scaled = sine * (_STEPS / 2)
    scaled += _STEPS / 2 + 0.5
    np.maximum(scaled, 0.0, out=scaled)
    np.minimum(scaled, float(_STEPS), out=scaled)
    return scaled.astype(np.int32)


def _tube_shading(ux: float, uy: float) -> np.ndarray:
    """Shade of a cylinder along (ux, uy), by row of the tables."""
    return shading(_SINE * np.float32(uy), _SINE * np.float32(-ux), _COSINE)


@dataclass(frozen=True)
class Frame:
    """How a long part lies to the camera: its length axis, and the angle of its front.

    `ratio` is depth over width of its cross-section.
    """

    stretch: float
    offset: float

    @classmethod
    def of(cls, axis: Vector, left: Vector, front: Vector, ratio: float = 1.0) -> Frame:
        """From the part's own axes in camera space.

        A surface point at angle t from the front lies at a sin(t) left + b cos(t) front; seen
        across the axis that is w sin(t + offset), with w = a * stretch.
        """
        across = cross(axis, (0.0, 0.0, 1.0))
        length = math.sqrt(dot(across, across))
        if length < 1e-4:
            return cls(1.0, 0.0)
        across = (across[0] / length, across[1] / length, across[2] / length)
        lateral, ahead = dot(left, across), ratio * dot(front, across)
        return cls(
            round(math.hypot(lateral, ahead), 6),
            round(math.atan2(ahead, lateral) / (2 * math.pi), 6),
        )

    def place(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(sine, cosine) of the angle from the front, for rows of the tables."""
        angle = 2 * math.pi * self.offset
        cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        return (
            _SINE[index] * cosine - _COSINE[index] * sine,
            _COSINE[index] * cosine + _SINE[index] * sine,
        )


def limb_axes(axis: Vector, rest: Vector, front: Vector) -> tuple[Vector, Vector]:
    """(left, front) of a limb: the torso's front carried along the shortest turn from `rest`."""
    along = dot(rest, axis)
    if along < -0.98:
        turned = front
    else:
        total = add(rest, axis)
        turned = add(front, total, -dot(axis, front) / (1.0 + along))
    turned = add(turned, axis, -dot(turned, axis))
    turned = normalise(turned)
    return cross(axis, turned), turned


def paint_limb(
    canvas: Canvas,
    start: Vector,
    end: Vector,
    radii: tuple[float, float],
    scale: float,
    paint: Paint,
    label: int,
    frame: Frame | None = None,
    along: tuple[float, float] = (0.0, 1.0),
    bulge: float = 0.0,
    butt: bool = False,
    canonical: tuple[Vector, Vector] | None = None,
    contact: bool = True,
) -> None:
    """A round tapered limb between two points (pixels), `radii` in pixels.

    `along` are the lengths at its ends, `butt` cuts it straight at the end (a hem), `canonical`
    its end points on the reference body, for body coordinates; `contact` darkens what lies under
    its rim.
    """
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(math.sqrt(dx * dx + dy * dy), 1e-3)
    reach = max(radii) * (1.0 + bulge)
    box = canvas.box(
        min(start[0], end[0]) - reach,
        min(start[1], end[1]) - reach,
        max(start[0], end[0]) + reach,
        max(start[1], end[1]) + reach,
        4.0 if contact else 1.0,
    )
    if box is None:
        return
    x, y = canvas.pixels(box, start[0], start[1])
    ux, uy = np.float32(dx / length), np.float32(dy / length)
    raw = x * ux + y * uy
    cross_axis = x * uy - y * ux
    t = unit(raw * np.float32(1.0 / length))
    beyond = raw - t * np.float32(length)
    radius = t * np.float32(radii[1] - radii[0])
    radius += np.float32(radii[0])
    if bulge:
        radius = radius * (1.0 + np.float32(4.0 * bulge) * t * (1.0 - t))
    off = np.sqrt(cross_axis * cross_axis + beyond * beyond)
    distance = off - radius
    if butt:
        distance = np.maximum(distance, raw - np.float32(length))
    index = _sine_index(cross_axis / radius)
    frame = frame or Frame(1.0, 0.0)
    if length < max(radii):
        inverse = 1.0 / np.maximum(radius, off)
        nx, ny = (x - t * np.float32(dx)) * inverse, (y - t * np.float32(dy)) * inverse
        shade = shading(nx, ny, np.sqrt(np.maximum(1.0 - nx * nx - ny * ny, 0.0)))
    else:
        shade = _tube_shading(dx / length, dy / length)[index]
    surface = Surface(
        raw * np.float32((along[1] - along[0]) / length) + np.float32(along[0]),
        _ASIN[index] - np.float32(frame.offset),
    )
    coordinates = None
    if canvas.coordinates is not None and canonical is not None:
        first, last = canonical
        lateral, ahead = frame.place(index)
        width = radius * np.float32(1.0 / scale)
        coordinates = (
            first[0] + (last[0] - first[0]) * t + width * lateral,
            first[1] + (last[1] - first[1]) * t,
            first[2] + (last[2] - first[2]) * t + width * ahead,
        )
    canvas.paint(box, distance, paint(surface), shade, label, coordinates, contact)


@dataclass(frozen=True)
class Profile:
    """Half width of a tube against its length: knots of (0..1, body heights), smoothed."""

    knots: tuple[tuple[float, float], ...]
    steps: int = 256

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """(half width, its slope) at steps + 1 places."""
        places = np.arange(self.steps + 1, dtype=np.float64) / self.steps
        width = np.empty_like(places)
        for (s0, w0), (s1, w1) in zip(self.knots, self.knots[1:], strict=False):
            here = (places >= s0) & (places <= s1)
            t = (places[here] - s0) / (s1 - s0)
            width[here] = w0 + (w1 - w0) * t * t * (3.0 - 2.0 * t)
        slope = np.zeros_like(width)
        slope[1:-1] = (width[2:] - width[:-2]) * (self.steps / 2)
        return width.astype(np.float32), slope.astype(np.float32)


def paint_tube(
    canvas: Canvas,
    start: Vector,
    end: Vector,
    profile: Profile,
    ratio: float,
    axes: tuple[Vector, Vector],
    scale: float,
    length: float,
    paint: Paint,
    label: int,
    tilt: float,
    canonical: tuple[float, float] | None = None,
) -> None:
    """An elliptic tube (torso, skirt) from `start` to `end` in pixels.

    `ratio` is depth over width, `axes` the tube's left and front, `length` its length in body
    heights, `tilt` the sine of the camera's pitch, which bends hems; `canonical` gives the y of
    both ends on the reference body.
    """
    dx, dy = end[0] - start[0], end[1] - start[1]
    size = math.sqrt(dx * dx + dy * dy)
    ux, uy = np.float32(dx / size), np.float32(dy / size)
    frame = Frame.of(normalise((dx, dy, end[2] - start[2])), axes[0], axes[1], ratio)
    width_table, slope_table = profile.tables()
    reach = float(width_table.max()) * scale * frame.stretch
    box = canvas.box(
        min(start[0], end[0]) - reach,
        min(start[1], end[1]),
        max(start[0], end[0]) + reach,
        max(start[1], end[1]) + reach * tilt,
    )
    if box is None:
        return
    x, y = canvas.pixels(box, start[0], start[1])
    row = (x * ux + y * uy) * np.float32(1.0 / size)
    cross_axis = x * uy - y * ux
    knot = (unit(row.copy()) * profile.steps).astype(np.int32)
    half = width_table[knot] * np.float32(scale * frame.stretch)
    index = _sine_index(cross_axis / half)
    # The near side of a level ring is seen lower than its axis.
    t = row - _COSINE[index] * half * np.float32(tilt * ratio / size)
    slope = slope_table[knot] * np.float32(scale * frame.stretch / size)
    sides = (np.abs(cross_axis) - half) / np.sqrt(1.0 + slope * slope)
    ends = np.maximum(-t, t - 1.0) * np.float32(size)
    surface = Surface(unit(t.copy()) * np.float32(length), _ASIN[index] - np.float32(frame.offset))
    coordinates = None
    if canvas.coordinates is not None and canonical is not None:
        lateral, ahead = frame.place(index)
        coordinates = (
            width_table[knot] * lateral,
            canonical[0] + (canonical[1] - canonical[0]) * t,
            width_table[knot] * np.float32(ratio) * ahead,
        )
    shade = _tube_shading(dx / size, dy / size)[index]
    canvas.paint(box, np.maximum(sides, ends), paint(surface), shade, label, coordinates)
