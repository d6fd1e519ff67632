# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that travel between the modules: poses, boxes, parsing maps, faces. NumPy only."""

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


@dataclass(frozen=True)
class Box:
    """A rectangle in px: the top left corner (x, y), width and height, and a score 0..1.

    It may lie partly or wholly outside of its picture. Raises ValueError for a negative size.
    """

    x: float
    y: float
    width: float
    height: float
    score: float = 1.0

    def __post_init__(self) -> None:
        if not (self.width >= 0 and self.height >= 0):
            raise ValueError(f"A box is {self.width}x{self.height} px, expected at least 0x0 px.")

    @property
    def area(self) -> float:
        """In square pixels."""
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) in px."""
        return self.x + self.width / 2, self.y + self.height / 2

    def clipped(self, width: int, height: int) -> Box:
        """The part of it on a canvas of width x height px; of area 0 where there is none."""
        left, right = (min(max(x, 0.0), width) for x in (self.x, self.x + self.width))
        top, bottom = (min(max(y, 0.0), height) for y in (self.y, self.y + self.height))
        return Box(left, top, right - left, bottom - top, self.score)

    def grown(self, factor: float) -> Box:
        """With both sides `factor` times as long, about the same centre."""
        width, height = self.width * factor, self.height * factor
        x, y = self.centre
        return Box(x - width / 2, y - height / 2, width, height, self.score)


@dataclass(frozen=True, eq=False)
class FaceEmbedding:
    """One face for each of B pictures, as numbers by which a person is recognised.

    raw (B, 512) float32 as the encoder gives it, and `normalised` the same at length 1; boxes
    (B, 4) float32 rows x, y, width, height in px; points (B, 5, 2) float32 rows x, y in px: the
    eye, then nose, then mouth corner, of each pair first the one further left in an upright
    picture (the person's right): eye, eye, nose, corner, corner. found (B,) bool; a picture
    without a face has zeros everywhere. `encoder` names what made it: embeddings of different
    encoders have nothing in common. Raises ValueError for other shapes.
    """

    raw: NDArray[np.float32]
    normalised: NDArray[np.float32]
    boxes: NDArray[np.float32]
    points: NDArray[np.float32]
    found: NDArray[np.bool_]
    encoder: str

    def __post_init__(self) -> None:
        batch = len(self.found)
        expected = {
            "raw": (batch, 512),
            "normalised": (batch, 512),
            "boxes": (batch, 4),
            "points": (batch, 5, 2),
            "found": (batch,),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"FaceEmbedding.{name} has shape {found}, expected {shape}.")
