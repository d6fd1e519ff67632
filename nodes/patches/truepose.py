# SPDX-License-Identifier: GPL-3.0-or-later
"""HPFA on the host's stock MODEL: self-attention that sees the source, too.

Whatever is in the slots of `attn1_replace` when a step begins is chained, not overwritten, and
nothing is put there for good: a wrapper around the UNet hands the replacements to that one call.
So the order in which packs patch a MODEL does not matter, and a pack that takes a slot for one call
(Perturbed-Attention Guidance does) still gets the tensors that it expects. Several guides on one
MODEL share one softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_management as mm
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import optimized_attention as host_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...pose_transfer.errors import PoseTransferError
from ...pose_transfer.truepose import (
    attention_mass,
    joined_attention,
    masked_fusion_attention,
)
from ..sockets import Block, SourceFeatures
from .truepose_context import with_region_context
from .truepose_run import Guide, Run, Shape, for_batch
from .truepose_source import OFF, LiveSourceNet, control_models
from .unet_blocks import require_unet, transformer_blocks

KEY = "pose_transfer_truepose"
# The host's number in `cond_or_uncond` of the prediction under all conditions. Others (negative,
# empty, FPDM's partial ones) do not attend to the source: guidance is the difference from them.
_POSITIVE = 0
# Attention is recorded in blocks of up to so many tokens: a picture of 1024 px has 1024 of them in
# the blocks that decide what goes where, and the finer ones would cost more than the sampling.
_RECORDED_TOKENS = 1024

Attention = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]


def guide_attention(model: ModelPatcher, guide: Guide) -> ModelPatcher:
    """A clone of a MODEL that attends to the source, beside any that it attends to already.

    Raises PoseTransferError for a MODEL that is no UNet of Stable Diffusion's kind, or not of the
    size of the one that looked at the source.
    """
    require_unet(model)
    _require_same_net(model, guide.features)
    patched = model.clone()
    guides = (*(patched.get_attachment(KEY) or ()), guide)
    patched.set_attachments(KEY, guides)
    live = [each.features.live for each in guides if each.features.live is not None]
    controls = [model for source in live for model in control_models(source.conditioning)]
    if controls:
        patched.set_additional_models(KEY, controls)
    fusion = _Fusion(guides)
    wrappers = comfy.patcher_extension.WrappersMP
    for kind, wrapper in (
        (wrappers.OUTER_SAMPLE, fusion.around_sampling),
        (wrappers.CALC_COND_BATCH, fusion.around_step),
        (wrappers.DIFFUSION_MODEL, fusion.around_unet),
    ):
        patched.remove_wrappers_with_key(kind, KEY)
        patched.add_wrapper_with_key(kind, KEY, wrapper)
    return patched


def sigma_at(model: ModelPatcher, percent: float) -> float:
    """The noise level after that share of the schedule, as the host's own nodes count it."""
    return float(model.get_model_object("model_sampling").percent_to_sigma(percent))


def _require_same_net(model: ModelPatcher, features: SourceFeatures) -> None:
    widths = {
        name: block.attn1.to_k.in_features
        for name, block in transformer_blocks(require_unet(model))
    }
    got = {name: hidden.shape[-1] for name, hidden in features.hidden.items()}
    if any(widths.get(name) != width for name, width in got.items()):
        raise PoseTransferError(
            f"The source features come from a UNet of {len(got)} transformer blocks, "
            f"{sorted(set(got.values()))} channels wide; the MODEL has {len(widths)}, "
            f"{sorted(set(widths.values()))} wide. Make them with the same MODEL, or with one of "
            "the same family."
        )


