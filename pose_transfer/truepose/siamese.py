# SPDX-License-Identifier: GPL-3.0-or-later
"""The pair of nets on diffusers UNets: where TruePose is trained and measured.

[P] SourceNet and TargetNet are a Siamese pair of identical UNets. [D] Siamese in the word's first
sense where one UNet is given: both share all weights. SourceNet sees the clean latent at timestep
0, once, and its self-attention inputs are the source tokens of every block of TargetNet, through
TargetNet's own projections.

What a pass needs travels through diffusers' `cross_attention_kwargs`, not in the processors: with
gradient checkpointing a block is run again in the backward pass, and must then see the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from ..libraries import AttentionLayers, set_processor
from .alignment import alignment_loss, region_context_bias
from .fusion import attention_mass, correspondence_logits, fusion_attention
from .regions import DEFAULT_WEIGHTS, pooled_regions, region_shares, source_gate

Shape = tuple[int, int]


@dataclass(frozen=True, eq=False)
class PairRegions:
    """Soft masks (B, R, H, W) of both pictures, and what is made of them.

    `target` are limb priors or a parsing; `keep` (B,) is 0 where a sample has no source at all;
    `beta` (B,) is the weight of the region correspondence, 0 for none; `weights` of the regions of
    the source. `context` (K, R), for region-wise CAA: 1 where context token k was made of the crop
    of region r, zeros for a token of the whole picture.
    """

    source: Tensor
    target: Tensor
    keep: Tensor
    beta: Tensor
    weights: Mapping[str, float] = field(default_factory=lambda: DEFAULT_WEIGHTS)
    context: Tensor | None = None


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


class MassRecord:
    """[P] The share of attention that falls on each region of the source, the paper's Figure 2.

    Sums of (B, R) over the self-attentions of the predictions that it was given to; `mean` is over
    target tokens that are of the person, each block counting the same.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, mass: Tensor, of_person: Tensor) -> None:
        """Mass (B, N_t, R) of one attention; `of_person` (B, N_t), weights of the tokens."""
        share = (mass * of_person[..., None]).sum(1) / of_person.sum(1)[:, None].clamp_min(1e-6)
        self._sum = share if self._sum is None else self._sum + share
        self._count += 1

    def mean(self) -> Tensor:
        """(B, R), in [0, 1]. Raises ValueError where nothing was recorded."""
        if self._sum is None:
            raise ValueError("Nothing was recorded: predict with this record first.")
        return self._sum / self._count


class Look:
    """What one pass of SourceNet hands over, by the number of the attention.

    `hidden` (B, N, C) went into each self-attention, `weights` (B, N, K) came out of each
    cross-attention, means over its heads.
    """

    def __init__(self, shapes: Mapping[int, Shape], regions: PairRegions | None = None) -> None:
        self.shapes = shapes
        self.regions = regions
        self.hidden: dict[int, Tensor] = {}
        self.weights: dict[int, Tensor] = {}

    def repeat(self, times: int) -> Look:
        """One source for several targets each: (B, ...) -> (B * times, ...), in turn."""
        out = Look(self.shapes)
        out.hidden = {n: x.repeat_interleave(times, 0) for n, x in self.hidden.items()}
        out.weights = {n: x.repeat_interleave(times, 0) for n, x in self.weights.items()}
        return out

    def context_bias(self, tokens: int) -> Tensor | None:
        """[D] Region-wise CAA for the source: (B, N, K), None where the context has no regions."""
        if self.regions is None or self.regions.context is None:
            return None
        maps = pooled_regions(self.regions.source, *self.shapes[tokens])
        return region_context_bias(maps, self.regions.context, 1.0)


class Guided:
    """What one pass of TargetNet is guided by, and what it shows of itself."""

    def __init__(
        self,
        look: Look,
        regions: PairRegions,
        lesson: Lesson | None,
        record: MassRecord | None,
    ) -> None:
        self.look, self.regions, self.lesson, self.record = look, regions, lesson, record
        self.weights: dict[int, Tensor] = {}
        self._bias: dict[int, Tensor] = {}

    def bias(self, tokens: int) -> Tensor:
        """What is added to the logits of source tokens: (B, N_t, N_s) with N_t = N_s = tokens."""
        if tokens not in self._bias:
            shape, given = self.look.shapes[tokens], self.regions
            source = pooled_regions(given.source, *shape)
            gate = source_gate(source, given.weights) * given.keep[:, None]
            beta = given.beta.view(-1, 1, 1)
            same = beta * correspondence_logits(pooled_regions(given.target, *shape), source, 1.0)
            self._bias[tokens] = same + gate.log()[:, None]
        return self._bias[tokens]

    def context_bias(self, tokens: int) -> Tensor | None:
        """[D] Region-wise CAA for the target, with the same prior and weight as its tokens have."""
        if self.regions.context is None:
            return None
        maps = pooled_regions(self.regions.target, *self.look.shapes[tokens])
        bias = region_context_bias(maps, self.regions.context, 1.0)
        return self.regions.beta.view(-1, 1, 1) * bias

    def note(self, q: Tensor, k_t: Tensor, k_s: Tensor, heads: int) -> None:
        if self.record is not None:
            shape = self.look.shapes[q.shape[1]]
            source = pooled_regions(self.regions.source, *shape)
            shares = region_shares(source, self.regions.weights)
            mass = attention_mass(q, k_t, k_s, None, self.bias(q.shape[1]), shares, heads)
            background = pooled_regions(self.regions.target, *shape)[..., _BACKGROUND]
            self.record.add(mass, 1.0 - background)


_BACKGROUND = list(DEFAULT_WEIGHTS).index("background")


