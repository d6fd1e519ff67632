# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM on the host's stock MODEL.

The conditions of each CONDITIONING travel as the host's own `COND` objects, so that the host
batches, splits, repeats and crops them together with the latents; a wrapper around the UNet hands
them to the patches. The pose features are added after the UNet's first convolution, before its
result is kept as a skip; the fusion embedding, through FPDM's class embedding, is added to the time
embedding. A CONDITIONING that did not come from FPDM counts as one of zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.conds
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...pose_transfer.errors import PoseTransferError
from ...pose_transfer.fpdm.guidance import cumulative_guidance
from ..sockets import FPDMCondition

FPDM_KEY = "pose_transfer_fpdm"
_POSE = "pose_transfer_fpdm_pose"
_TIME = "pose_transfer_fpdm_time"
_LATENT_FACTOR = 8

Conditioning = list[list[Any]]


def conditioning(tokens: Tensor, condition: FPDMCondition) -> Conditioning:
    """A CONDITIONING of FPDM: tokens (B, N, D) as the cross-attention's context."""
    return [[tokens, {FPDM_KEY: condition}]]


def apply_fpdm(
    model: ModelPatcher, tokens: Tensor, condition: FPDMCondition, fpdm_name: str
) -> ModelPatcher:
    """A clone of a MODEL that follows FPDM's conditions.

    Raises PoseTransferError where the UNet is not of the size that this FPDM was trained on, or
    follows another FPDM already.
    """
    _require_fitting_unet(model, tokens, condition, fpdm_name)
    patched = model.clone()
    already = patched.get_attachment(FPDM_KEY)
    if already == fpdm_name:
        return patched
    if already is not None:
        raise PoseTransferError(
            f"The MODEL follows the FPDM {already!r} already and cannot follow {fpdm_name!r} too. "
            "Connect the MODEL as it came out of its loader."
        )
    patched.set_attachments(FPDM_KEY, fpdm_name)
    patched.add_object_patch(
        "extra_conds",
        _ExtraConds(
            patched.get_model_object("extra_conds"),
            FPDMCondition(
                None,
                condition.time_offset_without_fusion,
                condition.time_offset_without_fusion,
            ),
            model_channels=condition.time_offset.shape[-1] // 4,
        ),
    )
    patched.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, FPDM_KEY, _hand_over_conditions
    )
    patched.set_model_input_block_patch(_add_pose_features)
    patched.set_model_emb_patch(_add_time_offset)
    return patched