class _Fusion:
    """The guides of one MODEL at work: three wrappers that share what one sampling run keeps."""

    def __init__(self, guides: Sequence[Guide]) -> None:
        self.guides = guides
        self.live = {
            number: LiveSourceNet(guide.features.live, guide.features.regions)
            for number, guide in enumerate(guides)
            if guide.features.live is not None
        }
        self.run = Run(self.guides)

    def around_sampling(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        self.run = Run(self.guides)
        for guide in self.guides:
            if guide.record is not None:
                guide.record.clear()
        try:
            return executor(*args, **kwargs)
        finally:
            self.run = Run(self.guides)
            for net in self.live.values():
                net.forget()

    def around_step(
        self, executor: Any, model: Any, conds: Any, x: Tensor, sigma: Tensor, model_options: Any
    ) -> Any:
        """Lets live sources look at themselves at this step's noise first."""
        trained = mm.in_training or torch.is_grad_enabled()
        self.run.constant = not trained and not _has_hooks(conds)
        options = model_options.get("transformer_options", {})
        if not options.get(OFF):
            for number, net in self.live.items():
                if self.guides[number].acts_at(float(sigma[0])):
                    seen = net.look(executor, model, x, sigma, model_options)
                    self.run.look(number, seen)
        return executor(model, conds, x, sigma, model_options)

    def around_unet(
        self,
        executor: Any,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        options = transformer_options or {}
        sigma = float(options["sigmas"][0]) if "sigmas" in options else None
        active = [
            number
            for number, guide in enumerate(self.guides)
            if not options.get(OFF) and (sigma is None or guide.acts_at(sigma))
        ]
        if active:
            replaced = options.get("patches_replace", {})
            attn1 = self._replacements(executor.class_obj, active, replaced.get("attn1", {}))
            options = {**options, "patches_replace": {**replaced, "attn1": attn1}}
            options = self._with_region_context(options, executor.class_obj, active)
        return executor(x, timesteps, context, y, control, options, **kwargs)

    def _with_region_context(
        self, options: dict[str, Any], unet: UNetModel, active: Sequence[int]
    ) -> dict[str, Any]:
        """[D] Region-wise CAA, where the source's context has tokens of regions."""
        for number in active:
            guide, owners = self.guides[number], self.guides[number].features.context
            if owners is not None and guide.target is not None and guide.beta:
                return with_region_context(options, unet, guide.target, owners, guide.beta)
        return options

    def _replacements(
        self, unet: UNetModel, active: Sequence[int], there: Mapping[Any, Attention]
    ) -> dict[Any, Attention]:
        out = dict(there)
        for name, block in transformer_blocks(unet):
            numbers = [
                n
                for n in active
                if name[0] in self.guides[n].blocks and name in self.run.features(n).hidden
            ]
            if numbers:
                previous = there.get(name, there.get(name[:2]))
                out[name] = _BlockAttention(self, name, block.attn1, numbers, previous)
        return out


class _BlockAttention:
    """The self-attention of one block in one call."""

    def __init__(
        self,
        fusion: _Fusion,
        name: Block,
        attention: Any,
        numbers: Sequence[int],
        previous: Attention | None,
    ) -> None:
        self.fusion = fusion
        self.name = name
        self.attention = attention
        self.numbers = numbers
        self.previous = previous

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        heads = options["n_heads"]
        kinds = options.get("cond_or_uncond") or [0]
        # Another's attention is asked about the whole batch, as it would be without us.
        before = None if self.previous is None else self.previous(q, k, v, options)
        parts = []
        # The host batches predictions one after the other: (prediction, picture) is the first axis.
        each = len(q) // len(kinds)
        for start, kind in zip(range(0, len(q), each), kinds, strict=True):
            rows = slice(start, start + each)
            other = None if before is None else before[rows]
            if kind == _POSITIVE or self._has_empty():
                part = self._fused(
                    q[rows], k[rows], v[rows], other, heads, options, empty=kind != _POSITIVE
                )
            elif other is not None:
                part = other
            else:
                part = host_attention(
                    q[rows],
                    k[rows],
                    v[rows],
                    heads,
                    attn_precision=options["attn_precision"],
                    transformer_options=options,
                )
            parts.append(part)
        return torch.cat(parts)

    def _has_empty(self) -> bool:
        return any(self.name in self.fusion.run.features(n).empty for n in self.numbers)

    def _fused(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        other: Tensor | None,
        heads: int,
        options: dict[str, Any],
        empty: bool,
    ) -> Tensor:
        height, width = options["activations_shape"][-2:]
        queries = (height, width) if height * width == q.shape[1] else None
        numbers, keys, values = [], [], []
        for number in self.numbers:
            made = self.fusion.run.keys_and_values(number, self.name, self.attention, q, empty)
            if made is not None:  # of several sources only a trained pair's has an empty one
                numbers.append(number)
                keys.append(for_batch(made[0], len(q)))
                values.append(for_batch(made[1], len(q)))
        k_s, v_s = torch.cat(keys, 1), torch.cat(values, 1)
        if not empty:
            self._record(q, k, k_s, numbers, heads, queries)
        if other is not None:
            bias = self.fusion.run.bias(numbers, self.name, queries, q)
            return joined_attention(other, q, k, k_s, v_s, None, bias, heads)
        mask = self.fusion.run.mask(numbers, self.name, queries, q, k.shape[1])
        return masked_fusion_attention(q, k, v, k_s, v_s, mask, heads)

    def _record(
        self,
        q: Tensor,
        k: Tensor,
        k_s: Tensor,
        numbers: Sequence[int],
        heads: int,
        queries: Shape | None,
    ) -> None:
        records = {self.fusion.guides[n].record for n in self.numbers} - {None}
        if records and queries is not None and q.shape[1] <= _RECORDED_TOKENS:
            tokens = [self.fusion.run.tokens(number, self.name, q) for number in numbers]
            shares = torch.cat([for_batch(own.shares, len(q)) for own in tokens], 1)
            bias = self.fusion.run.bias(numbers, self.name, queries, q)
            mass = attention_mass(q, k, k_s, None, bias, shares, heads)
            for record in records:
                if record is not None:
                    record.add(mass, queries)


def _has_hooks(conds: Any) -> bool:
    """Whether the host may schedule weights: another LoRA strength in another step, or part."""
    return any(cond.get("hooks") is not None for group in conds for cond in group or ())
