# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures of batches of persons, for labels of any taxonomy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from pose_transfer.detectors import Face
from pose_transfer.evaluation.person_measures import (
    colour_scores,
    face_scores,
    pattern_scores,
    silhouette_scores,
)
from pose_transfer.types import Box

REGIONS = {"coat": 7, "boots": 2}


def person(shade: int = 0) -> tuple[np.ndarray, np.ndarray]:
    picture = np.full((96, 72, 3), 230, np.uint8)
    parsing = np.zeros((96, 72), np.uint8)
    parsing[20:60, 20:52], parsing[60:80, 24:48] = 7, 2
    picture[parsing == 7] = (40 + shade, 60, 160)
    picture[parsing == 2] = (120, 20, 20)
    return picture, parsing


def test_colours_by_region_and_the_verdict_on_the_garments() -> None:
    truth, parsing = person()
    near, _ = person(shade=30)
    far, _ = person(shade=90)
    bare = np.where(parsing == 7, 7, 0).astype(np.uint8)
    scores = colour_scores(
        [near, far, truth], [truth] * 3, [parsing, parsing, bare], REGIONS, ["coat"]
    )
    assert scores["colour_coat"] == pytest.approx([10, 30, 0])
    assert scores["colour"] == pytest.approx([5, 15, 0])
    assert scores["colour_right"].tolist() == [1, 0, 1]
    assert np.isnan(scores["colour_boots"][2])


def test_outlines_and_patterns_of_a_batch() -> None:
    truth, parsing = person()
    striped = truth.copy()
    striped[(parsing == 7) & (np.arange(96)[:, None] % 8 < 4)] = (230, 210, 40)
    moved = np.roll(truth, 12, axis=1)
    outlines = silhouette_scores([truth, moved], [truth] * 2, [parsing] * 2)["iou"]
    assert outlines[0] == 1 and outlines[1] < 0.6
    patterns = pattern_scores([striped, truth], [striped] * 2, [parsing] * 2, {"coat": 7})
    assert patterns["pattern_coat"][0] > 0.99 and patterns["pattern_coat"][1] < 0.2
    assert (patterns["pattern"] == patterns["pattern_coat"]).all()


@dataclass
class Encoder:
    """Sees a face where the picture is not black; its embedding is the mean colour."""

    name: str = "toy"
    provider: str = "cpu"
    asked: list = field(default_factory=list)

    def faces(self, picture: np.ndarray) -> list[Face]:
        points = np.zeros((5, 2), np.float32)
        small = Face(Box(0, 0, 1, 1), points, np.ones(512, np.float32))
        raw = np.zeros(512, np.float32)
        raw[:3] = picture.mean((0, 1))
        return [small, Face(Box(0, 0, 9, 9), points, raw)] if picture.any() else []


def test_face_similarity_is_the_cosine_of_the_largest_faces() -> None:
    red, green, black = (np.zeros((8, 8, 3), np.uint8) for _ in range(3))
    red[..., 0], green[..., :2] = 200, 100
    values = face_scores([red, green, black, red], [red, red, red, black], Encoder())["face"]
    assert values[:3] == pytest.approx([1, np.sqrt(0.5), 0])
    assert np.isnan(values[3]), "no face was to be seen"