def _require_fitting_unet(
    model: ModelPatcher, tokens: Tensor, condition: FPDMCondition, fpdm_name: str
) -> None:
    config = getattr(model.get_model_object("model_config"), "unet_config", {})
    got = (config.get("model_channels"), config.get("context_dim"))
    expected = (condition.time_offset.shape[-1] // 4, tokens.shape[-1])
    if got != expected:
        raise PoseTransferError(
            f"The FPDM {fpdm_name!r} steers a UNet of {expected[0]} channels with tokens "
            f"{expected[1]} wide; the connected MODEL has {got[0]} channels and tokens {got[1]} "
            "wide. Connect the MODEL that comes out of the same loader as the FPDM."
        )


class _ExtraConds:
    """The model's `extra_conds` with FPDM's tensors added to whatever it made before."""

    def __init__(
        self, previous: Callable[..., dict[str, Any]], zeros: FPDMCondition, model_channels: int
    ) -> None:
        self.previous = previous
        self.zeros = zeros
        self.model_channels = model_channels

    def __call__(self, **kwargs: Any) -> dict[str, Any]:
        out = self.previous(**kwargs)
        condition: FPDMCondition = kwargs.get(FPDM_KEY, self.zeros)
        latent, device = kwargs["noise"], kwargs["device"]
        pose = condition.pose_features
        if pose is None:
            pose = torch.zeros(1, self.model_channels, *latent.shape[-2:])
        _require_same_size(pose, latent)
        out[_POSE] = comfy.conds.CONDNoiseShape(pose.to(device))
        out[_TIME] = comfy.conds.CONDRegular(condition.time_offset.to(device))
        return out


def _require_same_size(pose: Tensor, latent: Tensor) -> None:
    if pose.shape[-2:] != latent.shape[-2:]:
        (pose_h, pose_w), (h, w) = pose.shape[-2:], latent.shape[-2:]
        raise PoseTransferError(
            f"The latent is {w * _LATENT_FACTOR}x{h * _LATENT_FACTOR} px (width x height) but the "
            f"pose map given to Apply FPDM is {pose_w * _LATENT_FACTOR}x{pose_h * _LATENT_FACTOR} "
            "px. Use the LATENT that Apply FPDM puts out, or draw the pose at the latent's size."
        )


def _hand_over_conditions(
    executor: Any,
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    y: Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Tensor:
    """Wraps the UNet: moves FPDM's tensors from its keywords to where the patches look."""
    options = {
        **(transformer_options or {}),
        FPDM_KEY: {"pose": kwargs.pop(_POSE, None), "time": kwargs.pop(_TIME, None)},
    }
    return executor(x, timesteps, context, y, control, options, **kwargs)


def _add_pose_features(h: Tensor, transformer_options: dict[str, Any]) -> Tensor:
    pose = transformer_options.get(FPDM_KEY, {}).get("pose")
    if transformer_options["block"] != ("input", 0) or pose is None:
        return h
    _require_same_size(pose, h)
    return h + pose.to(h)


def _add_time_offset(
    emb: Tensor, model_channels: int, transformer_options: dict[str, Any]
) -> Tensor:
    offset = transformer_options.get(FPDM_KEY, {}).get("time")
    return emb if offset is None else emb + offset.to(emb)


class FPDMGuider(comfy.samplers.CFGGuider):
    """Cumulative guidance over no condition, pose and source, and the fusion embedding as well.

    The three predictions are made in one call, which the host turns into one batch where memory
    allows. A prediction whose weight in the sum is zero is left out, as the host does at CFG 1
    (and under the same switch, `disable_cfg1_optimization`): with equal weights that is the one
    without fusion, with a source weight of 1 the one without conditions.
    """

    def set_conds(self, positive: Conditioning, negative: Conditioning) -> None:
        """`positive` must be, or contain, the positive CONDITIONING of Apply FPDM."""
        if not any(FPDM_KEY in settings for _, settings in positive):
            raise PoseTransferError(
                "The positive CONDITIONING carries no pose and fusion embedding. Connect the "
                "positive output of Apply FPDM to the FPDM Guider."
            )
        if self.model_patcher.get_attachment(FPDM_KEY) is None:
            raise PoseTransferError(
                "The MODEL does not follow FPDM. Connect the MODEL that comes out of Apply FPDM to "
                "the FPDM Guider, not the one that goes in."
            )
        self.inner_set_conds(
            {
                "positive": positive,
                "negative": negative,
                "source": [_without_fusion(entry) for entry in positive],
            }
        )

    def set_weights(self, source_weight: float, fusion_weight: float) -> None:
        self.source_weight = source_weight
        self.fusion_weight = fusion_weight
        self.set_cfg(fusion_weight)  # what hooks of other packs are told the scale is

    def predict_noise(
        self,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        options = model_options or {}
        full, none, source = (self.conds.get(k) for k in ("positive", "negative", "source"))
        if not options.get("disable_cfg1_optimization", False):
            none = None if self.source_weight == 1.0 else none
            source = None if self.source_weight == self.fusion_weight else source

        conds = [full, none, source]
        e_full, e_none, e_source = e = comfy.samplers.calc_cond_batch(
            self.inner_model, conds, x, timestep, options
        )
        shared = {
            "cond_scale": self.cfg,
            "input": x,
            "sigma": timestep,
            "model": self.inner_model,
            "model_options": options,
        }
        for pre_cfg in options.get("sampler_pre_cfg_function", []):
            e = pre_cfg({**shared, "conds": conds, "conds_out": e, "timestep": timestep})
            e_full, e_none, e_source = e

        # The predictions are of the clean latent, which is affine in the predicted noise with
        # weights that sum to 1: guiding either is the same.
        guided = cumulative_guidance(
            e_none, e_source, e_full, self.source_weight, self.fusion_weight
        )
        for post_cfg in options.get("sampler_post_cfg_function", []):
            guided = post_cfg(
                {
                    **shared,
                    "denoised": guided,
                    "cond": full,
                    "uncond": none,
                    "cond_denoised": e_full,
                    "uncond_denoised": e_none,
                }
            )
        return guided


def _without_fusion(entry: list[Any]) -> list[Any]:
    tokens, settings = entry
    condition: FPDMCondition | None = settings.get(FPDM_KEY)
    if condition is None:
        return [tokens, {**settings, "prompt_type": "positive"}]
    bare = replace(condition, time_offset=condition.time_offset_without_fusion)
    return [tokens, {**settings, FPDM_KEY: bare, "prompt_type": "positive"}]
