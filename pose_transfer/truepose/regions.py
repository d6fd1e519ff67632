# SPDX-License-Identifier: GPL-3.0-or-later
"""Soft masks of the regions of a person, at whatever resolution a transformer block has.

[P] Regions of a parsing map guide the attention. [D] They are the parts of `parsing.regions`, in
which every label lies exactly once; masks are area-averaged to the resolution of each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..parsing import PARTS, region_mask
from ..types import Parsing

REGIONS = tuple(PARTS)
# [D] The source's background stays out of the new picture, everything else counts equally.
DEFAULT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {name: 0.0 if name == "background" else 1.0 for name in REGIONS}
)


def region_maps(parsing: Parsing) -> Tensor:
    """(B, R, H, W) float32: 1 where a pixel is of region r of `REGIONS`. Raises ParsingError."""
    return torch.from_numpy(
        np.stack([region_mask(parsing, [name]) for name in REGIONS], axis=1)  # (B, R, H, W)
    )


def pooled_regions(maps: Tensor, height: int, width: int) -> Tensor:
    """[D] Area averages for each token of a block: (B, R, H, W) -> (B, height * width, R)."""
    return F.adaptive_avg_pool2d(maps, (height, width)).flatten(2).mT


def source_gate(tokens: Tensor, weights: Mapping[str, float]) -> Tensor:
    """[D] g_j = sum over r of w_r m_r(j): tokens' regions (B, N, R) -> gates (B, N).

    A weight is not negative; 1 leaves a region as it is, 0 removes it, 2 makes each of its tokens
    count twice. Raises ValueError for a weight that is negative or of an unknown region.
    """
    wrong = [name for name, w in weights.items() if name not in REGIONS or not w >= 0]
    if wrong:
        raise ValueError(f"Got the weights {dict(weights)}: {wrong} are unknown or negative.")
    return tokens @ tokens.new_tensor([weights.get(name, 0.0) for name in REGIONS])


def region_shares(tokens: Tensor, weights: Mapping[str, float]) -> Tensor:
    """How much of each gate is whose: w_r m_r(j) / g_j, (B, N, R) -> the same, 0 where g_j is."""
    weighted = tokens * tokens.new_tensor([weights.get(name, 0.0) for name in REGIONS])
    return weighted / weighted.sum(-1, keepdim=True).clamp_min(1e-12)
