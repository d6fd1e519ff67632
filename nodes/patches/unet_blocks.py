# SPDX-License-Identifier: GPL-3.0-or-later
"""The transformer blocks of the host's UNet, by the names that its patches know them by."""

from __future__ import annotations

from collections.abc import Iterator

from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher

from ...pose_transfer.errors import PoseTransferError
from ..sockets import Block


def require_unet(model: ModelPatcher) -> UNetModel:
    """The MODEL's UNet. Raises PoseTransferError where it has none."""
    unet = model.get_model_object("diffusion_model")
    if not isinstance(unet, UNetModel):
        raise PoseTransferError(
            f"The MODEL is a {type(unet).__name__}; TruePose guides the attention of Stable "
            "Diffusion 1.5, 2.1 and XL. Connect a MODEL of one of these."
        )
    return unet


def transformer_blocks(unet: UNetModel) -> Iterator[tuple[Block, BasicTransformerBlock]]:
    """Every transformer block of a UNet under the name that patches know it by."""
    stages = [
        *((("input", i), stage) for i, stage in enumerate(unet.input_blocks)),
        (("middle", 0), unet.middle_block),
        *((("output", i), stage) for i, stage in enumerate(unet.output_blocks)),
    ]
    for (side, number), stage in stages:
        for layer in stage or ():
            if isinstance(layer, SpatialTransformer):
                for index, block in enumerate(layer.transformer_blocks):
                    yield (side, number, index), block
