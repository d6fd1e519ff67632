# SPDX-License-Identifier: GPL-3.0-or-later
"""What the unit tests of FPDM share: the released code's numbers and small random models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from pose_transfer.fpdm import (
    FPDM,
    ClassEmbedding,
    Combiner,
    FPDMPreprocess,
    PoseEncoder,
    SourceProjection,
    load_checkpoint,
)
from pose_transfer.fpdm.towers import build_image_tower, build_source_tower

DATA = Path(__file__).parent.parent / "data" / "fpdm"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors are slower on many threads, and the numbers stay the same on every machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fpdm_data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    return json.loads((DATA / "reference.json").read_text())


@pytest.fixture(scope="session")
def reference_io() -> dict[str, Tensor]:
    """Inputs and outputs of the released code, in float32 where they are floats."""
    tensors = load_file(DATA / "io.safetensors")
    return {k: x.float() if x.dtype == torch.float16 else x for k, x in tensors.items()}


@pytest.fixture(scope="session")
def released(reference: dict[str, Any]) -> FPDM:
    """The released code's tiny model, read from its own layout. Tests must leave it unchanged."""
    heads = {
        part: {"num_attention_heads": reference[part]["num_attention_heads"]}
        for part in ("source_tower", "image_tower")
    }
    return load_checkpoint(DATA / "tiny.safetensors", config=heads).requires_grad_(False)


@pytest.fixture
def small_unet() -> UNet2DConditionModel:
    """A random Stable Diffusion UNet without class embedding."""
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=(1, 2),  # pyright: ignore[reportArgumentType]  diffusers: tuple[int]
        norm_num_groups=4,
        use_linear_projection=True,
    ).eval()


@pytest.fixture
def make_fpdm(small_unet: UNet2DConditionModel) -> Callable[..., FPDM]:
    """`make_fpdm(unet=...)`: a random FPDM with towers; any part can be given, also as None."""

    def make(**parts: nn.Module | None) -> FPDM:
        torch.manual_seed(2)
        every_part: dict[str, Any] = {
            "source_projection": SourceProjection(24, 20, 12),
            "pose_encoder": PoseEncoder(8, (4, 8, 8, 8)),
            "class_embedding": ClassEmbedding(10, 14, 32),
            "combiner": Combiner(10, 6, 7),
            "unet": small_unet,
            "image_tower": build_image_tower(
                {
                    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
                    "projection_dim": 10, "hidden_act": "quick_gelu",
                }
            ),
            "source_tower": build_source_tower(
                {
                    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3,
                    "mlp_ratio": 2, "image_size": 48, "patch_size": 16,
                }
            ),
        }  # fmt: skip
        fpdm = FPDM(
            **{**every_part, **parts},
            preprocess=FPDMPreprocess(source_size=(64, 48), embed_size=(32, 32)),
        )
        # The encoder starts at zero; tests need a pose that has an effect.
        nn.init.normal_(fpdm.pose_encoder.conv_out.weight)
        return fpdm.eval()

    return make
