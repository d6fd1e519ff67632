# SPDX-License-Identifier: GPL-3.0-or-later
"""A UNet's attention blocks under both of their names, and how strongly each looks at the picture.

diffusers, the papers and adapter files count down, up and middle blocks and the attentions within;
the host counts input, output and middle blocks. Both stand here side by side, nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PoseTransferError
from .lora_blocks import INJECTION, injection_block, preset_weights


@dataclass(frozen=True)
class AttentionBlock:
    """One transformer block: a self-attention, a cross-attention and a feed-forward part.

    `name` is the attention it belongs to in diffusers' words, such as "up_blocks.0.attentions.1";
    `index` its place therein; `host` where the host's `transformer_options["block"]` says that it
    is, such as ("output", 1).
    """

    name: str
    index: int
    host: tuple[str, int]

    @property
    def diffusers_module(self) -> str:
        """Its path in diffusers' UNet."""
        return f"{self.name}.transformer_blocks.{self.index}"

    @property
    def host_module(self) -> str:
        """Its path in the host's UNet."""
        side, number = self.host
        place = "middle_block.1" if side == "middle" else f"{side}_blocks.{number}.1"
        return f"{place}.transformer_blocks.{self.index}"


def attention_blocks(unet_config: Mapping[str, Any]) -> tuple[AttentionBlock, ...]:
    """All blocks of a UNet in diffusers' order (down, up, middle): the one adapter files count in.

    `unet_config` holds the host's keywords of its UNet. Raises PoseTransferError for a model that
    is no Stable Diffusion UNet.
    """
    try:
        residuals = list(unet_config["num_res_blocks"])
        down_depths = list(unet_config["transformer_depth"])
        up_depths = list(unet_config["transformer_depth_output"])
        middle_depth = int(unet_config["transformer_depth_middle"])
    except (KeyError, TypeError) as error:
        raise PoseTransferError(
            "The MODEL has no blocks that can be told apart: it is not a Stable Diffusion UNet. "
            "Connect a model of Stable Diffusion 1.5, 2 or XL."
        ) from error
    blocks: list[AttentionBlock] = []

    def add(name: str, host: tuple[str, int], depth: int) -> None:
        blocks.extend(AttentionBlock(name, index, host) for index in range(depth))

    number = 1  # input block 0 is the first convolution
    for level, count in enumerate(residuals):
        for i in range(count):
            add(f"down_blocks.{level}.attentions.{i}", ("input", number), down_depths.pop(0))
            number += 1
        number += 1  # the downsampling convolution
    number = 0
    for level, count in enumerate(reversed(residuals)):
        for i in range(count + 1):
            # The host lists the output's depths from the full size to the smallest.
            add(f"up_blocks.{level}.attentions.{i}", ("output", number), up_depths.pop())
            number += 1
    add("mid_block.attentions.0", ("middle", 0), middle_depth)
    return tuple(blocks)


def names(blocks: Sequence[AttentionBlock]) -> tuple[str, ...]:
    """The attentions' names, each once."""
    return tuple(dict.fromkeys(block.name for block in blocks))


def image_weights(preset: str, table: str, blocks: Sequence[AttentionBlock]) -> dict[str, float]:
    """How strongly each attention, by name, looks at the image tokens.

    Style injection is OnePoseTrans's: 1.0 in `up_blocks.0.attentions.1` and 0.4 in
    `up_blocks.0.attentions.0` of SDXL, 0 elsewhere; by the same rule in `up_blocks.1` of Stable
    Diffusion 1.5, whose up block 0 has no attention. A table's lines are as for LoRAs
    (`up_blocks.0.attentions.1 = 1.0`), 0 where no line fits. Raises PoseTransferError for a line
    that cannot be read or fits no block.
    """
    known = names(blocks)
    if preset != INJECTION:
        return preset_weights(preset, table, known)
    strongest = injection_block(known)
    neighbour = f"{strongest.rpartition('.')[0]}.0"
    return {**dict.fromkeys(known, 0.0), strongest: 1.0, neighbour: 0.4}
