# SPDX-License-Identifier: GPL-3.0-or-later
"""Seeds of the training, validation and test worlds, and pairs of one person in two poses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .renderer import Sample, render

_RESIDUES = {"train": (0, 1, 2, 3, 4, 5, 6, 7), "validation": (8,), "test": (9,)}


def split_seeds(split: str, start: int, count: int) -> np.ndarray:
    """`count` seeds of a split from its `start`-th on, int64.

    A seed's last decimal digit names its split (0 to 7 train, 8 validation, 9 test), so the
    splits are disjoint, for identities and for poses.
    """
    if split not in _RESIDUES:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(_RESIDUES)}")
    residues = np.array(_RESIDUES[split], np.int64)
    index = np.arange(start, start + count, dtype=np.int64)
    return index // len(residues) * 10 + residues[index % len(residues)]


@dataclass(frozen=True)
class Pair:
    """One person in two poses."""

    source: Sample
    target: Sample
    identity_seed: int
    source_pose_seed: int
    target_pose_seed: int


def pair_seeds(split: str, count: int, seed: int = 0) -> np.ndarray:
    """(count, 3) int64: identity, source pose and target pose of each pair, all different."""
    start = seed * 3 * count
    identities = split_seeds(split, start, count)
    poses = split_seeds(split, start, 2 * count)
    return np.stack([identities, poses[:count], poses[count:]], axis=1)


def pairs(split: str, count: int, seed: int = 0) -> Iterator[Pair]:
    """Pairs of a split; `seed` chooses which."""
    for identity, source, target in pair_seeds(split, count, seed).tolist():
        yield Pair(render(identity, source), render(identity, target), identity, source, target)
