# SPDX-License-Identifier: GPL-3.0-or-later
"""The visual consistency module on the host's stock MODEL.

The extra keys and values of each CONDITIONING travel as the host's own `COND` objects beside the
text's context, never in it, so that a ControlNet sees the text alone. A wrapper around the UNet
puts the module's attentions into the host's `attn2` slots for the length of one call: whatever
other packs have put there, before or after this node, is what they build upon. A CONDITIONING that
did not come from Apply VCM gets no image and no face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.conds
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn import functional as F

from ...pose_transfer.errors import PoseTransferError
from ...pose_transfer.oneposetrans.blocks import AttentionBlock, attention_blocks
from ...pose_transfer.oneposetrans.vcm import replace_value
from ...pose_transfer.oneposetrans.vcm_adapter import describe_widths
from ...pose_transfer.oneposetrans.vcm_plan import Added, Plan
from ..sockets import VCMCondition

VCM_KEY = "pose_transfer_vcm"
_VALUES = "pose_transfer_vcm_values"
_WORDS = "pose_transfer_vcm_words"
_REGION = "pose_transfer_vcm_region"

Conditioning = list[list[Any]]
Replace = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]
"""The host's slot: query, key, value, options -> attention, before the output projection."""


def cross_attentions(model: ModelPatcher) -> tuple[AttentionBlock, ...]:
    """The MODEL's blocks in diffusers' order; PoseTransferError for other than a UNet of SD."""
    return attention_blocks(getattr(model.get_model_object("model_config"), "unet_config", {}))


def require_fitting_unet(
    model: ModelPatcher, blocks: Sequence[AttentionBlock], widths: Sequence[int], name: str
) -> None:
    """Raises PoseTransferError unless the MODEL's cross-attentions are of these widths."""
    got = tuple(
        model.get_model_object(f"diffusion_model.{block.host_module}.attn2.to_q").out_features
        for block in blocks
    )
    if got != tuple(widths):
        raise PoseTransferError(
            f"The VCM weights {name!r} are for a UNet with {describe_widths(widths)}; the "
            f"connected MODEL has {describe_widths(got)}. Connect a MODEL of the base that the "
            "weights were made for, or load weights for this one (Stable Diffusion 1.5 or XL)."
        )


def with_condition(conditioning: Conditioning, condition: VCMCondition) -> Conditioning:
    """The CONDITIONING with the module's part added to each entry."""
    return [[text, {**settings, VCM_KEY: condition}] for text, settings in conditioning]


def apply_vcm(
    model: ModelPatcher,
    blocks: Sequence[AttentionBlock],
    plan: Plan,
    start: float,
    end: float,
    region: Tensor | None,
) -> ModelPatcher:
    """A clone of a MODEL whose cross-attentions follow `plan`.

    `start` and `end`: shares of the sampling, 0..1, between which it acts. `region` (B, H, W) in
    0..1: where in the picture the added attentions act, None for everywhere. Raises
    PoseTransferError for a MODEL that has a module already.
    """
    if start >= end:
        raise PoseTransferError(
            f"The VCM is to act from {start} to {end} of the sampling, which is never. Set end "
            "higher than start."
        )
    patched = model.clone()
    if patched.get_attachment(VCM_KEY) is not None:
        raise PoseTransferError(
            "The MODEL comes out of another Apply VCM. Connect the MODEL that went into that one; "
            "several pictures of a person go into one Apply VCM as a batch."
        )
    patched.set_attachments(VCM_KEY, plan)
    sampling = patched.get_model_object("model_sampling")
    patched.add_object_patch(
        "extra_conds", _ExtraConds(patched.get_model_object("extra_conds"), plan.size, region)
    )
    patched.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL,
        VCM_KEY,
        _Wrapper(
            plan,
            tuple((*block.host, block.index) for block in blocks),
            sampling.percent_to_sigma(start),
            sampling.percent_to_sigma(end),
        ),
    )
    return patched


