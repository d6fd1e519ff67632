# SPDX-License-Identifier: GPL-3.0-or-later
"""Mannequins' faces in a picture: where the head is, its features, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..mannequin.head import HEAD_HEIGHT, HEAD_WIDTH
from ..pose.skeleton import BODY_NAMES
from ..types import Box, Person
from .architecture import FACE_SIZE
from .face_net import REACH, FaceNet, build_face_net
from .network_files import load_network
from .windows import Window, as_pixels

# Of a mannequin, in body heights (mannequin/posing.py).
_TRUNK = 0.345
"""From the neck to the middle of the hips."""
_NECK_TO_HEAD, _NECK_TO_NOSE = 0.143, 0.117
_LONGEST = {
    ("neck", "nose"): _NECK_TO_NOSE,
    ("right_shoulder", "right_elbow"): 0.158,
    ("left_shoulder", "left_elbow"): 0.158,
    ("right_shoulder", "left_shoulder"): 0.236,
}


@dataclass(frozen=True)
class Head:
    """A bare head (no hair): centre and half height, px of the picture."""

    x: float
    y: float
    half_height: float

    def window(self) -> Window:
        """The crop that the face network sees."""
        side = 2 * REACH * self.half_height
        box = Box(self.x - side / 2, self.y - side / 2, side, side)
        return Window.around(box, FACE_SIZE, FACE_SIZE, 1.0)

    def box(self) -> Box:
        """Around the bare head."""
        half_width = self.half_height * HEAD_WIDTH / HEAD_HEIGHT
        return Box(
            self.x - half_width, self.y - self.half_height, 2 * half_width, 2 * self.half_height
        )


def head_of(person: Person) -> Head | None:
    """About where the face of a person is; None where it is turned away or cannot be found.

    A face is seen when the nose and an eye are.
    """
    points = {name: row for name, row in zip(BODY_NAMES, person.body, strict=True) if row[2] > 0}
    if "nose" not in points or "neck" not in points:
        return None
    if "left_eye" not in points and "right_eye" not in points:
        return None
    neck = points["neck"][:2]
    if "left_hip" in points and "right_hip" in points:
        trunk = neck - (points["left_hip"][:2] + points["right_hip"][:2]) / 2
        body_height = float(np.linalg.norm(trunk)) / _TRUNK
        up = trunk / max(float(np.linalg.norm(trunk)), 1e-3)
    else:
        # A bone that points at the viewer looks short, none looks long: the longest tells.
        body_height = max(
            float(np.linalg.norm(points[a][:2] - points[b][:2])) / length
            for (a, b), length in _LONGEST.items()
            if a in points and b in points
        )
        up = np.array([0.0, -1.0], np.float32)
    centre = neck + up * (_NECK_TO_HEAD * body_height)
    half_height = HEAD_HEIGHT * body_height
    return Head(float(centre[0]), float(centre[1]), half_height) if half_height >= 1.0 else None


@dataclass(frozen=True, eq=False)
class FaceNetwork:
    """The face network with the crops it needs."""

    net: FaceNet

    @torch.no_grad()
    def read(
        self, picture: NDArray[np.uint8], head: Head
    ) -> tuple[Head, NDArray[np.float32], NDArray[np.float32]]:
        """The head as the network sees it, its five points (5, 2) px and its embedding (512,)."""
        # Keypoints place the head roughly; a second look goes where the first one saw it.
        for _ in range(2):
            window = head.window()
            reading = self.net(as_pixels(window.cut(picture)[None]))
            x, y, half_height = reading.head[0].tolist()
            place = window.to_picture(np.array([x, y], np.float32) * FACE_SIZE)
            head = Head(
                float(place[0]), float(place[1]),
                max(half_height, 0.1) * FACE_SIZE / window.scale,
            )  # fmt: skip
        points = window.to_picture(reading.points[0].numpy() * FACE_SIZE)
        return head, points, reading.embedding[0].numpy()


def load_face_network(path: Path) -> FaceNetwork:
    """Raises CheckpointError for a file that is missing, damaged or another."""
    return FaceNetwork(load_network(path, build_face_net))
