# SPDX-License-Identifier: GPL-3.0-or-later
"""Limbs: round, tapered parts between two points. Arrays see what `raster` says they may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .identity import RGB
from .posing import Vector, add, cross, dot, normalise
from .raster import (
    ONE,
    Canvas,
    Frame,
    Paint,
    Surface,
    cloth_place,
    number,
    shading,
    sine_index,
    tube_shading,
    tube_shading_table,
    unit,
)

_PAINT_MARGIN, _CONTACT_MARGIN = 0.05, 3.05
"""How far from its outline a limb changes pixels, by itself and by its contact."""
_FRONT = Frame()
_ROUNDNESS = 0.016


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


@dataclass(frozen=True)
class Bone:
    """A limb between two points; points and `radii` in pixels.

    `canonical` are its end points on the reference body.
    """

    start: Vector
    end: Vector
    radii: tuple[float, float]
    canonical: tuple[Vector, Vector]

    def extent(self) -> tuple[float, float, float]:
        """(dx, dy, length) on the canvas."""
        dx, dy = self.end[0] - self.start[0], self.end[1] - self.start[1]
        return dx, dy, max(math.sqrt(dx * dx + dy * dy), 1e-3)

    def edges(self, grown: float = 1.0) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, with radii `grown` times as large."""
        (x0, y0, _), (x1, y1, _) = self.start, self.end
        first, last = self.radii[0] * grown, self.radii[1] * grown
        return (
            min(x0 - first, x1 - last),
            min(y0 - first, y1 - last),
            max(x0 + first, x1 + last),
            max(y0 + first, y1 + last),
        )

    def foreshortened(self, length: float) -> bool:
        """Seen from its end, so that it looks like a ball."""
        return length < max(self.radii)

    def coordinates(
        self, t: np.ndarray, width: np.ndarray, index: np.ndarray, frame: Frame, lane: float
    ) -> tuple[np.ndarray | float, ...]:
        """Places on the body at the share `t` of the length; `width` is the radius there."""
        first, last = self.canonical
        lateral, ahead = frame.place(index)
        down = first[1] + (last[1] - first[1]) * t
        return (
            first[0] + (last[0] - first[0]) * t + width * lateral,
            down,
            first[2] + (last[2] - first[2]) * t + width * ahead,
            *cloth_place(lane, down, _ROUNDNESS, lateral, ahead),
        )


def _measure(x, y, ux, uy, length, inverse):
    """Distance along the axis, across it, share of the length, distance from the axis; pixels.

    One limb's numbers, or those of n limbs, (n, 1, 1).
    """
    raw = x * ux + y * uy
    cross_axis = x * uy - y * ux
    t = unit(raw * inverse)
    beyond = raw - t * length
    beyond *= beyond
    beyond += cross_axis * cross_axis
    return raw, cross_axis, t, np.sqrt(beyond, out=beyond)


def _ball_shading(x, y, extent, t, radius, off) -> np.ndarray:
    inverse = ONE / np.maximum(radius, off)
    nx, ny = (x - t * number(extent[0])) * inverse, (y - t * number(extent[1])) * inverse
    return shading(nx, ny, np.sqrt(unit(ONE - nx * nx - ny * ny)))


def paint_limb(
    canvas: Canvas,
    bone: Bone,
    scale: float,
    paint: Paint,
    label: int,
    lane: float,
    frame: Frame = _FRONT,
    along: tuple[float, float] = (0.0, 1.0),
    bulge: float = 0.0,
    butt: bool = False,
    contact: bool = True,
) -> None:
    """Paint one limb; `scale` is pixels in a body height.

    `lane` is its kind (see `cloth_place`), `along` are the lengths at its ends, `butt` cuts it
    straight at the end (a hem), `contact` darkens what lies under its rim.
    """
    margin = _CONTACT_MARGIN if contact else _PAINT_MARGIN
    box = canvas.box(*bone.edges(1.0 + bulge), margin)
    if box is None:
        return
    dx, dy, length = extent = bone.extent()
    x, y = canvas.pixels(box, bone.start[0], bone.start[1])
    ux, uy = number(dx / length), number(dy / length)
    raw, cross_axis, t, off = _measure(x, y, ux, uy, number(length), number(1.0 / length))
    radius = t * number(bone.radii[1] - bone.radii[0])
    radius += number(bone.radii[0])
    if bulge:
        radius *= ONE + number(4.0 * bulge) * t * (ONE - t)
    distance = off - radius
    if butt:
        np.maximum(distance, raw - number(length), out=distance)
    index = sine_index(cross_axis / radius)
    if bone.foreshortened(length):
        shade = _ball_shading(x, y, extent, t, radius, off)
    else:
        shade = tube_shading_table(ux, uy).take(index)
    if isinstance(paint, tuple):
        colour = paint
    else:
        lengthwise = raw * number((along[1] - along[0]) / length) + number(along[0])
        colour = paint(Surface(lengthwise, frame.turn(index)))
    coordinates = None
    if canvas.coordinates is not None:
        coordinates = bone.coordinates(t, radius * number(1.0 / scale), index, frame, lane)
    canvas.paint(box, distance, colour, shade, label, coordinates, contact)


def paint_bones(
    canvas: Canvas,
    bones: Sequence[Bone],
    scale: float,
    colours: Sequence[RGB],
    label: int,
    lane: float,
    contact: bool = True,
) -> None:
    """Paint small limbs that lie together, each over those before it.

    The same as `paint_limb` for each, and faster: all are measured in one box.
    """
    lefts, tops, rights, bottoms = zip(*(bone.edges() for bone in bones), strict=True)
    margin = _CONTACT_MARGIN if contact else _PAINT_MARGIN
    box = canvas.box(min(lefts), min(tops), max(rights), max(bottoms), margin)
    if box is None:
        return
    extents = [bone.extent() for bone in bones]
    numbers = [
        (*bone.start[:2], dx / length, dy / length, length, 1.0 / length,
         bone.radii[0], bone.radii[1] - bone.radii[0])
        for bone, (dx, dy, length) in zip(bones, extents, strict=True)
    ]  # fmt: skip
    columns = np.array(numbers, np.float32).T[..., None, None]  # (8, n, 1, 1)
    x0, y0, ux, uy, length, inverse, thick, growth = columns
    x, y = canvas.pixels(box, x0, y0)
    _, cross_axis, t, off = _measure(x, y, ux, uy, length, inverse)
    radius = t * growth
    radius += thick
    distance = off - radius
    index = sine_index(cross_axis / radius)
    shade = tube_shading(index, ux, uy)
    for i, (bone, colour, extent) in enumerate(zip(bones, colours, extents, strict=True)):
        if bone.foreshortened(extent[2]):
            shade[i] = _ball_shading(x[i], y[i], extent, t[i], radius[i], off[i])
        coordinates = None
        if canvas.coordinates is not None:
            width = radius[i] * number(1.0 / scale)
            coordinates = bone.coordinates(t[i], width, index[i], _FRONT, lane)
        canvas.paint(box, distance[i], colour, shade[i], label, coordinates, contact)
