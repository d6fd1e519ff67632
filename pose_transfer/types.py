# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that travel between the modules: poses and parsing maps. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

# Points per part: COCO-18 body, then OpenPose's hands, face (68 contour points and two pupils)
# and feet (big toe, small toe, heel; left then right).
PART_POINTS = {"body": 18, "left_hand": 21, "right_hand": 21, "face": 70, "feet": 6}


@dataclass(frozen=True, eq=False)
class Person:
    """The keypoints of one person.

    Every part is (N, 3) float32 with rows (x px, y px, confidence 0..1) and N as in
    `PART_POINTS`. The origin is the canvas' top left corner. A point that is absent is the row
    (0, 0, 0); coordinates may lie outside of the canvas. A part of which nothing is known is None.
    Arrays are converted on construction; raises ValueError for another shape.
    """

    body: NDArray[np.float32]
    left_hand: NDArray[np.float32] | None = None
    right_hand: NDArray[np.float32] | None = None
    face: NDArray[np.float32] | None = None
    feet: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for name, count in PART_POINTS.items():
            value = getattr(self, name)
            if value is None and name != "body":
                continue
            points = np.asarray(value, dtype=np.float32)
            if points.shape != (count, 3):
                raise ValueError(
                    f"Person.{name} has shape {points.shape}, expected ({count}, 3): "
                    "one row x, y, confidence for each point."
                )
            object.__setattr__(self, name, points)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Person):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name))
            if getattr(self, f.name) is not None and getattr(other, f.name) is not None
            else getattr(self, f.name) is getattr(other, f.name)
            for f in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays are mutable


@dataclass(frozen=True)
class Pose:
    """The people of one frame on a canvas of width x height pixels."""

    width: int
    height: int
    people: tuple[Person, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(
                f"A pose's canvas is {self.width}x{self.height} px, expected at least 1x1 px."
            )


@dataclass(frozen=True, eq=False)
class Parsing:
    """Label maps: labels (B, H, W) uint8, each value an index into `names`."""

    labels: NDArray[np.uint8]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.labels.ndim != 3 or self.labels.dtype != np.uint8:
            raise ValueError(
                f"Parsing.labels is {self.labels.dtype} of shape {self.labels.shape}, "
                "expected uint8 of shape (B, H, W)."
            )
