# SPDX-License-Identifier: GPL-3.0-or-later
"""The pair of nets on a diffusers UNet: where TruePose is trained.

[P] SourceNet and TargetNet are a Siamese pair of identical UNets. [D] Siamese in the word's first
sense where one UNet is given: both share all weights; SourceNet sees the clean latent at timestep
0, once, and its self-attention inputs are the source tokens of every block of TargetNet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F

from .alignment import alignment_loss
from .fusion import correspondence_logits, fusion_attention
from .regions import DEFAULT_WEIGHTS, pooled_regions, source_gate

Shape = tuple[int, int]


@dataclass(frozen=True, eq=False)
class PairRegions:
    """Soft masks (B, R, H, W) of both pictures, and what is made of them.

    `target` are limb priors or a parsing; `keep` (B,) is 0 where a sample has no source at all;
    `beta` (B,) is the weight of the region correspondence, 0 for none.
    """

    source: Tensor
    target: Tensor
    keep: Tensor
    beta: Tensor


class Lesson:
    """Where the first self-attention of full size shall look, and how far from it it looked.

    `wanted` (B, N_t, N_s) is a distribution over the source's tokens for each of the target's,
    `known` (B, N_t) bool says for which there is one. Only the first head learns, and only how it
    divides what it gives the source: how much that is, and all others, are left alone.
    """

    def __init__(self, wanted: Tensor, known: Tensor) -> None:
        self.wanted, self.known = wanted, known
        self._loss: Tensor | None = None

    def hear(self, q: Tensor, k_s: Tensor, heads: int) -> None:
        """Compares q (B, N_t, C) on k_s (B, N_s, C) with what is wanted; the first call counts."""
        if self._loss is not None:
            return
        width = q.shape[-1] // heads
        logits = (q[..., :width] @ k_s[..., :width].mT).float() / width**0.5
        entropy = -(self.wanted * torch.log_softmax(logits, dim=-1)).sum(-1)
        self._loss = (entropy * self.known).sum() / self.known.sum().clamp_min(1)

    def loss(self) -> Tensor:
        """The cross-entropy, after a prediction."""
        assert self._loss is not None
        return self._loss


class SiamesePair:
    """A UNet's attentions taught to look at a source first and to be guided by it afterwards.

    Puts its own processors into the UNet; not a module, for the UNet's weights are the caller's.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet
        self.shapes: dict[int, Shape] = {}
        self.regions: PairRegions | None = None
        self.lesson: Lesson | None = None
        self._bias: dict[int, Tensor] = {}
        self._self: list[_SelfAttention] = []
        self._cross: list[_CrossAttention] = []
        for name, module in unet.named_modules():
            if isinstance(module, Attention) and name.endswith("attn1"):
                self._self.append(_SelfAttention(self))
                module.set_processor(self._self[-1])  # type: ignore[arg-type]
            elif isinstance(module, Attention) and name.endswith("attn2"):
                self._cross.append(_CrossAttention())
                module.set_processor(self._cross[-1])  # type: ignore[arg-type]

    def look(self, latents: Tensor, context: Tensor) -> None:
        """SourceNet: clean latents (B, C, h, w), context (B, K, D). What it sees is kept."""
        self.regions = None
        self.shapes = _token_shapes(*latents.shape[-2:])
        time = torch.zeros(len(latents), device=latents.device, dtype=torch.long)
        self.unet(latents, time, context, return_dict=False)
        for attention in self._self:
            attention.source = attention.seen
        for attention in self._cross:
            attention.source = attention.weights

    def repeat(self, times: int) -> None:
        """One source for several targets each: (B, ...) -> (B * times, ...), in turn."""
        for attention in (*self._self, *self._cross):
            assert attention.source is not None
            attention.source = attention.source.repeat_interleave(times, 0)

    def predict(
        self,
        latents: Tensor,
        t: Tensor,
        context: Tensor,
        regions: PairRegions,
        lesson: Lesson | None = None,
    ) -> Tensor:
        """TargetNet: noisy latents (B, C, h, w) -> its prediction, guided by what was looked at."""
        self.regions, self._bias, self.lesson = regions, {}, lesson
        try:
            return self.unet(latents, t, context, return_dict=False)[0]
        finally:
            self.regions, self._bias, self.lesson = None, {}, None

    def alignment(self, regions: PairRegions) -> Tensor:
        """[D] The alignment loss of the last `predict`, a mean over the cross-attentions."""
        losses = []
        for attention in self._cross:
            assert attention.source is not None and attention.weights is not None
            shape = self.shapes[attention.weights.shape[1]]
            losses.append(
                alignment_loss(
                    attention.source.float(),
                    attention.weights.float(),
                    pooled_regions(regions.source, *shape),
                    pooled_regions(regions.target, *shape),
                )
            )
        return torch.stack(losses).mean()

    def bias(self, tokens: int) -> Tensor:
        """What is added to the logits of source tokens: (B, N_t, N_s) with N_t = N_s = tokens."""
        if tokens not in self._bias:
            assert self.regions is not None
            shape, given = self.shapes[tokens], self.regions
            source = pooled_regions(given.source, *shape)
            gate = source_gate(source, DEFAULT_WEIGHTS) * given.keep[:, None]
            beta = given.beta.view(-1, 1, 1)
            same = beta * correspondence_logits(pooled_regions(given.target, *shape), source, 1.0)
            self._bias[tokens] = same + gate.log()[:, None]
        return self._bias[tokens]


def _token_shapes(height: int, width: int) -> dict[int, Shape]:
    """Rows and columns of a level's tokens by their number; a level halves, rounding up."""
    shapes = {}
    while height * width not in shapes:
        shapes[height * width] = (height, width)
        height, width = -(-height // 2), -(-width // 2)
    return shapes


class _SelfAttention:
    def __init__(self, pair: SiamesePair) -> None:
        self.pair = pair
        self.seen: Tensor | None = None
        self.source: Tensor | None = None

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        q, k, v = (layer(hidden_states) for layer in (attn.to_q, attn.to_k, attn.to_v))
        if self.pair.regions is None:
            self.seen = hidden_states
            none = k[:, :0]
            out = fusion_attention(q, k, v, none, none, None, None, attn.heads)
        else:
            assert self.source is not None
            bias = self.pair.bias(hidden_states.shape[1])
            k_s, v_s = attn.to_k(self.source), attn.to_v(self.source)
            if self.pair.lesson is not None:
                self.pair.lesson.hear(q, k_s, attn.heads)
            out = fusion_attention(q, k, v, k_s, v_s, None, bias, attn.heads)
        return attn.to_out[1](attn.to_out[0](out))  # type: ignore[index]


class _CrossAttention:
    """Plain cross-attention that keeps its weights, means over heads (B, N, K): K is small."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None
        self.source: Tensor | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        *_: object,
        **__: object,
    ) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q = heads(attn.to_q(hidden_states))
        k, v = (heads(layer(encoder_hidden_states)) for layer in (attn.to_k, attn.to_v))
        weights = F.softmax((q @ k.mT * attn.scale).float(), dim=-1)
        self.weights = weights.mean(1)
        out = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))  # type: ignore[index]
