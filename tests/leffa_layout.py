# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny random pair with the names and shapes of Leffa's pose transfer checkpoint.

Made of diffusers' own classes: Stable Diffusion 1.5's layout without cross-attention, the
generative net with 12 input channels, the reference net with 4, and an autoencoder of four levels.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tests.autoencoders import build_autoencoder

WIDTHS = (32, 64, 64, 64)


def _unet(channels: int) -> dict[str, Tensor]:
    unet = UNet2DConditionModel(
        in_channels=channels,
        block_out_channels=WIDTHS,
        layers_per_block=2,
        cross_attention_dim=8,
        attention_head_dim=8,
    )
    removed = (".attn2.", ".norm2.")
    return {
        name: tensor
        for name, tensor in unet.state_dict().items()
        # Residual blocks have a norm2, too.
        if not (".transformer_blocks." in name and any(part in name for part in removed))
    }


def leffa_tensors() -> dict[str, Tensor]:
    """Names as in the released file, in float32."""
    torch.manual_seed(0)
    vae = build_autoencoder(32, 32, 32, 32, layers_per_block=1, latent_channels=4)
    parts = {"unet": _unet(12), "unet_encoder": _unet(4), "vae": vae.state_dict()}
    return {f"{part}.{name}": x for part, named in parts.items() for name, x in named.items()}
