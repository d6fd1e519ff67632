# SPDX-License-Identifier: GPL-3.0-or-later
"""Circles, limb ellipses and strokes as pixel masks, in integer arithmetic and NumPy.

The released models were trained on maps that OpenCV drew. The same pixels come out here, with no
OpenCV at all: none of the several wheels that overwrite each other in a user's environment is
needed, and no version or processor changes a training map. (Where a limb leaves the canvas, up to
a few pixels within 2 px of the border may differ from OpenCV, which cuts a line before rounding.)

A mask is a `Patch`: where it lies on the canvas and which pixels of that box it covers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Sines of whole degrees at the seven decimals OpenCV's table has: with exact sines, vertices that
# lie halfway between two pixels (sin 30 = 1/2) would round the other way.
_SINE = np.sin(np.deg2rad(np.arange(451))).round(7).astype(np.float32).astype(np.float64)
_TURN = np.arange(361)
_COS_TURN, _SIN_TURN = _SINE[450 - _TURN], _SINE[_TURN]


class Patch(NamedTuple):
    """Rows and columns of a canvas, and a bool mask of that box's shape."""

    rows: slice
    columns: slice
    mask: NDArray[np.bool_]


@lru_cache(maxsize=64)
def _disc(radius: int) -> NDArray[np.bool_]:
    """The (2 r + 1, 2 r + 1) mask of a filled circle by the midpoint algorithm."""
    mask = np.zeros((2 * radius + 1, 2 * radius + 1), dtype=bool)
    across, along, error = radius, 0, 0
    while across >= along:
        for rise, run in ((along, across), (across, along)):
            mask[[radius - rise, radius + rise], radius - run : radius + run + 1] = True
        error += 2 * along + 1
        along += 1
        if error > 0:
            error -= 2 * across - 1
            across -= 1
    return mask


def circle(x: int, y: int, radius: int, height: int, width: int) -> Patch | None:
    """A filled circle around pixel (x, y), cut at the canvas; None when it lies outside."""
    top, left = max(y - radius, 0), max(x - radius, 0)
    bottom, right = min(y + radius + 1, height), min(x + radius + 1, width)
    if top >= bottom or left >= right:
        return None
    inside = _disc(radius)[
        top - y + radius : bottom - y + radius, left - x + radius : right - x + radius
    ]
    return Patch(slice(top, bottom), slice(left, right), inside)


