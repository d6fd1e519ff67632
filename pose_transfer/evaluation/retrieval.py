# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the fusion embedding point at the target picture? (FPDM, table 2: A1, A2, A3)

A query is made of a source picture and a target pose; its right answer is the embedding of the
true target among all targets. Every person is in the gallery in several poses, so that neither
the clothes nor the pose alone find the target.

Two galleries are measured. "Targets" is the plain question. "Targets and sources" adds the
source pictures as wrong answers: there an embedding of the source alone (A1) always finds
itself first, which is how the paper's R@1 of 0.000 for A1 comes about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..fpdm import FPDM, retrieval_ranks
from ..mannequin import render, split_seeds
from ..pose import draw

POSES_PER_PERSON = 4
_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class RetrievalScores:
    """Shares (0..1) of queries whose target is among the first 1, 3, 5, and its mean rank."""

    r1: float
    r3: float
    r5: float
    mean_rank: float
    queries: int
    gallery: int


@dataclass(frozen=True)
class RetrievalSet:
    """Held-out pictures, all uint8: sources (P,H,W,3), targets and pose maps (Q,H,W,3).

    `person` (Q,) is the row of a query's source.
    """

    sources: NDArray[np.uint8]
    targets: NDArray[np.uint8]
    pose_maps: NDArray[np.uint8]
    person: NDArray[np.int64]


def retrieval_set(targets: int, split: str = "test") -> RetrievalSet:
    """`targets` held-out targets: POSES_PER_PERSON of each person, and one source of each.

    Raises ValueError when `targets` is not a positive multiple of POSES_PER_PERSON.
    """
    if targets < 1 or targets % POSES_PER_PERSON:
        raise ValueError(
            f"The gallery must be a positive multiple of {POSES_PER_PERSON}, got {targets}."
        )
    people = targets // POSES_PER_PERSON
    identities = split_seeds(split, 0, people)
    poses = split_seeds(split, 0, targets + people)
    sources, pictures, maps = [], [], []
    for row, identity in enumerate(tqdm(identities, desc="retrieval set", unit="person")):
        sources.append(render(int(identity), int(poses[targets + row])).image)
        for pose in poses[row * POSES_PER_PERSON : (row + 1) * POSES_PER_PERSON]:
            sample = render(int(identity), int(pose))
            pictures.append(sample.image)
            height, width = sample.parsing.shape
            maps.append(draw(sample.pose, height, width, "fpdm"))
    person = np.repeat(np.arange(people), POSES_PER_PERSON)
    return RetrievalSet(np.stack(sources), np.stack(pictures), np.stack(maps), person)


def retrieval_scores(
    queries: Tensor, gallery: Tensor, positives: Tensor | None = None
) -> RetrievalScores:
    """Scores of queries (Q, E) in a gallery (G, E).

    `positives` (Q,) are the rows of the right answers, by default the first Q. Queries are asked
    in parts, so that no Q x G table is held.
    """
    own = torch.arange(len(queries)) if positives is None else positives
    parts = zip(queries.split(_QUERIES_AT_ONCE), own.split(_QUERIES_AT_ONCE), strict=True)
    ranks = torch.cat([retrieval_ranks(asked, gallery, rows) for asked, rows in parts]).double()
    r1, r3, r5 = (float((ranks <= k).double().mean()) for k in (1, 3, 5))
    return RetrievalScores(r1, r3, r5, float(ranks.mean()), len(queries), len(gallery))


def _batches(images: NDArray[np.uint8], device: torch.device, size: int) -> list[Tensor]:
    return [
        torch.from_numpy(images[start : start + size]).to(device).float() / 255
        for start in range(0, len(images), size)
    ]


@torch.no_grad()
def retrieval(
    fpdm: FPDM, data: RetrievalSet, device: torch.device | str, *, fuse: bool, batch_size: int = 64
) -> dict[str, RetrievalScores]:
    """Scores on both galleries, "targets" and "targets and sources".

    With `fuse` the query is the fusion of source and pose (A2, A3), else the source's own
    embedding (A1). The model must be on `device`.
    """
    device = torch.device(device)

    def embed(images: NDArray[np.uint8]) -> Tensor:
        return torch.cat([fpdm.embed_image(x).cpu() for x in _batches(images, device, batch_size)])

    sources, targets = embed(data.sources), embed(data.targets)
    if fuse:
        pictures = _batches(data.sources[data.person], device, batch_size)
        maps = _batches(data.pose_maps, device, batch_size)
        queries = torch.cat([fpdm.fuse(s, m).cpu() for s, m in zip(pictures, maps, strict=True)])
    else:
        queries = sources[torch.from_numpy(data.person)]
    return {
        "targets": retrieval_scores(queries, targets),
        "targets and sources": retrieval_scores(queries, torch.cat([targets, sources])),
    }
