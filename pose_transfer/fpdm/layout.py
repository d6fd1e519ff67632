# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file without a description says about its networks: the shapes of its tensors.

The released checkpoints carry no configuration. What a shape cannot tell (head widths,
activations, epsilons) is that of the models they were made from: Stable Diffusion 2.1, OpenAI's
CLIP, DINOv2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .towers import POSITION_OFFSET

HEAD_WIDTH = 64
RELEASED_POSITION_OFFSET = 0.1

Tensors = Mapping[str, Tensor]


def guess_unet(tensors: Tensors) -> dict[str, Any]:
    """Arguments of diffusers' `UNet2DConditionModel` for a Stable Diffusion UNet's tensors.

    Heads: channels / min(64, first width), so heads are 64 wide as in SD 2.1, or one head at the
    first level of a narrower model.
    """
    levels = _count(tensors, r"down_blocks\.(\d+)\.")
    widths = [tensors[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)]
    head_width = min(HEAD_WIDTH, widths[0])
    attends = [f"down_blocks.{i}.attentions.0.norm.weight" in tensors for i in range(levels)]
    first = f"down_blocks.{attends.index(True)}.attentions.0"
    return {
        "in_channels": tensors["conv_in.weight"].shape[1],
        "out_channels": tensors["conv_out.weight"].shape[0],
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
        "layers_per_block": _count(tensors, r"down_blocks\.0\.resnets\.(\d+)\."),
        "transformer_layers_per_block": _count(
            tensors, re.escape(first) + r"\.transformer_blocks\.(\d+)\."
        ),
        "attention_head_dim": [width // head_width for width in widths],
        "cross_attention_dim": tensors[f"{first}.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "use_linear_projection": tensors[f"{first}.proj_in.weight"].dim() == 2,
    }


def guess_image_tower(tensors: Tensors) -> dict[str, Any]:
    """Arguments of `towers.build_image_tower` for a CLIP vision tower's tensors."""
    patches = tensors["vision_model.embeddings.patch_embedding.weight"]
    positions = tensors["vision_model.embeddings.position_embedding.weight"]
    hidden, patch = patches.shape[0], patches.shape[-1]
    return {
        "hidden_size": hidden,
        "intermediate_size": tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _count(tensors, r"vision_model\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": max(1, hidden // HEAD_WIDTH),
        "image_size": round((len(positions) - 1) ** 0.5) * patch,
        "patch_size": patch,
        "projection_dim": tensors["visual_projection.weight"].shape[0],
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }


def guess_source_tower(tensors: Tensors) -> dict[str, Any]:
    """Arguments of `towers.build_source_tower` for a DINOv2's tensors."""
    patches = tensors["embeddings.patch_embeddings.projection.weight"]
    hidden, patch = patches.shape[0], patches.shape[-1]
    gated = "encoder.layer.0.mlp.weights_in.weight" in tensors
    config: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": _count(tensors, r"encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, hidden // HEAD_WIDTH),
        "image_size": round((tensors["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
        * patch,
        "patch_size": patch,
        "use_mask_token": "embeddings.mask_token" in tensors,
        "use_swiglu_ffn": gated,
        POSITION_OFFSET: RELEASED_POSITION_OFFSET,
    }
    if not gated:
        config["mlp_ratio"] = tensors["encoder.layer.0.mlp.fc1.weight"].shape[0] // hidden
    return config


def guess_vae(tensors: Tensors) -> dict[str, Any]:
    """Arguments of diffusers' `AutoencoderKL` for a Stable Diffusion autoencoder's tensors."""
    levels = _count(tensors, r"encoder\.down_blocks\.(\d+)\.")
    return {
        "in_channels": tensors["encoder.conv_in.weight"].shape[1],
        "out_channels": tensors["decoder.conv_out.weight"].shape[0],
        "block_out_channels": [
            tensors[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"].shape[0]
            for i in range(levels)
        ],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(tensors, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
    }


def two_layer_sizes(tensors: Tensors) -> tuple[int, int, int]:
    """Input, hidden and output width of a `SourceProjection` or `ClassEmbedding`."""
    weights = [x for _, x in sorted(tensors.items()) if x.dim() == 2]
    if len(weights) != 2:
        raise ValueError(f"expected two linear layers, got {sorted(tensors)}")
    return weights[0].shape[1], weights[0].shape[0], weights[1].shape[0]


def pose_encoder_sizes(tensors: Tensors) -> tuple[int, list[int]]:
    """Output channels and block channels of a `PoseEncoder`."""
    blocks = _count(tensors, r"blocks\.(\d+)\.")
    widths = [tensors[f"blocks.{i}.weight"].shape[0] for i in range(1, blocks, 2)]
    return tensors["conv_out.weight"].shape[0], [tensors["conv_in.weight"].shape[0], *widths]


def combiner_sizes(tensors: Tensors) -> tuple[int, int, int]:
    """Embedding, projection and hidden width of a `Combiner`."""
    projection, embed = tensors["image_projection_layer.weight"].shape
    return embed, projection, tensors["combiner_layer.weight"].shape[0]


def _count(tensors: Tensors, pattern: str) -> int:
    """How many different numbers stand where `pattern` has its group, at a name's beginning."""
    matches = (re.match(pattern, name) for name in tensors)
    return len({match[1] for match in matches if match})
