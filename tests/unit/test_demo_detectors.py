# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's detectors, as shipped, on mannequins that the training never showed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pose_transfer.demo.faces import load_face_network
from pose_transfer.demo.network_files import FACE_WEIGHTS, PERSON_WEIGHTS
from pose_transfer.demo.people import load_person_network
from pose_transfer.demo.windows import Window
from pose_transfer.detectors import FaceEncoder, PersonParser, PoseDetector
from pose_transfer.detectors.demo import (
    load_demo_detector,
    load_demo_face_encoder,
    load_demo_parser,
)
from pose_transfer.errors import CheckpointError
from pose_transfer.evaluation.detection import Scene, measure_detection, single_scenes
from pose_transfer.mannequin import LABELS, Sample, render, split_seeds
from pose_transfer.types import Box, Person

Picture = NDArray[np.uint8]

FRONT, BACK = 9, 119
"""Poses of the test split that show the face and the back of the head."""
TORSO = 80.0
"""About the length of a torso in a picture of 256 rows, px."""


@pytest.fixture(scope="module")
def detector() -> PoseDetector:
    return load_demo_detector()


@pytest.fixture(scope="module")
def parser() -> PersonParser:
    return load_demo_parser()


@pytest.fixture(scope="module")
def encoder() -> FaceEncoder:
    return load_demo_face_encoder()


def body_of(sample: Sample, scale: float = 1.0, x: float = 0.0, y: float = 0.0) -> NDArray:
    """The keypoints (18, 3) of a sample drawn at `scale` from (x, y) px on."""
    body = sample.pose.people[0].body
    place = np.array([scale, scale, 1.0]) * body + np.array([x, y, 0.0])
    return np.where(body[:, 2:] > 0, place, 0.0)


def resized(picture: Picture, width: int, height: int) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def on_ground(sample: Sample, ground: int) -> Picture:
    figure = sample.parsing[..., None] > 0
    return np.where(figure, sample.image, np.uint8(ground))


def off_by(person: Person, truth: NDArray[np.float32]) -> float:
    """Median distance in px of the keypoints that both have; infinite where one has few."""
    both = (person.body[:, 2] > 0) & (truth[:, 2] > 0)
    if both.sum() < 8:
        return float("inf")
    return float(np.median(np.linalg.norm(person.body[both, :2] - truth[both, :2], axis=1)))


def agreement(labels: Picture, truth: Picture) -> float:
    """Intersection over union of the pixels that show a person."""
    return float(((labels > 0) & (truth > 0)).sum() / ((labels > 0) | (truth > 0)).sum())


def test_held_out_mannequins_are_measured_and_parsed(
    detector: PoseDetector, parser: PersonParser
) -> None:
    scores = measure_detection(single_scenes(16), detector, parser, "test")
    assert (scores.found == 1).all() and scores.invented.sum() == 0
    assert scores.near_torso.mean() > 0.9 and scores.near_person.mean() > 0.95
    assert scores.presence.mean() > 0.95
    assert scores.mean_iou > 0.88


def test_weights_are_small() -> None:
    assert PERSON_WEIGHTS.stat().st_size < 4 * 2**20 and FACE_WEIGHTS.stat().st_size < 4 * 2**20


def test_two_people_of_different_sizes(detector: PoseDetector, parser: PersonParser) -> None:
    first, second = render(9, FRONT), render(19, BACK)
    picture = np.full((300, 420, 3), 236, np.uint8)
    truth = np.zeros((300, 420), np.uint8)
    picture[20:276, 10:202], truth[20:276, 10:202] = on_ground(first, 236), first.parsing
    small = resized(on_ground(second, 236), 120, 160)
    picture[120:280, 270:390] = small
    truth[120:280, 270:390] = np.asarray(Image.fromarray(second.parsing).resize((120, 160), 0))
    people = sorted(detector.detect(picture), key=lambda found: found[1].x)
    assert len(people) == 2
    assert off_by(people[0][0], body_of(first, x=10, y=20)) < 0.1 * TORSO
    assert off_by(people[1][0], body_of(second, 0.625, x=270, y=120)) < 0.1 * TORSO
    assert people[1][1].height == pytest.approx(150, abs=25)
    labels, names = parser.parse(picture)
    assert names == LABELS and agreement(labels, truth) > 0.9


