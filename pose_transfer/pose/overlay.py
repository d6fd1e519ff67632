# SPDX-License-Identifier: GPL-3.0-or-later
"""Poses before and after a change, over the picture of the person that they are for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..types import PART_POINTS, Person, Pose
from .draw import draw

Picture = NDArray[np.uint8]

_PICTURE_LIGHT = 0.45  # of its own brightness, so that the figures stand out
_BEFORE_GREY = 150
_BEFORE_OPACITY = 0.55


def overlay(picture: Picture, before: Pose, after: Pose) -> Picture:
    """The poses over a darkened picture (H, W, 3) uint8 RGB -> the same shape.

    `before` is grey and see-through, `after` in the colours of the style `dwpose`. Each canvas is
    fitted into the picture, centred, without changing its proportions. Raises ValueError for
    another kind of array.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"Got a picture of {picture.dtype} and shape {picture.shape}, expected uint8 of shape "
            "(H, W, 3)."
        )
    height, width = picture.shape[:2]
    result = picture * np.float32(_PICTURE_LIGHT)
    first, second = (
        draw(_fitted(pose, width, height), height, width, "dwpose") for pose in (before, after)
    )
    under, over = first.any(axis=2), second.any(axis=2)
    result[under] += (_BEFORE_GREY - result[under]) * np.float32(_BEFORE_OPACITY)
    result[over] = second[over]
    return np.rint(result).astype(np.uint8)


def _fitted(pose: Pose, width: int, height: int) -> Pose:
    """The pose on a canvas of width x height px, as large as it fits."""
    scale = min(width / pose.width, height / pose.height)
    margin = np.array([width - pose.width * scale, height - pose.height * scale]) / 2
    people = []
    for person in pose.people:
        parts = {part: getattr(person, part) for part in PART_POINTS}
        people.append(
            Person(
                **{
                    part: points * [scale, scale, 1] + [*margin, 0]
                    for part, points in parts.items()
                    if points is not None
                }
            )
        )
    return replace(pose, width=width, height=height, people=tuple(people))
