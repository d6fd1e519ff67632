# SPDX-License-Identifier: GPL-3.0-or-later
"""SourceNet in the host: what a MODEL's self-attentions are given when it looks at the source."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..sockets import Block, LiveSource, SourceFeatures
from .fpdm import FPDM_KEY
from .truepose_context import REGIONS_KEY, with_region_context
from .unet_blocks import require_unet

OFF = "pose_transfer_truepose_off"
"""In the transformer options: guides leave this call alone, the source does not guide itself."""

_SOURCE_KEY = "pose_transfer_truepose_source"
_CLEAN = 0.0
_CONTROL = "control"
# The source is a whole picture, without parts that are painted apart.
_KEPT_SETTINGS = ("pooled_output", _CONTROL, FPDM_KEY, REGIONS_KEY)

Conditioning = list[list[Any]]


class _Capture:
    """A patch for self-attentions that keeps what they are given."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.hidden: dict[Block, Tensor] = {}
        self.shapes: dict[Block, tuple[int, int]] = {}

    def __call__(
        self, n: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        name = (*options["block"], options["block_index"])
        self.hidden[name] = n.detach() if self.device is None else n.detach().to(self.device)
        self.shapes[name] = tuple(options["activations_shape"][-2:])
        return n, context, value


def plain_conditioning(model: ModelPatcher, conditioning: Conditioning | None) -> Conditioning:
    """What SourceNet reads beside the picture: the first of the given entries, or zeros."""
    if conditioning:
        tokens, settings = conditioning[0]
        return [[tokens, {k: settings[k] for k in _KEPT_SETTINGS if k in settings}]]
    width = model.get_model_object("model_config").unet_config.get("context_dim")
    pooled = model.get_model_object("model_config").unet_config.get("adm_in_channels")
    settings = {} if pooled is None else {"pooled_output": torch.zeros(1, 1280)}  # SDXL's CLIP
    return [[None if width is None else torch.zeros(1, 77, width), settings]]


def control_models(conditioning: Conditioning) -> list[ModelPatcher]:
    """What the host must have on the device where a ControlNet is told about the source."""
    return [
        model
        for _, settings in conditioning
        if _CONTROL in settings
        for model in settings[_CONTROL].get_models()
    ]


def owners_of(conditioning: Conditioning) -> Tensor | None:
    """Whose region each context token is, (K, R), in the region-wise form of CAA."""
    return conditioning[0][1].get(REGIONS_KEY)


@torch.inference_mode()
def look_once(
    model: ModelPatcher, latent: Tensor, regions: Tensor, conditioning: Conditioning
) -> SourceFeatures:
    """SourceNet's single pass over clean latents (B, C, h, w), which are on the VAE's scale.

    [D] At timestep 0 and without noise, unless the MODEL's pair was trained otherwise
    (`pair_timestep`).
    """
    pair: tuple[float, bool] | None = model.get_attachment(_SOURCE_KEY)
    timestep, with_empty = pair or (_CLEAN, False)
    capture = _Capture(comfy.model_management.intermediate_device())
    source = _pass(model, latent, conditioning, timestep, capture, regions)
    empty = _Capture(capture.device)
    if with_empty:
        nothing = torch.zeros_like(latent[:1])
        _pass(model, nothing, conditioning, timestep, empty, regions[:1])
    owners = owners_of(conditioning)
    return SourceFeatures(regions, source.hidden, source.shapes, empty.hidden, context=owners)


def pair_timestep(model: ModelPatcher, timestep: float, with_empty: bool) -> None:
    """Marks a freshly loaded SourceNet: the timestep that it was trained to be told.

    `with_empty`: unconditional predictions of its pair attend to the features of a latent of zeros.
    """
    model.set_attachments(_SOURCE_KEY, (timestep, with_empty))


def _pass(
    model: ModelPatcher,
    latent: Tensor,
    conditioning: Conditioning,
    timestep: float,
    capture: _Capture,
    regions: Tensor,
) -> _Capture:
    watched = model.clone()
    watched.set_model_attn1_patch(capture)
    options = {**watched.model_options["transformer_options"], OFF: True}
    if (owners := owners_of(conditioning)) is not None:
        options = with_region_context(options, require_unet(model), regions, owners, 1.0)
    watched.model_options["transformer_options"] = options
    sampling = watched.get_model_object("model_sampling")
    sigma = sampling.sigma(torch.tensor([timestep])).to(torch.float32)
    guider = comfy.samplers.CFGGuider(watched)
    guider.inner_set_conds({"positive": conditioning})
    guider.sample(torch.zeros_like(latent), latent, _OneCall(), torch.cat([sigma, sigma * 0]))
    return capture


class _OneCall:
    """A sampler of one prediction whose input is the clean latent itself."""

    def sample(
        self, guider: Any, sigmas: Tensor, extra: dict[str, Any], _callback: Any, _noise: Tensor,
        latent: Tensor, *_: Any,
    ) -> Tensor:  # fmt: skip
        sigma = sigmas[:1].expand(len(latent))
        guider(_unscaled(guider.inner_model.model_sampling, sigma, latent), sigma, **extra)
        return latent


def _unscaled(sampling: Any, sigma: Tensor, latent: Tensor) -> Tensor:
    """What the host scales down to `latent` before the UNet sees it."""
    one = latent.new_ones(len(latent), 1, 1, 1)
    return latent / sampling.calculate_input(sigma, one)


class LiveSourceNet:
    """[D] The source at the noise of the current step, for models that are no trained pair.

    The noise is the same in all steps, as the one that the picture itself starts from is.
    """

    def __init__(self, source: LiveSource, regions: Tensor) -> None:
        self.source = source
        self.regions = regions
        self.conds: list[dict[str, Any]] | None = None

    def forget(self) -> None:
        """Lets go of what belongs to one sampling run."""
        for cond in self.conds or ():
            if _CONTROL in cond:
                cond[_CONTROL].cleanup()
        self.conds = None

    def look(
        self, executor: Any, model: Any, x: Tensor, sigma: Tensor, model_options: dict[str, Any]
    ) -> SourceFeatures:
        latent = model.process_latent_in(self.source.latent.to(x))
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)).to(x)
        if self.conds is None:
            conds = comfy.sampler_helpers.convert_cond(self.source.conditioning)
            processed = comfy.samplers.process_conds(model, noise, {"positive": conds}, x.device)
            self.conds = processed["positive"]
        level = sigma[:1].expand(len(latent))
        noisy = model.model_sampling.noise_scaling(level.view(-1, 1, 1, 1), noise, latent)
        capture = _Capture()
        options = dict(model_options.get("transformer_options", {}))
        patches = dict(options.get("patches", {}))
        patches["attn1_patch"] = [*patches.get("attn1_patch", []), capture]
        options |= {OFF: True, "patches": patches}
        owners = owners_of(self.source.conditioning)
        if owners is not None:
            unet = model.diffusion_model
            options = with_region_context(options, unet, self.regions, owners, 1.0)
        executor(
            model, [self.conds], noisy, level, {**model_options, "transformer_options": options}
        )
        return SourceFeatures(self.regions, capture.hidden, capture.shapes, {}, context=owners)


def leffa_conditioning(model: ModelPatcher, densepose_bhwc: Tensor) -> Conditioning:
    """What Leffa's generative net is told: a CONDITIONING whose extra channels the host appends.

    The whole picture is to be painted, so the mask is one and the masked image blank; DensePose's
    colours in [-1, 1] at the size of the latent.
    """
    densepose = densepose_bhwc.movedim(-1, 1)  # BHWC -> BCHW
    height, width = (side // 8 for side in densepose.shape[-2:])
    small = torch.nn.functional.interpolate(densepose, (height, width), mode="nearest")
    latent = densepose.new_zeros(len(densepose), 4, height, width)
    concat = torch.cat(
        [torch.ones_like(latent[:, :1]), model.model.blank_inpaint_image_like(latent),
         small * 2 - 1], dim=1,
    )  # fmt: skip
    (entry,) = plain_conditioning(model, None)
    return [[entry[0], {**entry[1], "noise_concat": concat}]]
