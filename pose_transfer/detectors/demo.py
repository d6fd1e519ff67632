# SPDX-License-Identifier: GPL-3.0-or-later
"""The mannequin world's own detectors: small networks that come with the pack.

They know rendered mannequins and nothing else, and run on the CPU, where a picture takes a fraction
of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..demo.faces import FaceNetwork, head_of, load_face_network
from ..demo.network_files import FACE_WEIGHTS, PERSON_WEIGHTS
from ..demo.people import PersonNetwork, load_person_network, overlap
from ..mannequin import LABELS
from ..types import Box, Person
from .base import Face, FaceEncoder, PersonParser, Picture, PoseDetector

_NAME = "mannequin (demo)"
_PROVIDER = "cpu"
_SAME = 0.55
"""Boxes that share more than this are of one person."""


@dataclass(frozen=True, eq=False)
class DemoDetector:
    """Boxes and 18 body keypoints of mannequins."""

    network: PersonNetwork
    name: str = _NAME
    provider: str = _PROVIDER

    def detect(
        self, picture: Picture, boxes: Sequence[Box] | None = None
    ) -> list[tuple[Person, Box]]:
        if boxes is None:
            return self.network.people(picture, self.network.find(picture))
        found: list[Box] = []
        for box in boxes:
            found += [
                one
                for one in self._within(picture, box)
                if all(overlap(one, other) <= _SAME for other in found)
            ]
        return self.network.people(picture, found)

    def _within(self, picture: Picture, box: Box) -> list[Box]:
        """People whose middle lies within `box`."""
        height, width = picture.shape[:2]
        # Some air around it shows the network where a person ends.
        room = box.grown(1.1).clipped(width, height)
        left, top = int(room.x), int(room.y)
        part = picture[top : int(room.y + room.height) + 1, left : int(room.x + room.width) + 1]
        if room.area == 0:
            return []
        people = [
            Box(one.x + left, one.y + top, one.width, one.height, one.score)
            for one in self.network.find(part)
        ]
        return [one for one in people if _contains(box, one.centre)]


def _contains(box: Box, point: tuple[float, float]) -> bool:
    return 0 <= point[0] - box.x <= box.width and 0 <= point[1] - box.y <= box.height


@dataclass(frozen=True, eq=False)
class DemoParser:
    """Parsing of mannequins, by the labels of the mannequin world."""

    network: PersonNetwork
    name: str = _NAME
    provider: str = _PROVIDER

    def parse(self, picture: Picture) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        return self.network.labels(picture, self.network.find(picture)), LABELS


@dataclass(frozen=True, eq=False)
class DemoFaceEncoder:
    """Faces of mannequins: box, five points and an embedding of 512 numbers."""

    people: PersonNetwork
    network: FaceNetwork
    name: str = _NAME
    provider: str = _PROVIDER

    def faces(self, picture: Picture) -> list[Face]:
        out = []
        for person, box in self.people.people(picture, self.people.find(picture)):
            rough = head_of(person)
            if rough is not None:
                head, points, raw = self.network.read(picture, rough)
                out.append(Face(replace(head.box(), score=box.score), points, raw))
        return out


def load_demo_detector() -> PoseDetector:
    """Finds mannequins and their 18 body keypoints. Raises CheckpointError."""
    return DemoDetector(load_person_network(PERSON_WEIGHTS))


def load_demo_parser() -> PersonParser:
    """Names the garments of mannequins, by the labels of the mannequin world. Raises
    CheckpointError."""
    return DemoParser(load_person_network(PERSON_WEIGHTS))


def load_demo_face_encoder() -> FaceEncoder:
    """Finds mannequins' faces and tells who they are. Raises CheckpointError."""
    return DemoFaceEncoder(load_person_network(PERSON_WEIGHTS), load_face_network(FACE_WEIGHTS))
