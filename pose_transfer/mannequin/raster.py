# SPDX-License-Identifier: GPL-3.0-or-later
"""Shaded, anti-aliased body parts on a canvas.

A part is painted over what is there: coverage comes from the signed distance to its outline,
shading from the normal of the round surface that it stands for. Arrays see only +, -, *, /,
square root, comparison and table look-up, so that every machine paints the same bits; the few
trigonometric calls are scalars, rounded before use.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .identity import RGB
from .posing import Vector, cross, dot, normalise


def number(value: float) -> np.ndarray:
    """A float32 as an array without axes, which array operations take faster than a float."""
    return np.array(value, np.float32)


_STEPS = 1024
_SINES = [i / (_STEPS / 2) - 1.0 for i in range(_STEPS + 1)]
_ASIN = np.array([round(math.asin(s) / (2 * math.pi), 7) for s in _SINES], np.float32)
_COSINE = np.array([round(math.sqrt(1.0 - s * s), 7) for s in _SINES], np.float32)
_SINE = np.array(_SINES, np.float32)
_ROWS = np.arange(_STEPS + 1)
_ZERO, _HALF, ONE, _WHITE = number(0.0), number(0.5), number(1.0), number(255.0)
_INDEX_SCALE, _INDEX_START = number(_STEPS / 2), number(_STEPS / 2 + 0.5)
_LAST_INDEX = number(_STEPS)
_LIGHT = (number(-0.36), number(-0.48), number(0.80))
_AMBIENT, _DIFFUSE = number(0.64), number(0.40)
_RIM_SLOPE, _RIM_SHADE, _RIM_GAIN = number(2.2), number(0.82), number(0.18)
_CONTACT_PIXELS, _CONTACT_SLOPE, _CONTACT_SHADE = number(3.5), number(0.5 / 3.5), number(-0.16)
_TUBE_ROUNDNESS = 0.055


def unit(x: np.ndarray) -> np.ndarray:
    """Clip to 0..1, in place."""
    return x.clip(_ZERO, ONE, x)


@dataclass(frozen=True)
class Surface:
    """Where on the body the pixels of a part's box lie; arrays are (h, w).

    `along`: distance down the part in body heights; `around`: angle about it in turns from the
    front.
    """

    along: np.ndarray
    around: np.ndarray


Box = tuple[slice, slice]
"""Rows and columns of the canvas."""

Paint = Callable[[Surface], np.ndarray] | RGB
"""One colour, or what colours a surface: (3, h, w) in 0..255."""


@functools.cache
def coloured(colour: RGB) -> np.ndarray:
    """(3, 1, 1) float32, to be left as it is."""
    return np.array(colour, np.float32)[:, None, None]


class Canvas:
    """An image under construction: planar RGB, labels and, on request, places on the body.

    `coordinates` are planes of x, y and z on the reference body, then of lane, down, u and v (see
    `cloth_place`).
    """

    def __init__(self, height: int, width: int, background: RGB, with_coordinates: bool) -> None:
        self.rgb = np.empty((3, height, width), np.float32)
        self.rgb[:] = coloured(background)
        self.labels = np.zeros((height, width), np.uint8)
        self.coordinates = np.zeros((7, height, width), np.float32) if with_coordinates else None
        self._xs = np.arange(width, dtype=np.float32) + np.float32(0.5)
        self._ys = (np.arange(height, dtype=np.float32) + np.float32(0.5))[:, None]

    def box(
        self, left: float, top: float, right: float, bottom: float, margin: float = 4.0
    ) -> Box | None:
        """The pixels of a rectangle and a margin, or None where it lies outside."""
        height, width = self.labels.shape
        x0, x1 = max(0, int(left - margin)), min(width, int(right + margin) + 1)
        y0, y1 = max(0, int(top - margin)), min(height, int(bottom + margin) + 1)
        if x0 >= x1 or y0 >= y1:
            return None
        return slice(y0, y1), slice(x0, x1)

    def pixels(
        self, box: Box, x: float | np.ndarray, y: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixel centres of `box` relative to (x, y), which may be several, (n, 1, 1)."""
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        return self._xs[box[1]] - x, self._ys[box[0]] - y

    def paint(
        self,
        box: Box,
        distance: np.ndarray,
        colour: np.ndarray | RGB,
        shade: np.ndarray,
        label: int,
        coordinates: Sequence[np.ndarray | float] | None = None,
        contact: bool = True,
    ) -> None:
        """Blend a part whose outline is `distance` (pixels, negative inside) over the canvas."""
        region = self.rgb[:, box[0], box[1]]
        labels = self.labels[box]
        under = region
        if contact:
            reach = _CONTACT_PIXELS - distance
            reach *= _CONTACT_SLOPE
            unit(reach)
            reach *= labels.astype(bool).astype(np.float32)
            reach *= _CONTACT_SHADE
            reach += ONE
            under = region * reach
        coverage = unit(_HALF - distance)
        if isinstance(colour, tuple):
            colour = coloured(colour)
        painted = colour * shade
        painted -= under
        painted *= coverage
        np.add(under, painted, out=region)
        inside = coverage >= _HALF
        labels[inside] = label
        if self.coordinates is not None and coordinates is not None:
            for plane, value in zip(self.coordinates, coordinates, strict=True):
                np.copyto(plane[box], value, where=inside)

    def image(self) -> np.ndarray:
        """The picture as (H, W, 3) uint8."""
        rounded = self.rgb + _HALF
        rounded.clip(_ZERO, _WHITE, rounded)
        return np.stack(tuple(rounded.astype(np.uint8)), axis=-1)


