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
from ...pose_transfer.fpdm.guidance import Guidance, nested_guidance, rescaled
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
        if condition.carried is not None:
            pose = pose + condition.carried
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
    """Guidance over no condition, the pose, pose and source, and the fusion embedding as well.

    The predictions are made in one call, which the host turns into one batch where memory allows
    and into several where it does not. One that counts nothing is left out, as the host does at
    CFG 1 (and under the same switch, `disable_cfg1_optimization`): with equal weights that is the
    one without fusion, with a weight of 1 the one without conditions. The prediction under all
    conditions is always made, for hooks of other packs look at it.
    """

    def __init__(self, model_patcher: ModelPatcher, guidance: Guidance) -> None:
        super().__init__(model_patcher)
        self.guidance = guidance
        self.set_cfg(guidance.fusion.weight)  # what hooks of other packs are told the scale is

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
        conds = {
            "positive": positive,
            "negative": negative,
            "source": [_without_fusion(entry) for entry in positive],
        }
        if self.guidance.pose is not None:
            conds["pose"] = [_pose_alone(entry) for entry in positive]
        self.inner_set_conds(conds)

    def predict_noise(
        self,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        options = model_options or {}
        weights = self.guidance.weights(lambda start, end: self._is_between(timestep, start, end))
        names = ("positive", "negative", "source", "pose")[: self.guidance.most_passes]
        conds = [self.conds.get(name) for name in names]
        if not options.get("disable_cfg1_optimization", False):
            none, pose, source, _ = weights.shares
            needed = (True, none != 0.0, source != 0.0, pose != 0.0)
            conds = [c if n else None for c, n in zip(conds, needed, strict=False)]

        e = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, options)
        shared = {
            "cond_scale": self.cfg,
            "input": x,
            "sigma": timestep,
            "model": self.inner_model,
            "model_options": options,
        }
        for pre_cfg in options.get("sampler_pre_cfg_function", []):
            e = pre_cfg({**shared, "conds": conds, "conds_out": e, "timestep": timestep})
        e_full, e_none, e_source, *own = e
        e_pose = own[0] if own else e_source  # counts nothing where it is not guided

        # The predictions are of the clean latent, which is affine in the predicted noise with
        # weights that sum to 1: guiding either is the same.
        guided = nested_guidance(e_none, e_pose, e_source, e_full, weights)
        if self.guidance.rescale > 0.0:
            guided = _rescaled_as_v(guided, e_full, x, timestep, self.guidance.rescale)
        for post_cfg in options.get("sampler_post_cfg_function", []):
            guided = post_cfg(
                {
                    **shared,
                    "denoised": guided,
                    "cond": conds[0],
                    "uncond": conds[1],
                    "cond_denoised": e_full,
                    "uncond_denoised": e_none,
                }
            )
        return guided

    def _is_between(self, timestep: Tensor, start: float, end: float) -> bool:
        """Whether sampling is there, by the host's own measure of start and end percents."""
        sampling = self.inner_model.model_sampling
        sigma = timestep[0].item()
        return sampling.percent_to_sigma(end) <= sigma <= sampling.percent_to_sigma(start)


def _rescaled_as_v(
    guided: Tensor, conditioned: Tensor, x: Tensor, timestep: Tensor, amount: float
) -> Tensor:
    """`rescaled` for predictions of the clean latent x0 at noise level s.

    `v = (x / (s^2 + 1) - x0) sqrt(s^2 + 1) / s`
    """
    s = timestep.view(-1, *[1] * (x.dim() - 1))
    centre, size = x / (s**2 + 1), s / (s**2 + 1) ** 0.5
    v = rescaled((centre - guided) / size, (centre - conditioned) / size, amount)
    return centre - v * size


def _without_fusion(entry: list[Any]) -> list[Any]:
    tokens, settings = entry
    condition: FPDMCondition | None = settings.get(FPDM_KEY)
    if condition is None:
        return [tokens, {**settings, "prompt_type": "positive"}]
    bare = replace(condition, time_offset=condition.time_offset_without_fusion)
    return [tokens, {**settings, FPDM_KEY: bare, "prompt_type": "positive"}]


def _pose_alone(entry: list[Any]) -> list[Any]:
    tokens, settings = _without_fusion(entry)
    if FPDM_KEY not in settings:
        return [tokens, settings]
    alone = replace(settings[FPDM_KEY], carried=None)
    return [torch.zeros_like(tokens), {**settings, FPDM_KEY: alone}]
