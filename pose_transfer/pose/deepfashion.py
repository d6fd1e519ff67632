# SPDX-License-Identifier: GPL-3.0-or-later
"""Keypoints as text, in the two forms that come with DeepFashion.

- A table of the pictures, as pose-transfer papers since Zhu et al. (CVPR 2019) share it: a header
  `name:keypoints_y:keypoints_x`, then a line `name: [y, ...]: [x, ...]` for each picture of 176x256
  px.
- A file of 18 rows `x y` for each picture, as FPDM and its predecessors read it: pixels of a
  256x256 frame in whose middle the picture of 176x256 px lies, 40 px from the left.

Points are COCO-18, absent ones -1. Rows of any other set of points are read as well, as pixels of
a canvas that the file does not tell.
"""

from __future__ import annotations

import math
import re

import numpy as np

from ..errors import PoseError
from .layouts import BODY_COUNTS, Points
from .points import describe, with_confidence

Canvas = tuple[int, int]

PICTURE = (176, 256)  # width, height in px
PADDING = 40  # px left and right of the picture in its square frame

_HEADER = "name:keypoints_y:keypoints_x"
_TABLE_LINE = re.compile(r"[^\[\]]*:\s*\[([^\[\]]*)\]\s*:\s*\[([^\[\]]*)\]\s*")
_SEPARATOR = re.compile(r"[\s,;]+")


def is_annotation(text: str) -> bool:
    """Whether a text begins as one of the two forms does; JSON never does."""
    line = next(iter(_lines(text)), "")
    return line == _HEADER or bool(_TABLE_LINE.fullmatch(line)) or len(_row(line) or ()) > 1


def read_annotation(text: str, canvas: Canvas | None) -> list[tuple[Canvas | None, Points]]:
    """(canvas, (N, 3) points of the one person) for each picture.

    With a `canvas`, coordinates are pixels of that; else those of DeepFashion's pictures, or, when
    they do not lie on these, of an unknown canvas. Raises PoseError that names the line.
    """
    lines = _lines(text)
    if lines[0] == _HEADER or _TABLE_LINE.fullmatch(lines[0]):
        return [_read_table_line(line, canvas) for line in lines if line != _HEADER]
    return [_read_rows(lines, canvas)]


def _lines(text: str) -> list[str]:
    stripped = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in stripped if line]


def _read_table_line(line: str, canvas: Canvas | None) -> tuple[Canvas | None, Points]:
    match = _TABLE_LINE.fullmatch(line)
    y, x = (_row(column) for column in match.groups()) if match else (None, None)
    if x is None or y is None or len(x) != len(y) or len(x) not in BODY_COUNTS:
        raise PoseError(
            f"Got the line {describe(line)} in a table of keypoints, expected 'name: [y, ...]: "
            "[x, ...]' with 18 numbers each, -1 where a point is absent."
        )
    points = _present(np.array([x, y], dtype=np.float64).T)
    if canvas is None and _within(points, 0, *PICTURE):
        canvas = PICTURE
    return canvas, points


def _read_rows(lines: list[str], canvas: Canvas | None) -> tuple[Canvas | None, Points]:
    rows = [_row(line) or [] for line in lines]
    if len(rows) not in BODY_COUNTS or {len(row) for row in rows} - {len(rows[0])}:
        raise PoseError(
            f"Got {len(rows)} rows of numbers as a pose, expected 18 rows 'x y' of equal length, "
            "-1 where a point is absent."
        )
    if not 2 <= len(rows[0]) <= 5:
        raise PoseError(
            f"Got rows of {len(rows[0])} numbers as a pose, expected 'x y' for each point, or 'x "
            "y confidence'."
        )
    points = _present(np.array(rows, dtype=np.float64))
    if canvas is None and points.shape[0] == 18 and len(rows[0]) == 2:
        width, height = PICTURE
        if _within(points, PADDING, PADDING + width, height):
            points[points[:, 2] > 0, 0] -= PADDING
            canvas = PICTURE
    return canvas, points


def _row(text: str) -> list[float] | None:
    """The numbers in a line; None when something in it is no number."""
    try:
        numbers = [float(word) for word in _SEPARATOR.split(text.strip()) if word]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _present(rows: Points) -> Points:
    """(N, 2 to 5) rows -> (N, 3), absent where either coordinate is -1, and only there."""
    rows[(rows[:, :2] == -1).any(axis=1), :2] = -1
    if rows.shape[1] == 2:
        rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    return with_confidence(rows, "text")


def _within(points: Points, left: float, right: float, bottom: float) -> bool:
    x, y, confidence = points.T
    inside = (x >= left) & (x <= right) & (y >= 0) & (y <= bottom)
    return bool(inside[confidence > 0].all())
