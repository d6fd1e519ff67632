# SPDX-License-Identifier: GPL-3.0-or-later
"""Circles, limb ellipses and strokes as pixel masks, in integer arithmetic and NumPy.

The released models were trained on maps that OpenCV drew. The same pixels come out here, with no
OpenCV at all: none of the several wheels that overwrite each other in a user's environment is
needed, and no version or processor changes a training map. (Where a limb leaves the canvas, up to
a few pixels within 2 px of the border may differ from OpenCV, which cuts a line before rounding.)

A mask is a `Patch`: where it lies on the canvas and which pixels of that box it covers.
"""

from __future__ import annotations

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


def strokes(
    ends: NDArray[np.integer], thickness: int, height: int, width: int
) -> list[Patch | None]:
    """Straight lines with round ends, of a `thickness` in whole px.

    ends (N, 4) pixels x, y, x, y. The thicknesses 2 and 3 cover what OpenCV's do, which is about 3
    and 5 px; others may differ from it by pixels at the rim. One patch for each, None where it lies
    outside of the canvas.
    """
    start = ends[:, :2].astype(np.int64)
    way = ends[:, 2:] - start
    across = np.zeros_like(way)
    if thickness > 1:
        half = (thickness + thickness % 2) * _HALF
        length = np.sqrt((way * way).sum(axis=1))
        # At right angles to the way, in fixed point; a line without length is its end alone.
        factor = np.divide(half, length, out=np.zeros(len(ends)), where=length > 0)[:, None]
        across = np.rint(way[:, ::-1] * (1, -1) * factor).astype(np.int64)
    far = way << 16
    corners = np.stack([across, -across, far - across, far + across], axis=1)  # (N, 4, 2)
    owner = np.repeat(np.arange(len(ends)), 4)
    before = np.roll(corners, 1, axis=1)
    edges = before.reshape(-1, 2), corners.reshape(-1, 2)
    parts = [_outlines(*edges), _sides(*edges)]
    places = [(owner[edge], x, y) for edge, x, y in parts]
    if thickness > 1:
        down, right = np.nonzero(_disc((thickness + 1) // 2))
        disc = np.stack([right, down], axis=1) - (thickness + 1) // 2
        for end in (np.zeros_like(way), way):
            dots = (end[:, None] + disc).reshape(-1, 2)
            places.append((np.repeat(np.arange(len(ends)), len(disc)), dots[:, 0], dots[:, 1]))
    shape, x, y = (np.concatenate(column) for column in zip(*places, strict=True))
    return _filled(shape, x + start[shape, 0], y + start[shape, 1], len(ends), height, width)


_HALF = 1 << 15
"""Half a pixel in 16-bit fixed point."""

Pixels = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""For each pixel the number of its edge, x and y."""


def _outlines(a: NDArray[np.int64], b: NDArray[np.int64]) -> Pixels:
    """The pixels of lines from points `a` to `b`, both (N, 2) in fixed point."""
    steep = np.abs(b - a)[:, 1] >= np.abs(b - a)[:, 0]
    # The axis on which each step is a pixel comes first.
    a, b = (np.where(steep[:, None], x[:, ::-1], x) for x in (a, b))
    back = b[:, :1] < a[:, :1]
    a, b = np.where(back, b, a), np.where(back, a, b)
    run, rise = (b - a).T
    slope = np.sign(rise) * ((np.abs(rise) << 16) // (run | 1))
    edge, step = _steps((run >> 16) + 1)
    first = ((a[edge, 0] + _HALF) >> 16) + step
    second = (a[edge, 1] + _HALF + step * slope[edge]) >> 16
    # OpenCV sets the last pixel apart, by rounding.
    edge = np.append(edge, np.arange(len(a)))
    first, second = (np.append(x, (b[:, i] + _HALF) >> 16) for i, x in enumerate((first, second)))
    x, y = np.where(steep[edge], second, first), np.where(steep[edge], first, second)
    return edge, x, y


def _sides(a: NDArray[np.int64], b: NDArray[np.int64]) -> Pixels:
    """Where OpenCV's filling meets a polygon's edges, row by row from their upper ends."""
    upward = b[:, 1:] < a[:, 1:]
    a, b = np.where(upward, b, a), np.where(upward, a, b)
    top, bottom = (a[:, 1] + _HALF) >> 16, (b[:, 1] + _HALF) >> 16
    rows = bottom - top
    twice = 2 * (b[:, 0] - a[:, 0]) + rows
    slope = np.sign(twice) * (np.abs(twice) // np.maximum(2 * rows, 1))
    edge, step = _steps(rows)
    return edge, (a[edge, 0] + step * slope[edge] + _HALF) >> 16, top[edge] + step


def _steps(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """0, 0, 0, 1, 1 and 0, 1, 2, 0, 1 for the counts 3, 2."""
    before = np.cumsum(counts) - counts
    return np.repeat(np.arange(len(counts)), counts), np.arange(counts.sum()) - np.repeat(
        before, counts
    )


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
    return _filled(shape, pixels_x, pixels_y, len(angles), height, width)


def _filled(
    shape: NDArray[np.integer],
    x: NDArray[np.integer],
    y: NDArray[np.integer],
    count: int,
    height: int,
    width: int,
) -> list[Patch | None]:
    """Shapes 0..count by their outlines' pixels: a row of one is all between its ends."""
    seen = (y >= 0) & (y < height)
    cell = shape[seen] * height + y[seen]
    first = np.full(count * height, np.iinfo(np.int32).max, dtype=np.int32)
    last = np.full(count * height, -1, dtype=np.int32)
    np.minimum.at(first, cell, x[seen].astype(np.int32))
    np.maximum.at(last, cell, x[seen].astype(np.int32))
    first, last = first.reshape(-1, height), last.reshape(-1, height)
    covered = first <= last
    top, bottom = covered.argmax(axis=1), height - 1 - covered[:, ::-1].argmax(axis=1)
    return [_span_patch(first[i], last[i], top[i], bottom[i], width) for i in range(count)]


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
