# SPDX-License-Identifier: GPL-3.0-or-later
"""Regions of the source at a block's resolution, and regions guessed from a pose."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pose_transfer.errors import PoseError
from pose_transfer.mannequin import LABELS, render
from pose_transfer.truepose import (
    DEFAULT_WEIGHTS,
    REGIONS,
    limb_priors,
    pooled_regions,
    region_maps,
    region_shares,
    source_gate,
)
from pose_transfer.types import Parsing, Person, Pose

DRAWN = ("face", "hair", "upper", "lower", "shoes", "skin")


@pytest.fixture(scope="module")
def people() -> list:
    return [render(seed, seed) for seed in range(9, 109, 10)]


def maps_of(sample) -> torch.Tensor:
    return region_maps(Parsing(sample.parsing[None], LABELS))


def test_every_pixel_is_of_one_region(people: list) -> None:
    maps = maps_of(people[0])
    assert maps.shape == (1, len(REGIONS), 256, 192)
    assert torch.equal(maps.sum(1), torch.ones(1, 256, 192))


def test_masks_are_area_averages_row_by_row(people: list) -> None:
    maps = maps_of(people[0])
    tokens = pooled_regions(maps, 32, 24)
    assert tokens.shape == (1, 32 * 24, len(REGIONS))
    upper = REGIONS.index("upper")
    cell = maps[0, upper, 8 * 10 : 8 * 11, 8 * 12 : 8 * 13].mean()
    assert tokens[0, 10 * 24 + 12, upper] == pytest.approx(float(cell))
    assert torch.allclose(tokens.sum(-1), torch.ones(1, 32 * 24))


def test_gates_are_the_weighted_sum_of_the_masks() -> None:
    tokens = torch.zeros(1, 2, len(REGIONS))
    tokens[0, 0, REGIONS.index("face")] = 0.25
    tokens[0, 0, REGIONS.index("background")] = 0.75
    tokens[0, 1, REGIONS.index("upper")] = 1.0
    assert source_gate(tokens, DEFAULT_WEIGHTS).tolist() == [[0.25, 1.0]]
    assert source_gate(tokens, {"face": 2.0, "background": 1.0}).tolist() == [[1.25, 0.0]]
    shares = region_shares(tokens, {"face": 2.0, "background": 1.0})
    assert shares[0, 0, REGIONS.index("face")] == pytest.approx(0.4)
    assert float(shares[0, 1].sum()) == 0


@pytest.mark.parametrize("weights", [{"face": -0.1}, {"nose": 1.0}, {"face": float("nan")}])
def test_impossible_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="unknown or negative"):
        source_gate(torch.zeros(1, 2, len(REGIONS)), weights)


def test_limbs_tell_where_regions_are(people: list) -> None:
    """The true region lies under its own prior more than under any rival's."""
    found = {name: [] for name in DRAWN}
    for sample in people:
        true = maps_of(sample)[0].numpy()
        priors = limb_priors(sample.pose, 256, 192)
        for name in DRAWN:
            mask = true[REGIONS.index(name)]
            if mask.sum() > 50:
                found[name].append(
                    [(mask * priors[REGIONS.index(other)]).sum() / mask.sum() for other in DRAWN]
                )
    covered = {name: np.mean(rows, axis=0) for name, rows in found.items()}
    assert covered["upper"][DRAWN.index("upper")] > 0.8
    assert covered["lower"][DRAWN.index("lower")] > 0.7
    for name, shares in covered.items():
        assert shares[DRAWN.index(name)] > 0.35
        assert DRAWN[int(np.argmax(shares))] in (name, "lower" if name == "skin" else name)


def test_priors_follow_the_size_of_the_picture(people: list) -> None:
    pose = people[0].pose
    large, small = limb_priors(pose, 256, 192), limb_priors(pose, 64, 48)
    pooled = large.reshape(len(REGIONS), 64, 4, 48, 4).mean((2, 4))
    assert np.abs(pooled - small).mean() < 0.01
    assert large.min() >= 0 and large.max() <= 1


def test_nobody_in_the_pose_is_an_error() -> None:
    with pytest.raises(PoseError):
        limb_priors(Pose(192, 256), 64, 48)


@pytest.mark.parametrize("seen", [["nose"], ["left_hip", "left_knee"], ["right_wrist"]])
def test_a_person_of_few_joints_has_priors(people: list, seen: list[str]) -> None:
    from pose_transfer.pose import BODY_NAMES

    body = people[0].pose.people[0].body.copy()
    body[[i for i, name in enumerate(BODY_NAMES) if name not in seen]] = 0
    pose = dataclasses.replace(people[0].pose, people=(Person(body),))
    assert np.isfinite(limb_priors(pose, 64, 48)).all()
