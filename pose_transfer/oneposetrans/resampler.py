# SPDX-License-Identifier: GPL-3.0-or-later
"""From one embedding of a picture or a face to the tokens that the UNet attends to.

Layouts and arithmetic are those of the published IP-Adapter and InstantID weights, and so are the
parameters' names (reference/resampler.json).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ImageProjection(nn.Module):
    """Image embedding (B, E) -> tokens (B, T, D): a linear layer, then LayerNorm on each token."""

    def __init__(
        self,
        cross_attention_dim: int = 2048,
        clip_embeddings_dim: int = 1024,
        clip_extra_context_tokens: int = 4,
    ) -> None:
        super().__init__()
        self.token_width = cross_attention_dim
        self.proj = nn.Linear(clip_embeddings_dim, clip_extra_context_tokens * cross_attention_dim)
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, embeds: Tensor) -> Tensor:
        return self.norm(self.proj(embeds).unflatten(-1, (-1, self.token_width)))


class PerceiverAttention(nn.Module):
    """Queries (B, Q, W) look at the input (B, N, W) and at themselves: -> (B, Q, W)."""

    def __init__(self, dim: int, dim_head: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x: Tensor, queries: Tensor) -> Tensor:
        x, queries = self.norm1(x), self.norm2(queries)

        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, d)

        key, value = self.to_kv(torch.cat([x, queries], dim=1)).chunk(2, dim=-1)
        out = F.scaled_dot_product_attention(heads(self.to_q(queries)), heads(key), heads(value))
        return self.to_out(out.transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """States (B, N, E) -> tokens (B, Q, D): learned queries look at them `depth` times.

    A face embedding is a sequence of one state, (B, 1, 512).
    """

    def __init__(
        self,
        dim: int = 1280,
        depth: int = 4,
        dim_head: int = 64,
        heads: int = 20,
        num_queries: int = 16,
        embedding_dim: int = 512,
        output_dim: int = 2048,
        ff_mult: int = 4,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.token_width = output_dim
        self.latents = nn.Parameter(torch.randn(1, num_queries, dim) / dim**0.5)
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(dim, dim_head, heads),
                    nn.Sequential(
                        nn.LayerNorm(dim),
                        nn.Linear(dim, ff_mult * dim, bias=False),
                        nn.GELU(),
                        nn.Linear(ff_mult * dim, dim, bias=False),
                    ),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, states: Tensor) -> Tensor:
        x = self.proj_in(states)
        queries = self.latents.expand(len(x), -1, -1)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            attention, feed_forward = layer
            queries = queries + attention(x, queries)
            queries = queries + feed_forward(queries)
        return self.norm_out(self.proj_out(queries))
