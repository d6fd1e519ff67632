# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a picture goes on another one, and bringing it there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..types import Box

Array = NDArray[np.float32]


def contain(size: tuple[int, int], canvas: tuple[int, int]) -> Box:
    """The largest place for a picture in the middle of a canvas; both (height, width) px."""
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    height, width = size[0] * scale, size[1] * scale
    return Box((canvas[1] - width) / 2, (canvas[0] - height) / 2, width, height)


def stand_in(size: tuple[int, int], person: Box, place: Box) -> Box:
    """The place for a picture (height, width) that puts its `person` onto `place`.

    The person gets the place's height, and the middle of its lower edge the place's: somebody
    standing there would stand on the same ground. `person` is in px of the picture.
    """
    scale = place.height / person.height
    feet_x, feet_y = person.x + person.width / 2, person.y + person.height
    return Box(
        place.x + place.width / 2 - feet_x * scale,
        place.y + place.height - feet_y * scale,
        size[1] * scale,
        size[0] * scale,
    )


def onto(picture: Array, place: Box, canvas: tuple[int, int]) -> Array:
    """The picture (H, W, C) stretched over a place on an empty canvas (height, width): (h, w, C).

    Bicubic, smoothed where it shrinks, exact to a fraction of a px; zeros around it. A canvas pixel
    that the place covers in part only stays empty. At its own size it is copied unchanged.
    """
    result = np.zeros((*canvas, picture.shape[2]), np.float32)
    left, top = max(math.ceil(place.x - 1e-6), 0), max(math.ceil(place.y - 1e-6), 0)
    right = min(math.floor(place.x + place.width + 1e-6), canvas[1])
    bottom = min(math.floor(place.y + place.height + 1e-6), canvas[0])
    if left >= right or top >= bottom:
        return result
    # Canvas px -> picture px.
    x_scale, y_scale = picture.shape[1] / place.width, picture.shape[0] / place.height
    source = (
        max((left - place.x) * x_scale, 0.0),
        max((top - place.y) * y_scale, 0.0),
        min((right - place.x) * x_scale, picture.shape[1]),
        min((bottom - place.y) * y_scale, picture.shape[0]),
    )
    for channel in range(picture.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(picture[..., channel]))  # mode "F"
        part = plane.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=source)
        result[top:bottom, left:right, channel] = np.asarray(part)
    return result
