# SPDX-License-Identifier: GPL-3.0-or-later
"""How well the demo's detectors see held-out mannequins: keypoints, parsing and people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..detectors import PersonParser, PoseDetector
from ..mannequin import LABELS, render, split_seeds
from ..pose.skeleton import BODY_NAMES
from ..types import Person

NEAR = 0.1
"""A keypoint is right within this share of the torso or of the person."""
_NECK, _HIPS = BODY_NAMES.index("neck"), [BODY_NAMES.index(f"{s}_hip") for s in ("right", "left")]
_POSES_FROM = 5000
"""First pose of the test split that is used: others than the benchmark's pairs have."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture (H, W, 3) uint8, its true labels (H, W) and the true bodies (18, 3) in it."""

    picture: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    bodies: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """Of N pictures: `near_torso` and `near_person`, the share of keypoints within `NEAR` of the
    torso's length (neck to the middle of the hips) and of the larger side of the box around the
    person's keypoints; `presence`, the share of the 18 that are rightly called present or absent;
    `found`, the share of the people found; `invented`, how many were found and are not there; each
    (N,). `iou` (labels,) over all pixels."""

    near_torso: NDArray[np.float64]
    near_person: NDArray[np.float64]
    presence: NDArray[np.float64]
    found: NDArray[np.float64]
    invented: NDArray[np.float64]
    iou: NDArray[np.float64]

    @property
    def mean_iou(self) -> float:
        return float(np.nanmean(self.iou))


def single_scenes(count: int, split: str = "test") -> Iterator[Scene]:
    """One mannequin in each picture, as rendered."""
    identities, poses = split_seeds(split, 0, count), split_seeds(split, _POSES_FROM, count)
    for identity, pose in zip(identities.tolist(), poses.tolist(), strict=True):
        sample = render(identity, pose)
        yield Scene(sample.image, sample.parsing, (sample.pose.people[0].body,))


def group_scenes(count: int, split: str = "test", seed: int = 0) -> Iterator[Scene]:
    """Two to four mannequins side by side, of different sizes, on one light ground."""
    rng = np.random.default_rng(seed)
    identities = iter(split_seeds(split, 0, 4 * count).tolist())
    poses = iter(split_seeds(split, _POSES_FROM, 4 * count).tolist())
    for _ in range(count):
        people = int(rng.integers(2, 5))
        height = 320
        picture = np.empty((height, 200 * people, 3), np.uint8)
        picture[:] = rng.integers(205, 250, 3)
        labels = np.zeros(picture.shape[:2], np.uint8)
        bodies = []
        for place in range(people):
            sample = render(next(identities), next(poses))
            scale = float(rng.uniform(0.5, 1.0))
            size = (round(192 * scale), round(256 * scale))
            left = 200 * place + int(rng.integers(0, 200 - size[0] + 1))
            top = int(rng.integers(0, height - size[1] + 1))
            here = (slice(top, top + size[1]), slice(left, left + size[0]))
            figure = Image.fromarray(sample.image).resize(size, Image.Resampling.BOX)
            parsing = np.asarray(Image.fromarray(sample.parsing).resize(size, 0))
            picture[here] = np.where(parsing[..., None] > 0, np.asarray(figure), picture[here])
            labels[here] = np.where(parsing > 0, parsing, labels[here])
            body = sample.pose.people[0].body.copy()
            body[:, :2] = body[:, :2] * [size[0] / 192, size[1] / 256] + [left, top]
            bodies.append(body * (body[:, 2:] > 0))
        yield Scene(picture, labels, tuple(bodies))


def measure_detection(
    scenes: Iterator[Scene], detector: PoseDetector, parser: PersonParser, title: str
) -> DetectionScores:
    """Run both on every scene. True people are matched to the nearest ones that were found."""
    rows = []
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    for scene in tqdm(scenes, desc=title):
        found = [person for person, _ in detector.detect(scene.picture)]
        labels, names = parser.parse(scene.picture)
        if names != LABELS:
            raise ValueError(f"The parser's labels are {names}, expected {LABELS}.")
        pairs = scene.labels.astype(np.int64) * len(LABELS) + labels
        confusion += np.bincount(pairs.ravel(), minlength=confusion.size).reshape(confusion.shape)
        rows.append(_match(scene.bodies, found))
    both = np.diag(confusion)
    scores = np.array(rows, np.float64).T
    either = confusion.sum(0) + confusion.sum(1) - both
    # A label that neither side has is no right and no wrong: NaN, and no part of the mean.
    iou = np.divide(both, either, out=np.full(len(LABELS), np.nan), where=either > 0)
    return DetectionScores(*scores, iou=iou)


def _match(
    bodies: tuple[NDArray[np.float32], ...], found: list[Person]
) -> tuple[float, float, float, float, float]:
    """near_torso, near_person, presence, found, invented of one picture."""
    near_torso, near_person, presence, hits = [], [], [], 0
    left = list(found)
    for truth in bodies:
        seen = truth[:, 2] > 0
        torso = np.linalg.norm(truth[_NECK, :2] - truth[_HIPS, :2].mean(0))
        extent = truth[seen, :2].max(0) - truth[seen, :2].min(0)
        best = min(left, key=lambda person: _distance(person, truth), default=None)
        if best is None or _distance(best, truth) > extent.max():
            near_torso += [False] * int(seen.sum())
            near_person += [False] * int(seen.sum())
            presence += (~seen).tolist()
            continue
        left = [person for person in left if person is not best]
        hits += 1
        there = best.body[:, 2] > 0
        away = np.linalg.norm(best.body[:, :2] - truth[:, :2], axis=1)
        near_torso += (there & (away <= NEAR * torso))[seen].tolist()
        near_person += (there & (away <= NEAR * extent.max()))[seen].tolist()
        presence += (there == seen).tolist()
    torso_share, person_share, right = map(np.mean, (near_torso, near_person, presence))
    found_share = hits / len(bodies)
    return float(torso_share), float(person_share), float(right), found_share, float(len(left))


def _distance(person: Person, truth: NDArray[np.float32]) -> float:
    """Mean distance of the keypoints that both have; infinite where there is none."""
    both = (person.body[:, 2] > 0) & (truth[:, 2] > 0)
    if not both.any():
        return float("inf")
    return float(np.linalg.norm(person.body[both, :2] - truth[both, :2], axis=1).mean())
