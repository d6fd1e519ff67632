# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a sample of stage 2 goes without its source, its pose, its fusion embedding."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from pose_transfer.fpdm import FPDM, FPDMPreprocess
from pose_transfer.training.user.fpdm import Drop, FPDMInputs
from pose_transfer.training.user.views import View

NAMES = ("source", "pose", "fusion")
SIZES = FPDMPreprocess(source_size=(32, 32), embed_size=(32, 32))


def kept(drop: Drop, samples: int) -> torch.Tensor:
    """(samples, 3): 1 where the sample keeps its source, its pose, its fusion embedding."""
    latents = SimpleNamespace(draw=lambda path, flipped, rng: torch.zeros(4, 4, 4))
    inputs = FPDMInputs(SIZES, cast(Any, latents), 1.0, drop, 0.0)
    pair = SimpleNamespace(target=SimpleNamespace(path=None))
    rows = []
    for seed in range(samples):
        generator = torch.Generator().manual_seed(seed)
        picture = torch.zeros(1, 32, 32, 3)
        view = View(cast(Any, pair), picture, cast(Any, None), picture, False, generator)
        rows.append(inputs(view)["keep"])
    return torch.stack(rows)


def test_each_condition_is_dropped_at_its_own_rate_and_apart_from_the_others() -> None:
    rates = torch.tensor([0.5, 0.3, 0.1])
    dropped = 1 - kept(Drop(*rates.tolist()), 800)
    # Four standard errors of a share of 800.
    error = 4 * (rates * (1 - rates) / 800).sqrt()
    assert ((dropped.mean(0) - rates).abs() < error).all(), dropped.mean(0)
    both = (dropped[:, 0] * dropped[:, 1]).mean().item()
    assert both == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / 800) ** 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_of_one_takes_away_that_condition_alone(
    name: str, make_fpdm: Callable[..., FPDM]
) -> None:
    keep = kept(Drop(**{other: float(other == name) for other in NAMES}), 2)
    assert keep.tolist() == [[float(other != name) for other in NAMES]] * 2

    fpdm = make_fpdm()
    generator = torch.Generator().manual_seed(0)
    noisy, t = torch.randn(2, 4, 8, 6, generator=generator), torch.tensor([7, 900])
    shapes = {"source": (2, 5, 24), "pose": (2, 3, 64, 48), "fusion": (2, 10)}
    one, other = (
        {k: torch.randn(*shape, generator=generator) for k, shape in shapes.items()}
        for _ in range(2)
    )

    def predicted(conditions: dict[str, torch.Tensor]) -> torch.Tensor:
        # As the task's loss hands them over: by place.
        return fpdm(noisy, t, *(conditions[k] for k in NAMES), *keep.unbind(1))

    with torch.no_grad():
        for changed in NAMES:
            same = torch.equal(predicted(one), predicted({**one, changed: other[changed]}))
            assert same == (changed == name), changed
