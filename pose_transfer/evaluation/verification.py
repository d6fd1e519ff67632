# SPDX-License-Identifier: GPL-3.0-or-later
"""How well the demo's face encoder tells held-out mannequins apart.

The two pictures of a pair show two poses, with both eyes to be seen. The background, which belongs
to an identity in this world, is painted over, lest it tell who somebody is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..detectors import Face, FaceEncoder
from ..mannequin import Identity, render_figure, sample_identity, sample_pose, split_seeds
from ..mannequin.figure import Figure
from ..pose.skeleton import BODY_NAMES

_FEATURES = ("right_eye", "left_eye", "nose")
_ROWS = [BODY_NAMES.index(name) for name in _FEATURES]
_SIZE = (256, 192)


@dataclass(frozen=True, eq=False)
class VerificationScores:
    """Cosines of embeddings: `same` (S,) of two pictures of one identity, `different` (D,) of two
    identities, `alike` (A,) of two with equal skin, hair colour and hair style; `threshold` was
    fixed on the validation split. `found` is the share of the faces that were found at all, and
    `points_off` the mean error of eyes and nose in heights of the bare head."""

    same: NDArray[np.float64]
    different: NDArray[np.float64]
    alike: NDArray[np.float64]
    threshold: float
    found: float
    points_off: float

    def accuracy(self, others: NDArray[np.float64]) -> float:
        """Share of right verdicts, same and `others` weighing the same."""
        right = (self.same > self.threshold).mean(), (others <= self.threshold).mean()
        return float(np.mean(right))


def measure_verification(identities: int, encoder: FaceEncoder) -> VerificationScores:
    """Two pictures of each of `identities` people of the test split, fewer of the validation's."""
    validation = _Gallery("validation", max(identities // 3, 2), encoder)
    test = _Gallery("test", identities, encoder)
    same, different, _ = validation.cosines()
    candidates = np.sort(np.concatenate([same, different]))
    middles = (candidates[1:] + candidates[:-1]) / 2
    right = [(same > t).mean() + (different <= t).mean() for t in middles]
    # Between the two groups many thresholds may do as well: take the middle one.
    best = np.flatnonzero(np.isclose(right, np.max(right)))
    threshold = float(middles[best[len(best) // 2]])
    return VerificationScores(
        *test.cosines(),
        threshold=threshold,
        found=test.found,
        points_off=float(np.mean(test.points_off)),
    )


class _Gallery:
    """Embeddings of two pictures of each identity."""

    def __init__(self, split: str, count: int, encoder: FaceEncoder) -> None:
        self.people: list[Identity] = []
        self.embeddings: list[NDArray[np.float64]] = []  # (2, 512), length 1
        self.points_off: list[float] = []
        rng = np.random.default_rng(0)
        missed = 0
        poses = iter(split_seeds(split, 0, 100 * count).tolist())
        for seed in tqdm(split_seeds(split, 0, count).tolist(), desc=f"faces, {split}"):
            identity = sample_identity(seed)
            pictures = []
            while len(pictures) < 2:
                pose = sample_pose(next(poses))
                head = Figure(identity, pose, *_SIZE).head
                if not all(
                    seen for name, (_, seen) in head.keypoints().items() if "ear" not in name
                ):
                    continue
                sample = render_figure(identity, pose, *_SIZE).sample
                ground = rng.integers(190, 255, 3)
                picture = np.where(sample.parsing[..., None] > 0, sample.image, ground)
                face = _nearest(encoder.faces(picture.astype(np.uint8)), head.centre)
                missed += face is None
                if face is not None:
                    truth = sample.pose.people[0].body[_ROWS, :2]
                    off = np.linalg.norm(face.points[:3] - truth, axis=1).mean()
                    self.points_off.append(float(off / (2 * head.ry)))
                    pictures.append(face.raw.astype(np.float64) / np.linalg.norm(face.raw))
            self.people.append(identity)
            self.embeddings.append(np.stack(pictures))
        self.found = 2 * count / (2 * count + missed)

    def cosines(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Of the same, of different and of look-alike identities."""
        first, second = (np.stack([e[i] for e in self.embeddings]) for i in (0, 1))
        table = first @ second.T  # (I, I)
        alike = [
            table[a, b]
            for a, b in combinations(range(len(self.people)), 2)
            if _looks(self.people[a]) == _looks(self.people[b])
        ]
        others = table[~np.eye(len(table), dtype=bool)]
        return np.diag(table).copy(), others, np.array(alike, np.float64)


def _looks(identity: Identity) -> tuple:
    return identity.skin, identity.hair_colour, identity.hair_style


def _nearest(faces: list[Face], place: tuple[float, float, float]) -> Face | None:
    def away(face: Face) -> float:
        x, y = face.box.centre
        return (x - place[0]) ** 2 + (y - place[1]) ** 2

    return min(faces, key=away, default=None)
