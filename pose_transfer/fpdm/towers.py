# SPDX-License-Identifier: GPL-3.0-or-later
"""The two image encoders, built from plain numbers, under stable parameter names.

`transformers` renames parameters between its releases. Files keep the names of release 4, which
are those of the released checkpoints; this module translates to what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

from . import conv_towers

ImageTower = CLIPVisionModelWithProjection | conv_towers.ConvImageTower
SourceTower = Dinov2Model | conv_towers.ConvSourceTower

# What decides the shapes and the arithmetic of a tower; the rest of a config is bookkeeping.
IMAGE_TOWER_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
    "patch_size", "projection_dim", "hidden_act", "layer_norm_eps",
)  # fmt: skip
SOURCE_TOWER_KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "image_size",
    "patch_size", "hidden_act", "layer_norm_eps", "qkv_bias", "use_swiglu_ffn", "use_mask_token",
)  # fmt: skip
POSITION_OFFSET = "position_offset"
"""A key of ours in a source tower's description, see `OffsetEmbeddings`."""

_NAMES_IN_FILE = {
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
}


class OffsetEmbeddings(Dinov2Embeddings):
    """DINOv2's input embeddings with the position grid stretched as earlier `transformers` did.

    Up to 4.40, which the released FPDM was trained with, the table was resized by the factor
    `(cells + 0.1) / native cells` instead of to `cells`, which shifts every position a little.
    """

    def __init__(self, config: Dinov2Config, offset: float) -> None:
        super().__init__(config)
        self.offset = offset

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """Position table for `height` x `width` pixels: (1, 1 + cells, C), class token first."""
        table = self.position_embeddings
        native = round((table.shape[1] - 1) ** 0.5)
        patch = cast(int, self.config.patch_size)  # a pair of sides for other models only
        rows, columns = height // patch, width // patch
        if (rows, columns) == (native, native):
            return table
        grid = table[:, 1:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(
            grid.float(),
            scale_factor=((rows + self.offset) / native, (columns + self.offset) / native),
            mode="bicubic",
        )
        return torch.cat([table[:, :1], grid.flatten(2).mT.to(table.dtype)], dim=1)


def build_image_tower(config: Mapping[str, Any]) -> ImageTower:
    """CLIP vision tower with projection, random weights; `config`: see IMAGE_TOWER_KEYS.

    A description of kind `conv_towers.KIND` gives that tower instead.
    """
    if config.get("kind") == conv_towers.KIND:
        return conv_towers.build_image_tower(config)
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).eval()
    embeddings = tower.vision_model.embeddings
    # No file holds this buffer, so it must be real even where the tower is built on meta.
    numbers = torch.arange(embeddings.num_positions, device="cpu").unsqueeze(0)
    embeddings.register_buffer("position_ids", numbers, persistent=False)
    return tower


def build_source_tower(config: Mapping[str, Any]) -> SourceTower:
    """DINOv2, random weights; `config`: see SOURCE_TOWER_KEYS and POSITION_OFFSET.

    A description of kind `conv_towers.KIND` gives that tower instead.
    """
    if config.get("kind") == conv_towers.KIND:
        return conv_towers.build_source_tower(config)
    described = Dinov2Config(**{k: v for k, v in config.items() if k != POSITION_OFFSET})
    tower = Dinov2Model(described)
    if config.get(POSITION_OFFSET):
        tower.embeddings = OffsetEmbeddings(described, config[POSITION_OFFSET])
    return tower.eval()


def describe_image_tower(tower: ImageTower) -> dict[str, Any]:
    """The numbers that `build_image_tower` needs to build the same tower."""
    if isinstance(tower, conv_towers.ConvImageTower):
        return conv_towers.describe(tower)
    return {key: getattr(tower.config, key) for key in IMAGE_TOWER_KEYS}


def describe_source_tower(tower: SourceTower) -> dict[str, Any]:
    """The numbers that `build_source_tower` needs to build the same tower."""
    if isinstance(tower, conv_towers.ConvSourceTower):
        return conv_towers.describe(tower)
    description = {key: getattr(tower.config, key) for key in SOURCE_TOWER_KEYS}
    if isinstance(tower.embeddings, OffsetEmbeddings):
        description[POSITION_OFFSET] = tower.embeddings.offset
    return description


def to_file_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of the installed source tower under the names that files use."""
    return {_renamed(name, _NAMES_IN_FILE): x for name, x in tensors.items()}


def to_installed_names(tensors: Mapping[str, Tensor], tower: nn.Module) -> dict[str, Tensor]:
    """Parameters from a file under the names of the installed source tower."""
    known = set(tower.state_dict())
    installed = {filed: name for name, filed in _NAMES_IN_FILE.items()}
    return {name if name in known else _renamed(name, installed): x for name, x in tensors.items()}


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if old in name:
            return name.replace(old, new)
    return name
