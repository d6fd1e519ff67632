# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights in diffusers' layout as the host's own MODEL, CLIP and VAE.

What comes out is built of the host's classes alone, so that its samplers, LoRA loaders, hooks and
memory management treat it like any other Stable Diffusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ..pose_transfer.errors import CheckpointError

PREDICTIONS = {
    "epsilon": comfy.model_base.ModelType.EPS,
    "v_prediction": comfy.model_base.ModelType.V_PREDICTION,
}


class _Multiple(float):
    """A channel multiple whose product with the base width is a whole number.

    The host's UNet multiplies its first width by integers; diffusers lists any widths, such as
    (96, 192, 256).
    """

    def __mul__(self, width: float) -> int:
        return round(float(self) * width)

    def __rmul__(self, width: float) -> int:
        return self * width


class LatentFormat(comfy.latent_formats.LatentFormat):
    """Latents that the UNet sees `scale` times as large as the VAE makes them."""

    def __init__(self, scale: float, channels: int, preview: Tensor | None = None) -> None:
        self.scale_factor = scale
        self.latent_channels = channels
        if preview is not None:  # (channels + 1, 3): the latents and the bias -> RGB in [-1, 1]
            self.latent_rgb_factors = preview[:-1].tolist()
            self.latent_rgb_factors_bias = preview[-1].tolist()


class _ModelConfig(comfy.supported_models_base.BASE):
    unet_extra_config: dict[str, Any] = {}  # noqa: RUF012 - the host's own convention
    memory_usage_factor = 1.8

    def __init__(
        self,
        unet_config: dict[str, Any],
        latent_format: LatentFormat,
        prediction: str,
        dtypes: Sequence[torch.dtype],
    ) -> None:
        super().__init__(unet_config)
        self.latent_format = latent_format
        self.prediction = prediction
        self.supported_inference_dtypes = list(dtypes)

    def inpaint_model(self) -> bool:
        # The host takes more than four channels for an in-painting model; these are latents.
        return False

    def model_type(
        self, state_dict: Mapping[str, Tensor], prefix: str = ""
    ) -> comfy.model_base.ModelType:
        return PREDICTIONS[self.prediction]


