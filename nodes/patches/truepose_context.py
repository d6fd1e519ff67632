# SPDX-License-Identifier: GPL-3.0-or-later
"""Region-wise CAA in the host: context tokens of a region's crop are for that region's tokens."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor
from torch.nn import functional as F

from ...pose_transfer.truepose import pooled_regions, region_context_bias
from .unet_blocks import transformer_blocks

REGIONS_KEY = "pose_transfer_truepose_regions"
"""In a CONDITIONING: (K, R), 1 where context token k was made of the crop of region r."""

_POSITIVE = 0


def with_region_context(
    options: dict[str, Any], unet: UNetModel, maps: Tensor, owners: Tensor, beta: float
) -> dict[str, Any]:
    """Transformer options of a call in which cross-attention keeps to the regions.

    `maps` (1 or B, R, h, w) are the picture's own soft masks, `beta` how much they count. A slot
    that another pack has taken is left to it.
    """
    bias = _RegionContext(maps, owners, beta)
    replaced = options.get("patches_replace", {})
    there = replaced.get("attn2", {})
    attn2 = dict(there)
    for name, _ in transformer_blocks(unet):
        if name not in there and name[:2] not in there:
            attn2[name] = bias
    return {**options, "patches_replace": {**replaced, "attn2": attn2}}


class _RegionContext:
    """The cross-attention of all blocks in one call; unconditional rows are left alone."""

    def __init__(self, maps: Tensor, owners: Tensor, beta: float) -> None:
        self.maps, self.owners, self.beta = maps, owners, beta
        self._biases: dict[tuple[Any, ...], Tensor] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        heads = options["n_heads"]
        bias = self._bias(q, k.shape[1], options)
        kinds = options.get("cond_or_uncond") or [_POSITIVE]
        each, parts = len(q) // len(kinds), []
        for start, kind in zip(range(0, len(q), each), kinds, strict=True):
            rows = slice(start, start + each)
            if kind == _POSITIVE and bias is not None:
                parts.append(_biased(q[rows], k[rows], v[rows], bias, heads))
            else:
                parts.append(
                    optimized_attention(
                        q[rows], k[rows], v[rows], heads,
                        attn_precision=options.get("attn_precision"), transformer_options=options,
                    )
                )  # fmt: skip
        return torch.cat(parts)

    def _bias(self, q: Tensor, keys: int, options: dict[str, Any]) -> Tensor | None:
        """(B, 1, N, keys); None for another context, or where tokens are not a picture's."""
        height, width = options["activations_shape"][-2:]
        own = len(self.owners)
        if keys % own or height * width != q.shape[1]:
            return None
        key = (height, width, keys, q.device, q.dtype)
        if key not in self._biases:
            regions = pooled_regions(self.maps.to(q.device), height, width)
            made = region_context_bias(regions, self.owners.to(q.device), self.beta)
            # The host repeats a context that is batched with a longer one.
            self._biases[key] = made.repeat(1, 1, keys // own).to(q)[:, None]
        return self._biases[key]


def _biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, heads: int) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
