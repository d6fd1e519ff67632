# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes of the embedded demo models: Stable Diffusion's and FPDM's layouts, made small.

Every table holds keyword arguments of the class that it names, so that the trainer, the host
adapter and the checkpoint metadata speak of one and the same thing.
"""

from __future__ import annotations

from typing import Any

IMAGE_SIZE = (256, 192)
"""Height and width of a mannequin picture, pixels."""
LATENT_FACTOR = 8
CONTEXT_WIDTH = 128
EMBED_WIDTH = 128

# diffusers.UNet2DConditionModel; `attention_head_dim` counts the heads, as in SD 2.1's config.
UNET: dict[str, Any] = {
    "sample_size": 32,
    # Four latent channels keep garment patterns only after far more training than eight.
    "in_channels": 8,
    "out_channels": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3,
    # The last level has no attention: it costs a third of the time there and adds little.
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [64, 96, 128],
    "layers_per_block": 1,
    "cross_attention_dim": CONTEXT_WIDTH,
    "attention_head_dim": [2, 3, 4],
    "use_linear_projection": True,
}

# transformers.CLIPTextConfig, behind the stock CLIP tokenizer.
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": CONTEXT_WIDTH,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": CONTEXT_WIDTH,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}

# fpdm.conv_towers.ConvSourceConfig: the frozen tower that gives the source tokens.
SOURCE_TOWER: dict[str, Any] = {"widths": (16, 32, 64, 96, 128), "hidden_size": 96}

# fpdm.conv_towers.ConvImageConfig: the tower shared by image and pose in the fusion model.
IMAGE_TOWER: dict[str, Any] = {
    "widths": (16, 32, 64, 96),
    "projection_dim": EMBED_WIDTH,
    "cells": 48,
}
EMBED_SIZE = (128, 96)
"""Height and width of the image tower's input, pixels."""

COMBINER: dict[str, int] = {"embed_dim": EMBED_WIDTH, "projection_dim": 192, "hidden_dim": 256}
SOURCE_PROJECTION: dict[str, int] = {"in": 96, "hidden": 192, "out": CONTEXT_WIDTH}
CLASS_EMBEDDING: dict[str, int] = {"in": EMBED_WIDTH, "hidden": 192, "out": 256}
# fpdm.conv_towers.ConvPoseConfig: taught like the source tower, then frozen but for its last layer.
POSE_ENCODER: dict[str, Any] = {
    "widths": (16, 32, 64, 96, 128),
    "hidden_size": 64,
    "out_channels": UNET["block_out_channels"][0],
}

# fpdm.transport.TransportConfig: colours carried by the places that both towers know.
TRANSPORT: dict[str, Any] = {
    "source_width": SOURCE_TOWER["hidden_size"],
    "pose_width": POSE_ENCODER["hidden_size"],
    "hidden": 128,
    "out_channels": UNET["block_out_channels"][0],
    "sharpness": 0.01,
}

SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
}

# person_net.PersonNetConfig: the demo's detector and parser.
PERSON_NET: dict[str, Any] = {"widths": (16, 32, 64, 96, 128), "labels": 8, "joints": 18}

# face_net.FaceNetConfig: the demo's face encoder. As wide as ArcFace's embedding, so that what is
# built upon the one fits the other.
FACE_NET: dict[str, Any] = {"widths": (24, 48, 96, 160), "embedding": 512}
FACE_SIZE = 64
"""Height and width of the face encoder's input, pixels."""
