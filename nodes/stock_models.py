# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights in diffusers' layout as the host's own MODEL, CLIP and VAE.

What comes out is built of the host's classes alone, so that its samplers, LoRA loaders, hooks and
memory management treat it like any other Stable Diffusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.diffusers_convert
import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.taesd.taesd
import comfy.utils
import folder_paths
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from torch import Tensor, nn

from ..pose_transfer.errors import CheckpointError
from ..pose_transfer.libraries import from_config

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
        # The host cannot build a UNet without; `build_model` takes it out again.
        "context_dim": config["cross_attention_dim"] or 1,
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
    take_tensors: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """The host's MODEL from a diffusers UNet.

    `dtypes` are those that the UNet may run in, the host picks. `take_tensors`: the caller gives
    the tensors away; they then become the UNet's parameters, no copy, where they have the dtype
    that was picked. Raises CheckpointError where tensors are missing.
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
    if config["cross_attention_dim"] is None:
        _take_out_cross_attention(model.diffusion_model)
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
    # The host's layers convert no parameter of another dtype when they run, unless it is dynamic.
    fitting = take_tensors and all(tensor.dtype == dtype for tensor in tensors.values())
    model.load_model_weights(tensors, assign=patcher.is_dynamic() or fitting)
    if patcher.is_dynamic():  # hooks of the host need a way to a patcher that is not
        patcher.cached_patcher_init = (
            _rebuild,
            (state_dict, config, prediction, latent_format, dtypes),
        )
    return patcher


class _NoCrossAttention(nn.Module):
    """Adds nothing where a block's cross-attention would be.

    The host's blocks have a way around cross-attention, too, but it adds self-attention twice.
    """

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        return torch.zeros_like(x)


def _take_out_cross_attention(unet: nn.Module) -> None:
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.attn2, module.norm2 = _NoCrossAttention(), nn.Identity()


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
    """The host's VAE from a tiny autoencoder of TAESD's layout.

    The demo's has fewer blocks than TAESD; those that it lacks are zeros in its file, and most of
    the work where they lie at the picture's size. They are passed by; the weights stay.
    """
    vae = comfy.sd.VAE(sd=dict(state_dict))
    for name, module in vae.first_stage_model.named_modules():
        if type(module) is comfy.taesd.taesd.Block and not any(
            state_dict[f"{name}.conv.{layer}.{part}"].any()
            for layer in (0, 2, 4)
            for part in ("weight", "bias")
        ):
            module.__class__ = _IdleBlock
    return vae


class _IdleBlock(comfy.taesd.taesd.Block):
    """TAESD's block where its branch is zero for every picture."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(x)


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


def unet_weights(
    model: comfy.model_patcher.ModelPatcher,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A MODEL's UNet in diffusers' layout: tensors on the CPU, and UNet2DConditionModel's keywords.

    The way back from `build_model`. LoRAs and other patches of weights are merged. Raises
    CheckpointError for a MODEL of another kind than Stable Diffusion's.
    """
    settings = getattr(model.get_model_object("model_config"), "unet_config", {})
    names = comfy.utils.unet_to_diffusers(settings)
    mm.load_models_gpu([model])
    tensors = model.model_state_dict_for_saving(
        model.get_model_object("diffusion_model"), "diffusion_model."
    )
    # `to` first: the host merges a patched weight at that moment.
    found = {theirs: tensors[host].to("cpu") for theirs, host in names.items() if host in tensors}
    if len(found) != len(tensors) or not found:
        raise CheckpointError(
            "The MODEL is no Stable Diffusion UNet, so it cannot be saved as FPDM's. Connect the "
            "MODEL that came out of the same loader as the FPDM."
        )
    return found, diffusers_settings(settings)


def diffusers_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of diffusers' UNet2DConditionModel for the host's: `unet_settings` backwards."""
    base, layers = settings["model_channels"], settings["num_res_blocks"][0]
    widths = [round(multiple * base) for multiple in settings["channel_mult"]]
    down = settings["transformer_depth"][::layers]
    up = settings["transformer_depth_output"][:: layers + 1]
    head_width = settings["num_head_channels"]
    return {
        "in_channels": settings["in_channels"],
        "out_channels": settings["out_channels"],
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in down],
        "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in up[::-1]],
        "layers_per_block": layers,
        # diffusers wants one for each level, also where nothing attends.
        "transformer_layers_per_block": [d or settings["transformer_depth_middle"] for d in down],
        "attention_head_dim": (
            settings["num_heads"] if head_width == -1 else [w // head_width for w in widths]
        ),
        "cross_attention_dim": settings["context_dim"],
        "use_linear_projection": settings["use_linear_in_transformer"],
    }


def vae_weights(vae: comfy.sd.VAE) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A VAE in diffusers' layout: tensors on the CPU, and AutoencoderKL's keywords.

    The way back from `build_vae`. Raises CheckpointError for a VAE of another kind than Stable
    Diffusion's.
    """
    from diffusers import AutoencoderKL  # takes seconds

    tensors = {name: tensor.to("cpu") for name, tensor in vae.get_sd().items()}
    first = [f"encoder.down.{i}.block.0.conv1.weight" for i in range(4)]
    if not {*first, "decoder.conv_in.weight", "quant_conv.weight"} <= tensors.keys():
        raise CheckpointError(
            "The VAE is not Stable Diffusion's kind of autoencoder. Connect Stable Diffusion's, or "
            "none: then the file has no autoencoder, and Load FPDM takes one beside it."
        )
    config = {
        "in_channels": tensors["encoder.conv_in.weight"].shape[1],
        "out_channels": tensors["decoder.conv_out.weight"].shape[0],
        "block_out_channels": [tensors[name].shape[0] for name in first],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": sum(
            f"encoder.down.0.block.{i}.conv1.weight" in tensors for i in (0, 1)
        ),
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
    }
    with torch.device("meta"):
        theirs = from_config(AutoencoderKL, config).state_dict()
    # The host renames the other way only, and keeps the order.
    names = zip(theirs, comfy.diffusers_convert.convert_vae_state_dict(theirs), strict=True)
    try:
        return {name: tensors[host].reshape(theirs[name].shape) for name, host in names}, config
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"The VAE differs from Stable Diffusion's autoencoder at {error}. Connect Stable "
            "Diffusion's, or none."
        ) from error


def preview_factors(vae: comfy.sd.VAE) -> Tensor:
    """The linear map from latents to RGB that the host draws live previews with.

    (channels + 1, 3), the last row is the bias. Fitted to how the VAE encodes 27 plain colours.
    """
    colours = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3)  # (27, 3)
    flat = colours[:, None, None].expand(-1, 64, 64, 3)
    latents = vae.encode(flat).cpu().float().mean((2, 3))  # (27, channels)
    with_bias = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    return torch.linalg.lstsq(with_bias, colours * 2 - 1).solution