def unet_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of the host's UNetModel for those of diffusers' UNet2DConditionModel.

    Raises CheckpointError for a UNet that the host cannot express: other blocks than Stable
    Diffusion's, or attention heads of differing widths.
    """
    widths = list(config["block_out_channels"])
    levels = len(widths)
    down = config["down_block_types"]
    up = config["up_block_types"][::-1]
    kinds = {kind.removeprefix("CrossAttn") for kind in (*down, *up)}
    if not kinds <= {"DownBlock2D", "UpBlock2D"}:
        raise CheckpointError(f"ComfyUI's UNet has no blocks of the types {sorted(kinds)}.")
    heads = config["attention_head_dim"]  # diffusers' misnomer: the number of heads
    heads = [heads] * levels if isinstance(heads, int) else list(heads)
    head_widths = {w // n for w, n in zip(widths, heads, strict=True)}
    if len(head_widths) != 1 and len(set(heads)) != 1:
        raise CheckpointError(
            f"The UNet's widths {widths} with {heads} attention heads give heads of differing "
            "widths; ComfyUI's UNet needs either one width or one number for all levels."
        )
    depths = config.get("transformer_layers_per_block", 1)
    depths = [depths] * levels if isinstance(depths, int) else list(depths)
    down_depths, up_depths = (
        [d if kind.startswith("CrossAttn") else 0 for d, kind in zip(depths, side, strict=True)]
        for side in (down, up)
    )
    layers = config["layers_per_block"]
    return {
        "image_size": 32,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": widths[0],
        "num_res_blocks": [layers] * levels,
        "channel_mult": [
            w // widths[0] if w % widths[0] == 0 else _Multiple(w / widths[0]) for w in widths
        ],
        "num_heads": -1 if len(head_widths) == 1 else heads[0],
        "num_head_channels": head_widths.pop() if len(head_widths) == 1 else -1,
        "use_spatial_transformer": True,
        "context_dim": config["cross_attention_dim"],
        "legacy": False,
        "use_linear_in_transformer": config.get("use_linear_projection", False),
        "attn_precision": torch.float32,  # SD 2's attention overflows in half precision
        "transformer_depth": [d for d in down_depths for _ in range(layers)],
        "transformer_depth_output": [d for d in up_depths for _ in range(layers + 1)],
        "transformer_depth_middle": down_depths[-1] or 1,
    }


def build_model(
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    prediction: str,
    latent_format: LatentFormat,
    dtypes: Sequence[torch.dtype] = (torch.float16, torch.bfloat16, torch.float32),
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """The host's MODEL from a diffusers UNet.

    `dtypes` are those that the UNet may run in, the host picks. Raises CheckpointError where
    tensors are missing.
    """
    settings = unet_settings(config)
    tensors = {
        host: state_dict[theirs]
        for theirs, host in comfy.utils.unet_to_diffusers(settings).items()
        if theirs in state_dict
    }
    model_config = _ModelConfig(settings, latent_format, prediction, dtypes)
    device = mm.get_torch_device()
    dtype = mm.unet_dtype(
        model_params=sum(t.numel() for t in tensors.values()), supported_dtypes=list(dtypes)
    )
    model_config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, device, list(dtypes)))
    model = model_config.get_model(tensors)
    missing = model.diffusion_model.state_dict().keys() - tensors.keys()
    if missing:
        raise CheckpointError(
            f"The UNet lacks {len(missing)} tensors, such as {min(missing)} (ComfyUI's name). The "
            "file is incomplete: download or install it again."
        )
    patcher_class = (
        comfy.model_patcher.ModelPatcher
        if disable_dynamic
        else comfy.model_patcher.CoreModelPatcher
    )
    patcher = patcher_class(model, load_device=device, offload_device=mm.unet_offload_device())
    model.load_model_weights(tensors, assign=patcher.is_dynamic())
    if patcher.is_dynamic():  # hooks of the host need a way to a patcher that is not
        patcher.cached_patcher_init = (
            _rebuild,
            (state_dict, config, prediction, latent_format, dtypes),
        )
    return patcher


def _rebuild(
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    prediction: str,
    latent_format: LatentFormat,
    dtypes: Sequence[torch.dtype],
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    return build_model(
        state_dict,
        config,
        prediction=prediction,
        latent_format=latent_format,
        dtypes=dtypes,
        disable_dynamic=disable_dynamic,
    )


def build_clip(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> comfy.sd.CLIP:
    """The host's CLIP of Stable Diffusion 1, with the sizes of another CLIPTextConfig."""
    target = comfy.supported_models_base.ClipTarget(
        comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel
    )
    # The host always makes the projection of the pooled output; this encoder has none.
    weights = {**state_dict, "text_projection.weight": torch.eye(config["hidden_size"])}
    return comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=sum(t.numel() for t in state_dict.values()),
        state_dict=[weights],
        model_options={"clip_l_model_config": dict(config)},
    )


def build_tiny_vae(state_dict: Mapping[str, Tensor]) -> comfy.sd.VAE:
    """The host's VAE from a tiny autoencoder of TAESD's layout."""
    return comfy.sd.VAE(sd=dict(state_dict))


def build_vae(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> comfy.sd.VAE:
    """The host's VAE from diffusers' AutoencoderKL.

    Raises CheckpointError unless it has four levels: the host reads no other from diffusers.
    """
    widths = config["block_out_channels"]
    if len(widths) != 4:
        raise CheckpointError(
            f"The autoencoder has {len(widths)} levels, expected Stable Diffusion's four. Use a "
            "checkpoint with Stable Diffusion's autoencoder, or one without."
        )
    settings = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": 256,
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": widths[0],
        "ch_mult": [w // widths[0] for w in widths],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return comfy.sd.VAE(
        sd=dict(state_dict),
        config={"params": {"embed_dim": config["latent_channels"], "ddconfig": settings}},
    )


def preview_factors(vae: comfy.sd.VAE) -> Tensor:
    """The linear map from latents to RGB that the host draws live previews with.

    (channels + 1, 3), the last row is the bias. Fitted to how the VAE encodes 27 plain colours.
    """
    colours = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3)  # (27, 3)
    flat = colours[:, None, None].expand(-1, 64, 64, 3)
    latents = vae.encode(flat).cpu().float().mean((2, 3))  # (27, channels)
    with_bias = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    return torch.linalg.lstsq(with_bias, colours * 2 - 1).solution
