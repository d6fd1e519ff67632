# SPDX-License-Identifier: GPL-3.0-or-later
"""What guides of a MODEL's attention need of their sources, made once in a sampling run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...pose_transfer.errors import PoseTransferError
from ...pose_transfer.truepose import (
    correspondence_logits,
    fusion_mask,
    kept_tokens,
    pooled_regions,
    region_shares,
    source_gate,
)
from ..attention_record import AttentionRecord
from ..sockets import Block, SourceFeatures

# Masks up to so many numbers are kept for all blocks of a size; where they are larger, making them
# is little beside the attention itself.
_KEPT_MASK = 2**25

Shape = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Guide:
    """One source's say in a MODEL's self-attention.

    `weights` by region, `strength` multiplies them all; `target` (1 or B, R, H, W) are soft masks
    of the picture to come, None where `beta` is 0; `blocks` are the sides of the UNet that take
    part; from `sigma_start` down to `sigma_end`.
    """

    features: SourceFeatures
    weights: Mapping[str, float]
    strength: float
    beta: float
    target: Tensor | None
    blocks: frozenset[str]
    sigma_start: float
    sigma_end: float
    record: AttentionRecord | None = None

    def acts_at(self, sigma: float) -> bool:
        return self.sigma_end <= sigma <= self.sigma_start


@dataclass(frozen=True, eq=False)
class Tokens:
    """A source's tokens for one block that have any weight: `kept` (K,) of its N.

    `gate` (B, K) or None for ones, `regions` (B, K, R); `shares` (B, K, R) of each region in a
    token's gate. All blocks of one `shape` have the same.
    """

    kept: Tensor
    gate: Tensor | None
    regions: Tensor
    shares: Tensor
    shape: Shape


class Run:
    """The guides of a MODEL while one picture is sampled. Keys begin with the number of a guide.

    `constant`: in this step the MODEL's weights are what they are in all others, so that a clean
    source's projections may be kept.
    """

    def __init__(self, guides: Sequence[Guide]) -> None:
        self.guides = guides
        self.constant = False
        self.live: dict[int, SourceFeatures] = {}
        self._tokens: dict[tuple[Any, ...], Tokens] = {}
        self._hidden: dict[tuple[Any, ...], Tensor | None] = {}
        self._projected: dict[tuple[Any, ...], tuple[Tensor, Tensor] | None] = {}
        self._biases: dict[tuple[Any, ...], Tensor | None] = {}
        self._masks: dict[tuple[Any, ...], Tensor | None] = {}

    def features(self, number: int) -> SourceFeatures:
        return self.live.get(number, self.guides[number].features)

    def look(self, number: int, features: SourceFeatures) -> None:
        """A live source as it is at this step's noise; what was made of it before is let go."""
        self.live[number] = features
        self._hidden = {k: v for k, v in self._hidden.items() if k[0] != number}

    def tokens(self, number: int, name: Block, like: Tensor) -> Tokens:
        shape = self.features(number).shapes[name]
        key = (number, shape, like.device)
        if key not in self._tokens:
            self._tokens[key] = self._choose(number, shape, like.device)
        return self._tokens[key]

    def _choose(self, number: int, shape: Shape, device: torch.device) -> Tokens:
        guide = self.guides[number]
        regions = pooled_regions(self.features(number).regions.to(device), *shape)
        gate = guide.strength * source_gate(regions, guide.weights)
        kept = kept_tokens(gate)
        gate, regions = gate[:, kept], regions[:, kept]
        shares = region_shares(regions, guide.weights)
        return Tokens(kept, None if bool((gate == 1).all()) else gate, regions, shares, shape)

    def keys_and_values(
        self, number: int, name: Block, attention: Any, like: Tensor, empty: bool
    ) -> tuple[Tensor, Tensor] | None:
        """A source's keys and values (B, K, C) in one block; None where there is no empty source.

        They go through the MODEL's own projections, with its LoRAs. For a clean source the outcome
        is the same in all steps, unless hooks schedule the weights or somebody trains them.
        """
        key = (number, name, like.device, like.dtype, empty)
        if self.constant and self.guides[number].features.live is None:
            if key not in self._projected:
                hidden = self._chosen(number, name, like, empty)
                self._projected[key] = _projected(attention, hidden)
            return self._projected[key]
        if key not in self._hidden:
            self._hidden[key] = self._chosen(number, name, like, empty)
        return _projected(attention, self._hidden[key])

    def _chosen(self, number: int, name: Block, like: Tensor, empty: bool) -> Tensor | None:
        features = self.features(number)
        hidden = (features.empty if empty else features.hidden).get(name)
        kept = self.tokens(number, name, like).kept
        return None if hidden is None else hidden.to(like)[:, kept]

    def bias(
        self, numbers: Sequence[int], name: Block, queries: Shape | None, like: Tensor
    ) -> Tensor | None:
        """What is added to the logits of several sources' tokens, side by side.

        (B or 1, 1 or N_t, all K), None for nothing. `queries` are rows and columns of the picture's
        tokens, None where they are not a picture's.
        """
        tokens = [self.tokens(number, name, like) for number in numbers]
        key = (*numbers, *(x.shape for x in tokens), queries, len(like), like.device, like.dtype)
        if key not in self._biases:
            biases = [
                self._bias(number, own, queries, len(like))
                for number, own in zip(numbers, tokens, strict=True)
            ]
            counts = [len(own.kept) for own in tokens]
            self._biases[key] = _joined_bias(biases, counts, like)
        return self._biases[key]

    def mask(
        self, numbers: Sequence[int], name: Block, queries: Shape | None, like: Tensor, own: int
    ) -> Tensor | None:
        """The same for one softmax over `own` keys of the picture and those of the sources."""
        shapes = (self.tokens(number, name, like).shape for number in numbers)
        key = (*numbers, *shapes, queries, len(like), like.device, like.dtype, own)
        if key in self._masks:
            return self._masks[key]
        made = fusion_mask(self.bias(numbers, name, queries, like), own, like.dtype)
        if made is None or made.numel() <= _KEPT_MASK:
            self._masks[key] = made
        return made

    def _bias(
        self, number: int, tokens: Tokens, queries: Shape | None, batch: int
    ) -> Tensor | None:
        """For one source: (1 or B, 1 or N_t, K), None for nothing.

        Another pack may cut the picture into tiles: then there is no correspondence to speak of.
        """
        guide = self.guides[number]
        gate = None if tokens.gate is None else tokens.gate.log()[:, None]
        if guide.beta == 0 or guide.target is None or queries is None:
            return gate
        if len(guide.target) not in (1, batch):
            raise PoseTransferError(
                f"The target parsing or pose of Guide Attention is of {len(guide.target)} pictures,"
                f" but {batch} are sampled. Give it one picture, or as many as the latent has."
            )
        target = pooled_regions(guide.target.to(tokens.regions.device), *queries)
        bias = correspondence_logits(target, tokens.regions, guide.beta)
        return bias if gate is None else bias + gate


def for_batch(x: Tensor, batch: int) -> Tensor:
    """One source for all pictures, or one for each: (1 or B, ...) -> (batch, ...)."""
    if x.shape[0] == 1:
        return x.expand(batch, *x.shape[1:])
    if x.shape[0] != batch:
        raise PoseTransferError(
            f"The source features are of {x.shape[0]} pictures, but {batch} are sampled. Use one "
            "source picture, or as many as the latent has."
        )
    return x


def _projected(attention: Any, hidden: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if hidden is None else (attention.to_k(hidden), attention.to_v(hidden))


def _joined_bias(
    biases: Sequence[Tensor | None], counts: Sequence[int], q: Tensor
) -> Tensor | None:
    """The biases of several sources side by side: (B or 1, 1 or N_t, all K), None for nothing."""
    if all(bias is None for bias in biases):
        return None
    given = [
        q.new_zeros(1, 1, count) if bias is None else bias.to(q)
        for bias, count in zip(biases, counts, strict=True)
    ]
    if len(given) == 1:
        return given[0]
    batch = max(bias.shape[0] for bias in given)
    rows = max(bias.shape[1] for bias in given)
    return torch.cat([bias.expand(batch, rows, -1) for bias in given], dim=-1)
