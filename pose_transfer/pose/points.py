# SPDX-License-Identifier: GPL-3.0-or-later
"""Points in whatever form a file has them -> (N, 3) arrays of x, y, confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import PoseError
from .layouts import BODY_COUNTS, Points

FAR = 1e6  # px; no canvas is larger and no point further away

# How sure a landmark object is of itself, in the words of MediaPipe, TensorFlow.js and editors.
_CONFIDENCES = ("visibility", "score", "confidence", "presence")


def read_points(values: Any, key: str, scores: Any = None) -> Points | None:
    """Points under a key of a person -> (N, 3); None when there are none.

    `values` is a flat list x, y, confidence, ...; or a list of rows x, y / x, y, confidence /
    x, y, z, visibility(, presence); or a list of objects with x, y and a confidence. `scores` are
    the confidences of rows x, y. Absent points become zeros. Raises PoseError for anything else.
    """
    if values is None:
        return None
    if is_objects(values):
        values = [_row_of(landmark) for landmark in values]
    numbers = _numbers(values, key)
    if numbers.size == 0 or (numbers.size == 1 and np.isnan(numbers).all()):
        return None
    if numbers.ndim != 2 or not 2 <= numbers.shape[1] <= 5:
        numbers = numbers.ravel()
        if numbers.size % 3:
            raise PoseError(
                f"Got {numbers.size} numbers as '{key}', expected a multiple of 3: x, y and "
                "confidence of each point."
            )
        numbers = numbers.reshape(-1, 3)
    return with_confidence(numbers, key, scores)


def read_bare_points(values: Any) -> list[Points] | None:
    """Points that no key names -> one (N, 3) array for each person, N one of `BODY_COUNTS`.

    Flat lists, lists of rows and of people, of 2 (x, y), 3 (x, y, confidence), 4 or 5 numbers a
    point (x, y, z, visibility, presence). Three numbers for each of MediaPipe's 33 points are x,
    y, z. None when it is nothing of the kind.
    """
    if not is_numeric(values):
        return None
    numbers = _numbers(values, "pose")
    if numbers.ndim == 1:
        sizes = {n * c: (n, c) for n in BODY_COUNTS for c in (2, 3)}
        sizes |= {33 * c: (33, c) for c in (4, 5)}
        if numbers.size not in sizes:
            return None
        numbers = numbers.reshape(sizes[numbers.size])
    shape = numbers.shape
    if len(shape) not in (2, 3) or shape[-2] not in BODY_COUNTS or not 2 <= shape[-1] <= 5:
        return None
    if numbers.size == 0:
        return None
    numbers = numbers.reshape(-1, *shape[-2:])
    if numbers.shape[1:] == (33, 3):
        numbers = numbers[..., :2]
    return [with_confidence(rows, "pose") for rows in numbers]


def with_confidence(rows: Points, key: str, scores: Any = None) -> Points:
    """(N, 2 to 5) rows as `read_points` takes them -> (N, 3), absent points as zeros.

    Absent is a point that is no number, has no confidence, is at (-1, -1) or more than a million
    px away; without a confidence, also one at (0, 0).
    """
    x, y = rows[:, 0], rows[:, 1]
    if rows.shape[1] == 2:
        confidence = _scores(scores, len(rows), key)
        if scores is None:
            confidence[(x == 0) & (y == 0)] = 0
    else:
        confidence = rows[:, 2] if rows.shape[1] == 3 else rows[:, 3]
    # Comparisons with NaN are false; a confidence that float32 cannot hold is none.
    present = (np.abs(x) < FAR) & (np.abs(y) < FAR) & ((x != -1) | (y != -1))
    present &= (confidence >= np.finfo(np.float32).tiny) & (confidence < np.inf)
    points = np.stack([x, y, np.minimum(confidence, 1)], axis=1)  # COCO's visibility is 1 or 2
    points[~present] = 0
    return points


def is_objects(values: Any) -> bool:
    """Whether it is a list of objects with coordinates, as MediaPipe's landmarks are."""
    return (
        isinstance(values, (list, tuple))
        and len(values) > 0
        and all(isinstance(item, Mapping) and "x" in item and "y" in item for item in values)
    )


def is_numeric(values: Any, depth: int = 0) -> bool:
    """Whether it is a number, or lists of numbers all the way down, at most three deep."""
    if isinstance(values, np.ndarray):
        return values.dtype.kind in "iuf"
    if isinstance(values, (list, tuple)):
        return depth < 3 and len(values) > 0 and all(is_numeric(v, depth + 1) for v in values)
    return isinstance(values, (int, float, np.number)) and not isinstance(values, bool)


def nesting(values: Any) -> int:
    """How many lists lie around the first value, at most 4: 2 for a list of rows."""
    if isinstance(values, np.ndarray):
        return values.ndim
    depth = 0
    while depth < 4 and isinstance(values, (list, tuple)) and values:
        values, depth = values[0], depth + 1
    return depth


def describe(value: Any) -> str:
    """What a value is, in a few words and never at a length that hides the message."""
    if value is None or isinstance(value, (bool, int, float, str)):
        try:
            text = repr(value)
        except ValueError:  # Python prints no integer of thousands of digits
            text = type(value).__name__
        return text if len(text) <= 40 else f"{text[:37]}..."
    return f"{type(value).__name__}"


def _row_of(landmark: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    known = [landmark[name] for name in _CONFIDENCES if landmark.get(name) is not None]
    return landmark["x"], landmark["y"], known[0] if known else 1.0


def _numbers(values: Any, key: str) -> Points:
    try:
        return np.array(values, dtype=np.float64)  # a None inside becomes NaN
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PoseError(
            f"Got {describe(values)} as '{key}', expected a list of numbers: x, y and "
            "confidence of each point."
        ) from error


def _scores(scores: Any, count: int, key: str) -> Points:
    if scores is None:
        return np.ones(count)
    confidence = _numbers(scores, key).ravel()
    if len(confidence) != count:
        raise PoseError(
            f"Got {len(confidence)} scores for the {count} points of '{key}', expected one for "
            "each."
        )
    return confidence
