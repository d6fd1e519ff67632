# SPDX-License-Identifier: GPL-3.0-or-later
"""Stable Diffusion 1.5, 2.1, XL and 3 at tiny size, as the host's own classes load them.

The UNets come with diffusers' twin of the same weights. Runs in a process of the host.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import torch
from diffusers import UNet2DConditionModel
from pose_transfer_pack.nodes import stock_models
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from autoencoders import build_autoencoder
from in_host_unets import SDXL_ADDED, build_host_unet

CONTEXT = 32
_UNET = {
    "sample_size": 8,
    "layers_per_block": 1,
    "cross_attention_dim": CONTEXT,
    "norm_num_groups": 32,
}
_SDXL = {
    **_UNET,
    "block_out_channels": (64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 2),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": SDXL_ADDED,
}
_SD21 = {
    **_UNET,
    "block_out_channels": (64, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": (1, 1),
    "use_linear_projection": True,
}
_SD15 = {**_SD21, "attention_head_dim": 8, "use_linear_projection": False}


class _SD21Velocity(comfy.supported_models.SD20):
    def model_type(self, state_dict: Any, prefix: str = "") -> comfy.model_base.ModelType:
        return comfy.model_base.ModelType.V_PREDICTION


_KINDS = {
    "sd15": (_SD15, comfy.supported_models.SD15),
    "sd21": (_SD21, _SD21Velocity),
    "sdxl": (_SDXL, comfy.supported_models.SDXL),
}


@dataclass(frozen=True)
class Tiny:
    """MODEL and VAE, what conditions it, and diffusers' twin where there is one."""

    model: Any
    vae: Any
    twin: UNet2DConditionModel | None

    @property
    def conditioning(self) -> list[Any]:
        generator = torch.Generator().manual_seed(7)
        tokens = torch.randn(1, 7, CONTEXT, generator=generator)
        width = 16 if self.twin is None else 1280
        return [[tokens, {"pooled_output": torch.randn(1, width, generator=generator)}]]


def tiny_unet(kind: str) -> Tiny:
    """`kind`: sd15, sd21 (v-prediction) or sdxl."""
    config, family = _KINDS[kind]
    torch.manual_seed(0)
    twin = UNet2DConditionModel(**config).eval()
    model = build_host_unet(family, twin.state_dict(), twin.config, torch.float32)
    return Tiny(_patcher(model), tiny_vae(4), twin)


def tiny_sd3() -> Tiny:
    """A diffusion transformer with flow matching: Stable Diffusion 3's, two blocks deep."""
    settings = {
        "in_channels": 16, "out_channels": 16, "depth": 2, "patch_size": 2, "input_size": None,
        "num_patches": 256, "pos_embed_max_size": 16, "pos_embed_scaling_factor": None,
        "adm_in_channels": 16, "qk_norm": "rms",
        "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": CONTEXT, "out_features": 128},
        },
    }  # fmt: skip
    model = comfy.supported_models.SD3(settings).get_model({})
    generator = torch.Generator().manual_seed(0)
    for weight in [*model.diffusion_model.parameters(), *model.diffusion_model.buffers()]:
        weight.detach().copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    return Tiny(_patcher(model), tiny_vae(16), None)


def tiny_vae(channels: int) -> Any:
    torch.manual_seed(1)
    vae = build_autoencoder(32, 64, 32, 32, latent_channels=channels, scaling_factor=0.5).eval()
    return stock_models.build_vae(vae.state_dict(), vae.config)


def _patcher(model: Any) -> Any:
    cpu: Any = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=cpu, offload_device=cpu)


def predict(model: Any, x: Tensor, timestep: Tensor, conditioning: list[Any]) -> Tensor:
    """What the network itself puts out for x as it sees it, with the MODEL's patches."""
    ((tokens, settings),) = conditioning
    extra = {}
    inner = model.patch_model()
    try:
        conds = inner.extra_conds(
            cross_attn=tokens, noise=x, device=x.device, width=64, height=64, **settings
        )
        extra = {"y": conds["y"].cond} if "y" in conds else {}
        return inner.diffusion_model(x, timestep, context=tokens, **extra)
    finally:
        model.unpatch_model()