def circles(
    centres: NDArray[np.int32], radius: int, height: int, width: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pixels, as rows and columns, of filled circles around pixels (N, 2) x, y."""
    down, right = np.nonzero(_disc(radius))
    rows = (centres[:, 1:] + down - radius).ravel()
    columns = (centres[:, :1] + right - radius).ravel()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return rows[inside], columns[inside]


def stroke(
    x0: int, y0: int, x1: int, y1: int, half_width: float, height: int, width: int
) -> Patch | None:
    """A straight line with round ends: the pixels within half_width of the segment."""
    reach = math.ceil(half_width)
    top, left = max(min(y0, y1) - reach, 0), max(min(x0, x1) - reach, 0)
    bottom, right = min(max(y0, y1) + reach + 1, height), min(max(x0, x1) + reach + 1, width)
    if top >= bottom or left >= right:
        return None
    dx, dy = x1 - x0, y1 - y0
    across = np.arange(left - x0, right - x0)
    down = np.arange(top - y0, bottom - y0)[:, None]
    # How far along the segment its nearest point lies; np.clip does the same, at twice the time.
    along = (across * dx + down * dy) / max(dx * dx + dy * dy, 1)
    np.minimum(np.maximum(along, 0, out=along), 1, out=along)
    inside = (across - along * dx) ** 2 + (down - along * dy) ** 2 <= half_width**2
    return Patch(slice(top, bottom), slice(left, right), inside)


def ellipses(
    centres: NDArray[np.int32],
    half_lengths: NDArray[np.int32],
    half_width: int,
    angles: NDArray[np.int32],
    height: int,
    width: int,
) -> list[Patch | None]:
    """Filled ellipses, as polygons with a vertex at each whole degree rounded to a pixel.

    centres (N, 2) pixels x, y; half_lengths (N,) pixels along the first axis; angles (N,) whole
    degrees from the x axis towards positive y. One patch for each, None where it lies outside
    of the canvas.
    """
    turn = angles % 360
    cosine, sine = _SINE[450 - turn][:, None], _SINE[turn][:, None]
    along, across = half_lengths[:, None] * _COS_TURN, half_width * _SIN_TURN
    # (N, 361) vertices; rint rounds halves to even, as OpenCV does.
    x = np.rint(centres[:, :1] + along * cosine - across * sine).astype(np.int32)
    y = np.rint(centres[:, 1:] + along * sine + across * cosine).astype(np.int32)
    shape = np.broadcast_to(np.arange(len(angles), dtype=np.int32)[:, None], x.shape)
    pixels_x, pixels_y, shape = _with_edges(x, y, shape)

    # The polygons are convex: a row of one is all between its outline's ends.
    seen = (pixels_y >= 0) & (pixels_y < height)
    cell = shape[seen] * height + pixels_y[seen]
    first = np.full(len(angles) * height, np.iinfo(np.int32).max, dtype=np.int32)
    last = np.full(len(angles) * height, -1, dtype=np.int32)
    np.minimum.at(first, cell, pixels_x[seen])
    np.maximum.at(last, cell, pixels_x[seen])
    first, last = first.reshape(-1, height), last.reshape(-1, height)
    return [
        _span_patch(first[i], last[i], y[i].min(), y[i].max(), width) for i in range(len(angles))
    ]


def _with_edges(
    x: NDArray[np.int32], y: NDArray[np.int32], shape: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """All vertices (N, V), flattened, followed by the pixels that Bresenham puts between two.

    At one vertex per degree neighbours mostly touch, so few edges have pixels of their own.
    """
    dx, dy = np.diff(x), np.diff(y)
    steps = np.maximum(np.abs(dx), np.abs(dy))
    gap = steps > 1
    count = steps[gap] - 1
    # Lines run from left to right, which decides how halves round.
    sign = np.where(dx[gap] < 0, np.int32(-1), np.int32(1))
    start_x = np.where(sign > 0, x[:, :-1][gap], x[:, 1:][gap])
    start_y = np.where(sign > 0, y[:, :-1][gap], y[:, 1:][gap])
    run, rise = np.abs(dx[gap]), dy[gap] * sign
    before = np.repeat(np.cumsum(count, dtype=np.int32) - count, count)
    step = np.arange(1, count.sum() + 1, dtype=np.int32) - before
    start_x, start_y, run, rise, major = (
        np.repeat(value, count) for value in (start_x, start_y, run, rise, steps[gap])
    )
    # Steps along the shorter axis: minor * step / major, halves rounded down.
    outline_x = start_x - (major - 2 * run * step) // (2 * major)
    outline_y = start_y - np.sign(rise) * ((major - 2 * np.abs(rise) * step) // (2 * major))
    # OpenCV's filling goes down each steep edge in 16-bit fixed point, where a half rounds up (or
    # down, when the rounded slope is too small): now and then one pixel more than the outline.
    down = np.where(rise < 0, major - step, step)
    slope = np.where(rise < 0, -run, run) << 17
    slope = np.sign(slope) * ((np.abs(slope + major)) // (2 * major))
    fill_x = np.where(rise < 0, start_x + run, start_x) + ((slope * down + (1 << 15)) >> 16)
    fill_x = np.where(major > run, fill_x, outline_x)
    owner = np.repeat(shape[:, :-1][gap], count)
    return (
        np.concatenate([x.ravel(), outline_x, fill_x]),
        np.concatenate([y.ravel(), outline_y, outline_y]),
        np.concatenate([shape.ravel(), owner, owner]),
    )


def _span_patch(
    first: NDArray[np.int32], last: NDArray[np.int32], top: int, bottom: int, width: int
) -> Patch | None:
    """The patch of a shape that covers columns first..last of each canvas row top..bottom."""
    rows = slice(max(top, 0), min(bottom + 1, len(first)))
    first, last = first[rows], last[rows]
    if len(first) == 0:
        return None
    left, right = max(first.min(), 0), min(last.max() + 1, width)
    if left >= right:
        return None
    columns = np.arange(left, right)
    inside = (columns >= first[:, None]) & (columns <= last[:, None])
    return Patch(rows, slice(left, right), inside)
