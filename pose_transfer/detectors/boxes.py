# SPDX-License-Identifier: GPL-3.0-or-later
"""Boxes: the ecosystem's BOUNDING_BOX <-> `Box`, overlaps, and what lies within which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import PoseTransferError
from ..types import Box

_EXPECTED = (
    "expected BOUNDING_BOX: an object with 'x', 'y', 'width' and 'height' in px, a list of them, "
    "or one list for each picture"
)


def read_boxes(obj: Any, frames: int) -> list[list[Box]]:
    """BOUNDING_BOX -> the boxes of each of `frames` pictures.

    As the host's own nodes read it: one object, a flat list, and a list that holds a single list
    are for every picture; otherwise there is one list for each. Raises PoseTransferError.
    """
    if isinstance(obj, Mapping):
        obj = [[obj]]
    if not isinstance(obj, Sequence) or isinstance(obj, (str, bytes)):
        raise PoseTransferError(f"Got {type(obj).__name__} as boxes, {_EXPECTED}.")
    if all(isinstance(item, Mapping) for item in obj):
        obj = [obj]
    per_frame = [_read_frame(frame) for frame in obj]
    if len(per_frame) == 1:
        return per_frame * frames
    if len(per_frame) != frames:
        raise PoseTransferError(
            f"Got boxes for {len(per_frame)} pictures and {frames} pictures, expected equally many "
            "or boxes for one. Find the boxes in the same batch of pictures."
        )
    return per_frame


def _read_frame(frame: Any) -> list[Box]:
    if not isinstance(frame, Sequence) or isinstance(frame, (str, bytes)):
        raise PoseTransferError(f"Got {type(frame).__name__} as a picture's boxes, {_EXPECTED}.")
    return [_read_box(entry) for entry in frame]


def _read_box(entry: Any) -> Box:
    if not isinstance(entry, Mapping):
        raise PoseTransferError(f"Got {type(entry).__name__} as a box, {_EXPECTED}.")
    try:
        x, y, width, height = (float(entry[key]) for key in ("x", "y", "width", "height"))
        score = float(entry.get("score", 1.0))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise PoseTransferError(
            f"Got a box that cannot be read ({type(error).__name__}: {error}), {_EXPECTED}."
        ) from error
    if not all(map(math.isfinite, (x, y, width, height, score))) or min(width, height) < 0:
        raise PoseTransferError(
            f"Got a box of {width}x{height} px at ({x}, {y}), expected finite numbers and sizes of "
            "at least 0."
        )
    return Box(x, y, width, height, score)


def write_boxes(
    frames: Sequence[Sequence[Box]], label: str = "person"
) -> list[list[dict[str, Any]]]:
    """The boxes of people (or what `label` says) in each picture -> BOUNDING_BOX, whole pixels."""
    return [
        [
            {
                "x": round(box.x),
                "y": round(box.y),
                "width": round(box.x + box.width) - round(box.x),
                "height": round(box.y + box.height) - round(box.y),
                "label": label,
                "score": box.score,
            }
            for box in boxes
        ]
        for boxes in frames
    ]


def distinct(boxes: Sequence[Box], overlap: float) -> list[Box]:
    """Non-maximum suppression: the boxes, best score first, without those that repeat a better one.

    A box repeats another where their intersection over union is above `overlap`.
    """
    if not boxes:
        return []
    order = sorted(boxes, key=lambda box: -box.score)
    corners = np.array([(b.x, b.y, b.x + b.width, b.y + b.height) for b in order])
    areas = np.array([b.area for b in order])
    left, kept = np.arange(len(order)), []
    while left.size:
        best, rest = left[0], left[1:]
        kept.append(order[best])
        low = np.maximum(corners[best, :2], corners[rest, :2])
        high = np.minimum(corners[best, 2:], corners[rest, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        union = areas[best] + areas[rest] - shared
        left = rest[shared <= overlap * union]
    return kept


def share_inside(box: Box, outer: Box) -> float:
    """How much of a box's area lies in another one, 0..1."""
    width = min(box.x + box.width, outer.x + outer.width) - max(box.x, outer.x)
    height = min(box.y + box.height, outer.y + outer.height) - max(box.y, outer.y)
    return max(width, 0) * max(height, 0) / box.area if box.area else 0.0


def lies_in(box: Box, outers: Sequence[Box]) -> bool:
    """Whether at least half of a box lies in one of the others."""
    return any(share_inside(box, outer) >= 0.5 for outer in outers)


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box around at least one box."""
    left, top = min(b.x for b in boxes), min(b.y for b in boxes)
    right, bottom = max(b.x + b.width for b in boxes), max(b.y + b.height for b in boxes)
    return Box(left, top, right - left, bottom - top)