class _ExtraConds:
    """The model's `extra_conds` with the module's tensors added to whatever it made before."""

    def __init__(
        self, previous: Callable[..., dict[str, Any]], size: int, region: Tensor | None
    ) -> None:
        self.previous = previous
        self.size = size
        self.region = region

    def __call__(self, **kwargs: Any) -> dict[str, Any]:
        out = self.previous(**kwargs)
        condition = kwargs.get(VCM_KEY, VCMCondition(torch.zeros(1, self.size), ()))
        if condition.values.shape[1] != self.size:
            raise PoseTransferError(
                "The CONDITIONING and the MODEL come out of two different Apply VCM nodes. Connect "
                "the positive and negative output of the node that the MODEL comes out of."
            )
        device, text = kwargs["device"], kwargs["cross_attn"]
        words = torch.zeros(1, text.shape[1], 1)
        # The negative prompt may be a chunk shorter; the host repeats it to the same length.
        words[:, [index % text.shape[1] for index in condition.face_tokens]] = 1.0
        out[_VALUES] = comfy.conds.CONDRegular(condition.values.to(device))
        # Repeated as the host repeats the text's context where prompts differ in length.
        out[_WORDS] = comfy.conds.CONDCrossAttn(words.to(device))
        if self.region is not None:
            region = self.region[:, None].to(device, torch.float32)
            size = kwargs["noise"].shape[-2:]
            out[_REGION] = comfy.conds.CONDNoiseShape(F.interpolate(region, size, mode="area"))
        return out


@dataclass(frozen=True, eq=False)
class _Wrapper:
    """Wraps the UNet: hands the module's tensors to the slots that use them."""

    plan: Plan
    slots: tuple[tuple[str, int, int], ...]
    sigma_start: float
    sigma_end: float

    def __call__(
        self,
        executor: Any,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        values, words, region = (kwargs.pop(key, None) for key in (_VALUES, _WORDS, _REGION))
        options = transformer_options or {}
        if values is not None and self._acts_now(options):
            options = self._with_attentions(options, values, words[..., 0] > 0.5, region)
        return executor(x, timesteps, context, y, control, options, **kwargs)

    def _acts_now(self, options: dict[str, Any]) -> bool:
        sigmas = options.get("sigmas")  # trainers call the UNet without
        return sigmas is None or self.sigma_end <= float(sigmas.max()) <= self.sigma_start

    def _with_attentions(
        self, options: dict[str, Any], values: Tensor, words: Tensor, region: Tensor | None
    ) -> dict[str, Any]:
        replaces = options.get("patches_replace", {})
        slots = dict(replaces.get("attn2", {}))
        regions = None if region is None else _Region(region)
        for index, (slot, added) in enumerate(
            zip(self.slots, self.plan.unpack(values), strict=True)
        ):
            if self.plan.acts(index):
                # The host looks for the single block first, then for all of that place.
                previous = slots.get(slot, slots.get(slot[:2]))
                slots[slot] = _Attention(added, words, regions, previous)
        return {**options, "patches_replace": {**replaces, "attn2": slots}}


@dataclass(frozen=True, eq=False)
class _Attention:
    """One cross-attention for the length of one call."""

    added: Added
    words: Tensor
    region: _Region | None
    previous: Replace | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        heads = options["n_heads"]
        if self.added.value is not None:
            v = replace_value(v, self.added.value.to(v), self.words)
        if self.previous is not None:
            out = self.previous(q, k, v, options)
        else:
            out = optimized_attention(
                q, k, v, heads, attn_precision=options.get("attn_precision"),
                transformer_options=options,
            )  # fmt: skip
        more = self.added.attend(q, heads)
        if more is None:
            return out
        if self.region is not None:
            more = more * self.region.at(options["activations_shape"][-2:]).to(more)
        return out + more


@dataclass(frozen=True, eq=False)
class _Region:
    """Where the added attentions act, at the size of each level of the UNet."""

    full: Tensor
    sizes: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def at(self, shape: Sequence[int]) -> Tensor:
        """(B, N, 1) for maps of `shape` (height, width)."""
        size = (shape[0], shape[1])
        if size not in self.sizes:
            resized = F.interpolate(self.full.float(), size, mode="area")
            self.sizes[size] = resized.flatten(2).mT
        return self.sizes[size]
