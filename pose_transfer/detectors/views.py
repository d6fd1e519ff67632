# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at a part of a picture, or at a smaller copy, and bringing back what was found there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..types import Box, Person
from .base import Picture, PoseDetector
from .boxes import around, lies_in

Found = tuple[Person, Box]

# Networks know people with something around them.
_SURROUNDINGS = 1.25


def detect_at(
    detector: PoseDetector, picture: Picture, resolution: int, boxes: Sequence[Box] | None = None
) -> list[Found]:
    """What a detector finds in a copy whose shorter side is at most `resolution` px (0: any).

    Boxes and what comes back are in px of the picture itself.
    """
    height, width = picture.shape[:2]
    factor = resolution / min(height, width) if resolution else 1.0
    if factor >= 1:
        return detector.detect(picture, boxes)
    small = Image.fromarray(picture).resize(
        (max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.BICUBIC
    )
    x_scale, y_scale = width / small.width, height / small.height
    inside = None
    if boxes is not None:
        inside = [_placed_box(box, 1 / x_scale, 1 / y_scale) for box in boxes]
    return [
        (_placed(person, x_scale, y_scale), _placed_box(box, x_scale, y_scale))
        for person, box in detector.detect(np.asarray(small), inside)
    ]


def detect_within(
    detect: Callable[[Picture], list[Found]], picture: Picture, boxes: Sequence[Box] | None
) -> list[Found]:
    """Gives a detector that knows nothing of boxes the `detect` of `PoseDetector`."""
    if boxes is None:
        return detect(picture)
    boxes = on_picture(boxes, picture)
    if not boxes:
        return []
    cut, x, y = cut_out(picture, boxes)
    found = [(_placed(p, 1, 1, x, y), moved_box(b, x, y)) for p, b in detect(cut)]
    return [(person, box) for person, box in found if lies_in(box, boxes)]


def on_picture(boxes: Sequence[Box], picture: Picture) -> list[Box]:
    """The parts of boxes that lie on the picture (H, W, 3)."""
    height, width = picture.shape[:2]
    return [box for box in (b.clipped(width, height) for b in boxes) if box.area]


def cut_out(picture: Picture, boxes: Sequence[Box]) -> tuple[Picture, int, int]:
    """The part of the picture around all boxes, with some of its surroundings, and where its top
    left corner was: x, y in px. The boxes must lie on the picture.
    """
    height, width = picture.shape[:2]
    whole = around(boxes).grown(_SURROUNDINGS).clipped(width, height)
    left, top = math.floor(whole.x), math.floor(whole.y)
    right, bottom = math.ceil(whole.x + whole.width), math.ceil(whole.y + whole.height)
    return np.ascontiguousarray(picture[top:bottom, left:right]), left, top


def moved_box(box: Box, x: float, y: float) -> Box:
    return Box(box.x + x, box.y + y, box.width, box.height, box.score)


def _placed_box(box: Box, x_scale: float, y_scale: float) -> Box:
    return Box(
        box.x * x_scale, box.y * y_scale, box.width * x_scale, box.height * y_scale, box.score
    )


def _placed(person: Person, x_scale: float, y_scale: float, x: float = 0, y: float = 0) -> Person:
    """The person on a canvas that was scaled, then moved by x, y px; absent points stay zeros.

    Points are where pixels have their centres, a half further in than edges.
    """

    def place(points: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        if points is None:
            return None
        new = points.copy()
        new[:, 0] = (points[:, 0] + 0.5) * x_scale - 0.5 + x
        new[:, 1] = (points[:, 1] + 0.5) * y_scale - 0.5 + y
        return np.where(points[:, 2:] > 0, new, 0)

    body = place(person.body)
    assert body is not None
    return Person(
        body,
        place(person.left_hand),
        place(person.right_hand),
        place(person.face),
        place(person.feet),
    )