def shading(nx: np.ndarray, ny: np.ndarray, nz: np.ndarray) -> np.ndarray:
    """Lambert's law with a soft ambient term and darker rims."""
    diffuse = nx * _LIGHT[0]
    diffuse += ny * _LIGHT[1]
    diffuse += nz * _LIGHT[2]
    return _lit(diffuse, _rim(nz))


def _rim(nz: np.ndarray) -> np.ndarray:
    return _RIM_SHADE + _RIM_GAIN * unit(nz * _RIM_SLOPE)


def _lit(diffuse: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """Shade from the cosine to the light, which it overwrites, and the darkness of rims."""
    np.maximum(diffuse, _ZERO, out=diffuse)
    diffuse *= _DIFFUSE
    diffuse += _AMBIENT
    diffuse *= rim
    return diffuse


_COSINE_LIT = _COSINE * _LIGHT[2]
_COSINE_RIM = _rim(_COSINE)


def cloth_place(
    lane: float,
    down: np.ndarray | float,
    roundness: float,
    sine: np.ndarray,
    cosine: np.ndarray,
) -> tuple[np.ndarray | float, ...]:
    """(lane, down, u, v): a place on a part, the same for places that look alike.

    Clothes look alike after half a turn about a part (the same where an even number of a pattern's
    periods goes around, with the colours exchanged where an odd one does), and left limbs look like
    right ones. So `lane` tells kinds of parts apart, `down` is the place along the reference body,
    and (u, v) goes twice around a circle of radius `roundness` while the angle, given by `sine` and
    `cosine`, goes around the part once. All in body heights.
    """
    return (
        lane,
        down,
        (cosine * cosine - sine * sine) * np.float32(roundness),
        (sine * cosine) * np.float32(2.0 * roundness),
    )


def sine_index(sine: np.ndarray) -> np.ndarray:
    """Rows of the tables over -1..1, overwriting `sine`; what lies outside is clipped."""
    sine *= _INDEX_SCALE
    sine += _INDEX_START
    return sine.clip(_ZERO, _LAST_INDEX, sine).astype(np.intp)


def tube_shading(index: np.ndarray, ux: np.ndarray, uy: np.ndarray) -> np.ndarray:
    """Shade of cylinders along (ux, uy) at rows of the tables."""
    sine = _SINE.take(index)
    diffuse = sine * uy
    diffuse *= _LIGHT[0]
    sine *= -ux
    sine *= _LIGHT[1]
    diffuse += sine
    diffuse += _COSINE_LIT.take(index)
    return _lit(diffuse, _COSINE_RIM.take(index))


def tube_shading_table(ux: np.ndarray, uy: np.ndarray) -> np.ndarray:
    """`tube_shading` at every row: less work where a part has more pixels than rows."""
    return tube_shading(_ROWS, ux, uy)


@dataclass(frozen=True)
class Frame:
    """How a long part lies to the camera: its length axis, and the angle of its front.

    `ratio` is depth over width of its cross-section.
    """

    stretch: float = 1.0
    offset: float = 0.0

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

    def turn(self, index: np.ndarray) -> np.ndarray:
        """Angle from the front in turns, for rows of the tables."""
        return _ASIN.take(index) - number(self.offset)

    def place(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(sine, cosine) of the angle from the front, for rows of the tables."""
        angle = 2 * math.pi * self.offset
        cosine, sine = number(math.cos(angle)), number(math.sin(angle))
        return (
            (_SINE * cosine - _COSINE * sine).take(index),
            (_COSINE * cosine + _SINE * sine).take(index),
        )


_PROFILE_STEPS = 256
_PLACES = np.arange(_PROFILE_STEPS + 1, dtype=np.float64) / _PROFILE_STEPS


@dataclass(frozen=True)
class Profile:
    """Half width of a tube against its length: knots of (0..1, body heights), smoothed."""

    knots: tuple[tuple[float, float], ...]

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """(half width, its slope) at equally spaced places."""
        width = np.empty_like(_PLACES)
        for (s0, w0), (s1, w1) in zip(self.knots, self.knots[1:], strict=False):
            here = slice(math.ceil(s0 * _PROFILE_STEPS), math.floor(s1 * _PROFILE_STEPS) + 1)
            t = (_PLACES[here] - s0) / (s1 - s0)
            width[here] = w0 + (w1 - w0) * t * t * (3.0 - 2.0 * t)
        slope = np.zeros_like(width)
        slope[1:-1] = (width[2:] - width[:-2]) * (_PROFILE_STEPS / 2)
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
    ux, uy = number(dx / size), number(dy / size)
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
    row = x * ux + y * uy
    row *= number(1.0 / size)
    cross_axis = x * uy - y * ux
    knot = (row.clip(_ZERO, ONE) * number(_PROFILE_STEPS)).astype(np.intp)
    half = (width_table * number(scale * frame.stretch)).take(knot)
    index = sine_index(cross_axis / half)
    # The near side of a level ring is seen lower than its axis.
    bend = _COSINE.take(index)
    bend *= half
    bend *= number(tilt * ratio / size)
    t = np.subtract(row, bend, out=bend)
    slope_table *= number(scale * frame.stretch / size)
    distance = np.abs(cross_axis, out=cross_axis)
    distance -= half
    distance /= np.sqrt(1.0 + slope_table * slope_table).take(knot)
    ends = np.maximum(-t, t - ONE)
    ends *= number(size)
    np.maximum(distance, ends, out=distance)
    if isinstance(paint, tuple):
        colour = paint
    else:
        lengthwise = t.clip(_ZERO, ONE) * np.float32(length)
        colour = paint(Surface(lengthwise, frame.turn(index)))
    coordinates = None
    if canvas.coordinates is not None and canonical is not None:
        lateral, ahead = frame.place(index)
        down = canonical[0] + (canonical[1] - canonical[0]) * t
        width = width_table.take(knot)
        coordinates = (
            width * lateral,
            down,
            width * np.float32(ratio) * ahead,
            *cloth_place(0.0, down, _TUBE_ROUNDNESS, lateral, ahead),
        )
    shade = tube_shading_table(ux, uy).take(index)
    canvas.paint(box, distance, colour, shade, label, coordinates)