class SiamesePair:
    """UNets' attentions taught to look at a source first and to be guided by it afterwards.

    Puts its own processors into the UNets; not a module, for their weights are the caller's.
    `source_unet` has the same layout as `unet`; without it both nets share all weights.
    """

    def __init__(
        self, unet: UNet2DConditionModel, source_unet: UNet2DConditionModel | None = None
    ) -> None:
        self.unet = unet
        self.source_unet = unet if source_unet is None else source_unet
        nets = (unet,) if source_unet is None else (unet, source_unet)
        for net in nets:
            for name, kind in (("attn1", _SelfAttention), ("attn2", _CrossAttention)):
                attentions = (m for n, m in net.named_modules() if n.endswith(name))
                for number, module in enumerate(attentions):
                    set_processor(module, kind(number))

    def look(self, latents: Tensor, context: Tensor, regions: PairRegions | None = None) -> Look:
        """SourceNet's one pass over clean latents (B, C, h, w) with context (B, K, D).

        `regions` where the context has tokens of regions.
        """
        seen = Look(_token_shapes(*latents.shape[-2:]), regions)
        time = torch.zeros(len(latents), device=latents.device, dtype=torch.long)
        _call(self.source_unet, latents, time, context, seen)
        return seen

    def predict(
        self,
        latents: Tensor,
        t: Tensor,
        context: Tensor,
        look: Look,
        regions: PairRegions,
        lesson: Lesson | None = None,
        record: MassRecord | None = None,
    ) -> tuple[Tensor, Guided]:
        """TargetNet: noisy latents (B, C, h, w) -> its prediction, and how it came about."""
        guided = Guided(look, regions, lesson, record)
        return _call(self.unet, latents, t, context, guided), guided


def pair_alignment(guided: Guided, regions: PairRegions) -> Tensor:
    """[D] The alignment loss of a prediction, a mean over the cross-attentions.

    `regions` may differ from those that guided: a sample whose masks are zero does not count.
    """
    losses = []
    for number, weights in guided.weights.items():
        shape = guided.look.shapes[weights.shape[1]]
        losses.append(
            alignment_loss(
                guided.look.weights[number].float(),
                weights.float(),
                pooled_regions(regions.source, *shape),
                pooled_regions(regions.target, *shape),
            )
        )
    return torch.stack(losses).mean()


def unheard(unet: UNet2DConditionModel, aligned: bool) -> list[nn.Parameter]:
    """Of a SourceNet with weights of its own: the parameters that nobody reads the outcome of.

    They lie behind its last self-attention's input or, where the alignment loss reads it, behind
    its last cross-attention's weights. Training in several processes must know.
    """
    blocks = list(unet.up_blocks)
    last = max(i for i, block in enumerate(blocks) if getattr(block, "attentions", None))
    *_, attention = blocks[last].get_submodule("attentions").children()
    *_, block = attention.get_submodule("transformer_blocks").children()
    silent = [*blocks[last + 1 :], unet.conv_out, attention.get_submodule("proj_out")]
    silent += [x for x in (unet.conv_norm_out, getattr(blocks[last], "upsamplers", None)) if x]
    names = ["norm3", "ff", "attn2.to_v", "attn2.to_out"]
    if not aligned:
        names += ["attn1", "norm2", "attn2"]
    silent += [block.get_submodule(name) for name in names]
    found = {id(p): p for module in silent for p in module.parameters()}
    return list(found.values())


def _call(
    unet: UNet2DConditionModel, latents: Tensor, t: Tensor, context: Tensor, told: Look | Guided
) -> Tensor:
    return unet(latents, t, context, cross_attention_kwargs={"truepose": told}, return_dict=False)[
        0
    ]


def _token_shapes(height: int, width: int) -> dict[int, Shape]:
    """Rows and columns of a level's tokens by their number; a level halves, rounding up."""
    shapes = {}
    while height * width not in shapes:
        shapes[height * width] = (height, width)
        height, width = -(-height // 2), -(-width // 2)
    return shapes


class _SelfAttention:
    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(
        self,
        attn: AttentionLayers,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        truepose: Look | Guided | None = None,
    ) -> Tensor:
        q, k, v = (layer(hidden_states) for layer in (attn.to_q, attn.to_k, attn.to_v))
        if isinstance(truepose, Guided):
            source = truepose.look.hidden[self.number]
            k_s, v_s = attn.to_k(source), attn.to_v(source)
            if truepose.lesson is not None:
                truepose.lesson.hear(q, k_s, attn.heads)
            truepose.note(q, k, k_s, attn.heads)
            bias = truepose.bias(hidden_states.shape[1])
            out = fusion_attention(q, k, v, k_s, v_s, None, bias, attn.heads)
        else:
            if truepose is not None:
                truepose.hidden[self.number] = hidden_states
            none = k[:, :0]
            out = fusion_attention(q, k, v, none, none, None, None, attn.heads)
        return attn.to_out[1](attn.to_out[0](out))


class _CrossAttention:
    """Plain cross-attention that keeps its weights, means over heads (B, N, K): K is small."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(
        self,
        attn: AttentionLayers,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        truepose: Look | Guided | None = None,
    ) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q = heads(attn.to_q(hidden_states))
        k, v = (heads(layer(encoder_hidden_states)) for layer in (attn.to_k, attn.to_v))
        logits = (q @ k.mT * attn.scale).float()
        bias = None if truepose is None else truepose.context_bias(hidden_states.shape[1])
        weights = F.softmax(logits if bias is None else logits + bias[:, None], dim=-1)
        if truepose is not None:
            truepose.weights[self.number] = weights.mean(1)
        out = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))
