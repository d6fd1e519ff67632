# SPDX-License-Identifier: GPL-3.0-or-later
"""CAA: shared context tokens, regions as priors, and the loss between the two nets."""

from __future__ import annotations

import math

import pytest
import torch

from pose_transfer.truepose import (
    ImageTokens,
    alignment_loss,
    pooled_attention,
    region_context_bias,
)


def test_an_embedding_becomes_tokens_of_the_context_width() -> None:
    assert ImageTokens(10, 16, tokens=4)(torch.randn(3, 10)).shape == (3, 4, 16)


def test_tokens_of_a_region_are_for_that_region() -> None:
    regions = torch.tensor([[[1.0, 0.0], [0.25, 0.75]]])  # (1, 2 picture tokens, 2 regions)
    context = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])  # two regions, whole picture
    bias = region_context_bias(regions, context, beta=2.0)
    assert bias[0, 0].tolist() == pytest.approx(
        [2 * math.log(1.001), 2 * math.log(0.001), 0.0], abs=1e-6
    )
    assert float(bias[0, 1, 1]) == pytest.approx(2 * math.log(0.751))


def test_attention_is_averaged_over_each_region() -> None:
    weights = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]])
    regions = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]]])
    pooled = pooled_attention(weights, regions)
    assert torch.allclose(pooled, torch.tensor([[[2 / 3, 1 / 3], [0.0, 1.0]]]))


def test_the_loss_is_the_distance_of_regions_that_both_show() -> None:
    a = torch.tensor([[[0.8, 0.2], [0.3, 0.7]]]).requires_grad_()
    b = torch.tensor([[[0.5, 0.5], [0.9, 0.1]]])
    both = torch.eye(2)[None]
    assert alignment_loss(a, a, both, both).item() == 0
    loss = alignment_loss(a, b, both, both)
    assert loss.item() == pytest.approx((2 * 0.09 + 2 * 0.36) / 2)
    loss.backward()
    assert a.grad is not None and a.grad.abs().max() > 0
    one = both * torch.tensor([1.0, 0.0])  # the second region is not seen in the target
    assert alignment_loss(a, b, both, one).item() == pytest.approx(2 * 0.09)
