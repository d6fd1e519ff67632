# SPDX-License-Identifier: GPL-3.0-or-later
"""Guidance over nested conditions: what counts how much, where, and at what contrast."""

from __future__ import annotations

import pytest
import torch

from pose_transfer.fpdm.guidance import (
    Guidance,
    Term,
    Weights,
    cumulative_guidance,
    nested_guidance,
    rescaled,
)

Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def predictions() -> Four:
    torch.manual_seed(0)
    none, pose, source, full = torch.randn(4, 2, 4, 6, 5, dtype=torch.float64)
    return none, pose, source, full


def test_the_shares_are_those_of_the_formula() -> None:
    e, weights = predictions(), Weights(3.0, 1.5, 2.5)
    shared = sum(share * part for share, part in zip(weights.shares, e, strict=True))
    torch.testing.assert_close(nested_guidance(*e, weights), shared)
    assert sum(weights.shares) == pytest.approx(1.0)


def test_a_pose_guided_like_the_source_counts_nothing_by_itself() -> None:
    e = predictions()
    nested = nested_guidance(*e, Weights(2.0, 2.0, 3.0))
    torch.testing.assert_close(nested, cumulative_guidance(e[0], e[2], e[3], 2.0, 3.0))
    assert Weights(2.0, 2.0, 3.0).shares[1] == 0.0


def test_predictions_without_a_share_need_not_be_made() -> None:
    e, other = predictions(), torch.full((2, 4, 6, 5), 7.0, dtype=torch.float64)
    made = nested_guidance(*e, Weights(1.0, 2.0, 2.0))
    left_out = nested_guidance(other, e[1], other, e[3], Weights(1.0, 2.0, 2.0))
    torch.testing.assert_close(made, left_out)


def test_outside_of_its_range_a_term_is_followed_but_not_guided() -> None:
    guidance = Guidance(Term(3.0), Term(4.0, 0.5, 1.0), Term(5.0, 0.0, 0.4))

    def at(moment: float) -> Weights:
        return guidance.weights(lambda start, end: start <= moment <= end)

    assert at(0.2) == (5.0, 3.0, 1.0)
    assert at(0.45) == (1.0, 3.0, 1.0)
    assert at(0.7) == (1.0, 3.0, 4.0)


def test_a_pose_without_a_term_shares_the_source_s_range() -> None:
    guidance = Guidance(Term(3.0, 0.5, 1.0), Term(4.0))
    assert guidance.weights(lambda start, end: start <= 0.2 <= end) == (1.0, 1.0, 4.0)


@pytest.mark.parametrize("ends", [(0.5, 0.5), (0.7, 0.2), (-0.1, 0.5), (0.5, 1.1)])
def test_a_range_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 <= start < end <= 1"):
        Term(2.0, *ends)


def test_rescaling_gives_each_picture_the_contrast_of_its_conditioned_prediction() -> None:
    guided, conditioned = predictions()[:2]
    guided = guided * torch.tensor([3.0, 9.0], dtype=torch.float64).view(2, 1, 1, 1)
    deviation = rescaled(guided, conditioned, 1.0).std((1, 2, 3))
    torch.testing.assert_close(deviation, conditioned.std((1, 2, 3)))
    torch.testing.assert_close(rescaled(guided, conditioned, 0.0), guided)
    half = (rescaled(guided, conditioned, 1.0) + guided) / 2
    torch.testing.assert_close(rescaled(guided, conditioned, 0.5), half)
