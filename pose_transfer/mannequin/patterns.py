# SPDX-License-Identifier: GPL-3.0-or-later
"""Garment patterns as functions of a place on the cloth.

`along` runs down the part in body heights and `around` is the angle about it in turns, so that a
pattern stays where it is on the body when the body turns. Only +, -, *, / and comparisons are
used on arrays, which give the same bits on every machine.
"""

from __future__ import annotations

import numpy as np

from .identity import Garment
from .raster import unit

LOGO_RADIUS = 0.058
LOGO_PLACE = 0.135
"""Radius of a logo, and its distance below the neck; body heights."""


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _band(x: np.ndarray, softness: float) -> np.ndarray:
    """1 in the first half of each unit period of `x`, 0 in the second, with soft edges."""
    # Signed distance to the nearest edge of the band: a triangle wave of amplitude 1/4.
    to_edge = np.abs(_fraction(x + 0.25) - 0.5) - 0.25
    return unit(0.5 - to_edge / softness)


def pattern_mix(
    garment: Garment,
    along: np.ndarray,
    around: np.ndarray,
    girth: float,
    length: float,
    pixel: float,
) -> np.ndarray:
    """Weight of the second colour, 0 to 1; the garment is neither plain nor has it a logo.

    `girth` is the part's circumference, `length` the length over which a gradient runs and
    `pixel` the size of a pixel, all in body heights.
    """
    if garment.pattern == "gradient":
        return unit(along / length)
    # An even number, so that the back repeats the front: one picture then tells all of a garment.
    turns = 2.0 * max(1.0, float(round(0.5 * girth / garment.period)))
    rows = along / garment.period + garment.phase
    columns = around * turns + garment.phase
    soft = 1.2 * pixel / garment.period
    if garment.pattern == "stripes":
        return _band(rows if garment.direction == "across" else columns, soft)
    if garment.pattern == "zigzag":
        return _band(rows + np.abs(_fraction(columns) - 0.5), soft)
    if garment.pattern == "checks":
        row, column = _band(rows, soft), _band(columns, soft)
        return row + column - 2.0 * row * column
    # Dots: every other row is shifted by half a period.
    shift = _fraction(np.floor(rows) * 0.5)
    dy = _fraction(rows) - 0.5
    dx = _fraction(columns + shift) - 0.5
    distance = np.sqrt(dx * dx + dy * dy)
    return unit(0.5 + (0.32 - distance) / soft)


def logo_mix(
    garment: Garment, along: np.ndarray, around: np.ndarray, girth: float, pixel: float
) -> np.ndarray:
    """Weight of the logo's colour: one on the chest and one on the back.

    `around` is in turns from the front's middle.
    """
    half = _fraction(around * 2.0 + 0.5) - 0.5
    x = half * (girth * 0.5) / LOGO_RADIUS
    y = (along - LOGO_PLACE) / LOGO_RADIUS
    ax, ay = np.abs(x), np.abs(y)
    radius = np.sqrt(x * x + y * y)
    if garment.logo == "disc":
        inside = 0.95 - radius
    elif garment.logo == "ring":
        inside = 0.24 - np.abs(radius - 0.74)
    elif garment.logo == "diamond":
        inside = (1.1 - ax - ay) * 0.7
    elif garment.logo == "plus":
        inside = np.maximum(np.minimum(0.34 - ax, 0.95 - ay), np.minimum(0.34 - ay, 0.95 - ax))
    else:
        inside = np.minimum(0.7 - y, 0.62 + 0.5 * y - ax * 0.9)
    return unit(0.5 + inside * (LOGO_RADIUS / (1.2 * pixel)))