@pytest.mark.parametrize(
    "picture",
    [
        np.full((256, 192, 3), 240, np.uint8),
        np.zeros((100, 300, 3), np.uint8),
        np.full((1, 1, 3), 128, np.uint8),
        np.tile(np.linspace(180, 255, 640, dtype=np.uint8)[None, :, None], (480, 1, 3)),
        np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8),
    ],
    ids=["white", "black", "one pixel", "slope", "noise"],
)
def test_empty_picture_shows_nobody(
    picture: Picture, detector: PoseDetector, parser: PersonParser, encoder: FaceEncoder
) -> None:
    assert detector.detect(picture) == [] and encoder.faces(picture) == []
    labels, _ = parser.parse(picture)
    assert labels.shape == picture.shape[:2] and not labels.any()


@pytest.mark.parametrize("size", [(333, 517), (768, 1024), (97, 131), (511, 383)])
def test_any_size_and_aspect(
    size: tuple[int, int], detector: PoseDetector, parser: PersonParser
) -> None:
    width, height = size
    sample = render(39, FRONT)
    picture = resized(sample.image, width, height)
    ((person, _),) = detector.detect(picture)
    scale = np.array([width / 192, height / 256])
    truth = body_of(sample).copy()
    truth[:, :2] *= scale
    assert off_by(person, truth) < 0.1 * TORSO * height / 256
    labels, _ = parser.parse(picture)
    wanted = np.asarray(Image.fromarray(sample.parsing).resize((width, height), 0))
    assert labels.dtype == np.uint8 and agreement(labels, wanted) > 0.88


def test_figure_in_the_corner_of_a_large_picture(detector: PoseDetector) -> None:
    sample = render(49, FRONT)
    picture = np.full((600, 900, 3), 228, np.uint8)
    picture[330:586, 690:882] = on_ground(sample, 228)
    ((person, box),) = detector.detect(picture)
    assert off_by(person, body_of(sample, x=690, y=330)) < 0.1 * TORSO
    assert 0.5 < box.score <= 1


@pytest.mark.parametrize("change", ["grey", "dark", "dark ground"])
def test_grey_and_dark_pictures(change: str, detector: PoseDetector, parser: PersonParser) -> None:
    sample = render(59, FRONT)
    picture = {
        "grey": np.repeat(sample.image.mean(2, keepdims=True), 3, axis=2).astype(np.uint8),
        "dark": (sample.image * 0.4).astype(np.uint8),
        "dark ground": on_ground(sample, 72),
    }[change]
    ((person, _),) = detector.detect(picture)
    assert off_by(person, body_of(sample)) < 0.1 * TORSO
    assert agreement(parser.parse(picture)[0], sample.parsing) > 0.85


def test_boxes_say_where_to_look(detector: PoseDetector) -> None:
    first, second = render(9, FRONT), render(19, BACK)
    picture = np.concatenate([first.image, second.image], axis=1)
    right = Box(192, 0, 192, 256)
    ((person, _),) = detector.detect(picture, [right])
    assert off_by(person, body_of(second, x=192)) < 0.1 * TORSO
    assert len(detector.detect(picture, [Box(0, 0, 192, 256), right, right])) == 2
    assert detector.detect(picture, []) == []
    assert detector.detect(picture, [Box(900, 900, 50, 50)]) == []


def test_face_is_recognised_in_another_pose(encoder: FaceEncoder) -> None:
    poses = [pose for pose in split_seeds("test", 0, 60).tolist() if _both_eyes(pose)][:2]
    raw = []
    for identity in (9, 19, 29, 39):
        for pose in poses:
            (face,) = encoder.faces(on_ground(render(identity, pose), 230))
            assert face.raw.shape == (512,) and face.raw.dtype == np.float32
            raw.append(face.raw / np.linalg.norm(face.raw))
    cosines = np.stack(raw[::2]) @ np.stack(raw[1::2]).T
    assert np.diag(cosines).min() > cosines[~np.eye(4, dtype=bool)].max()


