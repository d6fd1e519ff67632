# SPDX-License-Identifier: GPL-3.0-or-later
"""Retrieval: ranks, galleries, and the set of held-out queries."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from pose_transfer.evaluation.retrieval import (
    POSES_PER_PERSON,
    RetrievalSet,
    retrieval,
    retrieval_scores,
    retrieval_set,
)


def test_scores_of_known_ranks() -> None:
    gallery = torch.eye(6)
    queries = torch.eye(6)
    queries[5] = torch.tensor([0.5, 0.4, 0.3, 0.0, 0.0, 0.2])  # its own is fourth
    scores = retrieval_scores(queries, gallery)
    assert (scores.r1, scores.r3, scores.r5) == pytest.approx((5 / 6, 5 / 6, 1.0))
    assert scores.mean_rank == pytest.approx(9 / 6)
    assert (scores.queries, scores.gallery) == (6, 6)


def test_a_constant_embedding_finds_nothing() -> None:
    ones = torch.ones(50, 4)
    scores = retrieval_scores(ones, ones)
    assert scores.r1 == 0.0 and scores.mean_rank == 50


class Toy:
    """Embeds a picture as its mean colour; fuses by adding the pose map's."""

    def embed_image(self, image: Tensor) -> Tensor:
        return image.mean((1, 2)) - 0.4

    def fuse(self, source: Tensor, pose_map: Tensor) -> Tensor:
        return source.mean((1, 2)) - 0.4 + pose_map.mean((1, 2))


def test_source_alone_finds_itself_and_fusion_finds_the_target() -> None:
    sources = np.array([[120, 90, 100], [90, 140, 110]], np.uint8)[:, None, None]
    moves = np.array([[60, 0, 0], [0, 0, 60]] * 2, np.uint8)[:, None, None]
    person = np.array([0, 0, 1, 1])
    sources, targets, maps = (
        np.tile(x, (1, 4, 4, 1)) for x in (sources, sources[person] + moves, moves)
    )
    data = RetrievalSet(sources, targets, maps, person)
    fused = retrieval(cast(Any, Toy()), data, "cpu", fuse=True, batch_size=3)
    alone = retrieval(cast(Any, Toy()), data, "cpu", fuse=False, batch_size=3)
    assert fused["targets"].r1 == fused["targets and sources"].r1 == 1.0
    assert alone["targets and sources"].r1 == 0.0
    assert alone["targets"].r1 <= 0.5, "one query cannot point at two targets"
    assert fused["targets"].gallery == 4 and fused["targets and sources"].gallery == 6


def test_retrieval_set_is_held_out_and_repeats_each_person() -> None:
    data = retrieval_set(2 * POSES_PER_PERSON)
    assert data.sources.shape == (2, 256, 192, 3)
    assert data.targets.shape == data.pose_maps.shape == (8, 256, 192, 3)
    assert data.person.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    everything = np.concatenate([data.targets, data.sources]).reshape(10, -1)
    assert len(np.unique(everything, axis=0)) == 10, "no picture is in the gallery twice"


@pytest.mark.parametrize("count", [0, 6, -4])
def test_gallery_size_must_be_whole_people(count: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        retrieval_set(count)
