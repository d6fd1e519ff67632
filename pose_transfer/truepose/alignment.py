# SPDX-License-Identifier: GPL-3.0-or-later
"""CAA: CLIP features of the source align the attention of SourceNet and TargetNet.

Xu et al., "TruePose", arXiv 2502.03426. [P] CLIP features of the source align the two nets. [D]
Both nets take the same tokens, made of the source's CLIP embedding, as cross-attention context; in
the region-wise form each region's crop gives tokens of its own, and a token of the picture attends
to them with its own regions as the prior; an alignment loss pulls the two nets' attention to those
tokens together, region by region.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .regions import REGIONS

CROPPED = ("face", "hair", "upper", "lower", "dress", "shoes")
"""Regions whose crops give tokens of their own in the region-wise form."""


class ImageTokens(nn.Module):
    """[D] CLIP embeddings as context: (B, E) -> (B, tokens, D)."""

    def __init__(self, embed_width: int, context_width: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.project = nn.Linear(embed_width, tokens * context_width)
        self.norm = nn.LayerNorm(context_width)

    def forward(self, embeds: Tensor) -> Tensor:
        return self.norm(self.project(embeds).unflatten(-1, (self.tokens, -1)))


def region_crops(picture_bhwc: Tensor, maps: Tensor) -> list[Tensor]:
    """[D] One person's crops by region, in the order of `CROPPED`: (1, h, w, 3) each.

    `picture_bhwc` (1, H, W, 3); `maps` (R, H', W') are its soft masks, of any size of the same
    view. A crop is the box around a region with a tenth of it on every side; a region that is not
    seen gives the whole picture.
    """
    height, width = picture_bhwc.shape[1:3]
    crops = []
    for name in CROPPED:
        shown = maps[REGIONS.index(name)] > 0.5
        spans = [_span(shown.any(1), height), _span(shown.any(0), width)]
        crops.append(picture_bhwc[:, slice(*spans[0]), slice(*spans[1])])
    return crops


def _span(shown: Tensor, length: int) -> tuple[int, int]:
    """First pixel and the one behind the last, of `length`, where any of (n,) is shown."""
    at = shown.nonzero()[:, 0].tolist()
    if not at:
        return 0, length
    first, last = (x * length / len(shown) for x in (at[0], at[-1] + 1))
    room = 0.1 * (last - first)
    return max(0, math.floor(first - room)), min(length, math.ceil(last + room))


def context_regions(tokens: int) -> Tensor:
    """[D] Which region each context token of the region-wise form is of: (K, R).

    The picture's `tokens` first, zeros; then as many for each of `CROPPED`, 1 at their region.
    """
    owners = torch.zeros(1 + len(CROPPED), len(REGIONS))
    for row, name in enumerate(CROPPED, 1):
        owners[row, REGIONS.index(name)] = 1.0
    return owners.repeat_interleave(tokens, 0)


def region_context_bias(regions: Tensor, context_regions: Tensor, beta: float) -> Tensor:
    """[D] Region-wise CAA: what is added to cross-attention logits, (B, N, K).

    `regions` (B, N, R) are the soft masks of the picture's tokens; `context_regions` (K, R) is 1
    where context token k was made of the crop of region r. A token of zeros was made of the whole
    picture and gets no bias: everything may attend to it.
    """
    prior = torch.log(1e-3 + regions @ context_regions.mT.to(regions))
    return beta * prior * context_regions.sum(-1).to(regions)


def pooled_attention(weights: Tensor, regions: Tensor) -> Tensor:
    """Cross-attention weights (B, N, K), averaged over each region (B, N, R): (B, R, K)."""
    return regions.mT @ weights / regions.sum(1)[..., None].clamp_min(1e-6)


def alignment_loss(
    source_weights: Tensor,
    target_weights: Tensor,
    source_regions: Tensor,
    target_regions: Tensor,
) -> Tensor:
    """[D] L2 between the two nets' region-pooled attention to the shared tokens, a scalar.

    Weights (B, N_s, K) and (B, N_t, K), means over heads, each row a distribution; regions
    (B, N_s, R) and (B, N_t, R). Regions that either picture does not show do not count; the mean
    is over a sample's regions first, so that what else is in a batch does not matter.
    """
    there = (source_regions.sum(1) > 0.5) & (target_regions.sum(1) > 0.5)  # (B, R), in tokens
    squared = F.mse_loss(
        pooled_attention(source_weights, source_regions),
        pooled_attention(target_weights, target_regions),
        reduction="none",
    ).sum(-1)
    return ((squared * there).sum(-1) / there.sum(-1).clamp_min(1)).mean()