def _both_eyes(pose: int) -> bool:
    return bool((body_of(render(9, pose))[[0, 14, 15], 2] > 0).all())


def test_face_points_lie_on_the_features(encoder: FaceEncoder) -> None:
    sample = render(9, FRONT)
    (face,) = encoder.faces(sample.image)
    body = body_of(sample)
    assert np.abs(face.points[:3] - body[[14, 15, 0], :2]).max() < 3.5
    assert face.points[3, 0] < face.points[4, 0], "the corner further left comes first"
    assert (face.points[3:, 1] > face.points[2, 1]).all(), "the mouth is below the nose"
    x, y = face.box.centre
    assert abs(x - body[0, 0]) < face.box.width / 2 and abs(y - body[0, 1]) < face.box.height / 2


def test_face_that_is_turned_away_is_not_found(encoder: FaceEncoder) -> None:
    assert encoder.faces(render(9, BACK).image) == []


def test_window_maps_cells_to_pixels() -> None:
    window = Window.around(Box(100, 40, 60, 200), 256, 192, 1.1)
    ends = window.to_picture(np.array([[0, 0], [192, 256]], np.float32))
    np.testing.assert_allclose(ends.mean(0), [130, 140])
    assert ends[1, 1] - ends[0, 1] == pytest.approx(220)
    assert Window.around(Box(0.3, 0, 180, 240), 256, 192, 1.1, 1.16).scale == 1.0


def test_window_over_the_edge_is_grey_there() -> None:
    picture = np.full((50, 40, 3), 255, np.uint8)
    cut = Window(-10, -20, 1.0, 100, 60).cut(picture)
    assert (cut[20:70, 10:50] == 255).all()
    assert (cut[:20] == 128).all() and (cut[:, 50:] == 128).all() and (cut[:, :10] == 128).all()
    assert (Window(400, 400, 0.5, 64, 64).cut(picture) == 128).all()


def test_missing_and_foreign_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        load_person_network(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"mannequin_person\.safetensors"):
        load_face_network(PERSON_WEIGHTS)
    with pytest.raises(CheckpointError, match=r"mannequin_face\.safetensors"):
        load_person_network(FACE_WEIGHTS)


def test_scores_of_a_perfect_and_of_a_blind_detector() -> None:
    scenes = list(single_scenes(3))

    class Oracle:
        name = provider = "test"

        def __init__(self, sees: bool) -> None:
            self.sees = sees

        def _scene(self, picture: Picture) -> Scene:
            return next(s for s in scenes if s.picture is picture)

        def detect(self, picture: Picture, boxes=None) -> list[tuple[Person, Box]]:
            person = Person(body=self._scene(picture).bodies[0])
            return [(person, Box(0, 0, 1, 1))] if self.sees else []

        def parse(self, picture: Picture) -> tuple[Picture, tuple[str, ...]]:
            labels = self._scene(picture).labels
            return (labels if self.sees else np.zeros_like(labels)), LABELS

    best, worst = Oracle(True), Oracle(False)
    scores = measure_detection(iter(scenes), best, best, "test")
    assert scores.near_torso.mean() == 1 and scores.presence.mean() == 1 and scores.mean_iou == 1
    aside = np.array([9, 0, 0], np.float32)
    moved = [replace(scene, bodies=(scene.bodies[0] + aside,)) for scene in scenes]
    off = measure_detection(iter(moved), best, best, "test")
    assert off.near_torso.mean() == 0 and off.near_person.mean() == 1
    scores = measure_detection(iter(scenes), worst, worst, "test")
    assert scores.near_torso.mean() == scores.found.mean() == 0 and scores.mean_iou < 0.2
