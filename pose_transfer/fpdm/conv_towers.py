# SPDX-License-Identifier: GPL-3.0-or-later
"""Convolutional stand-ins for FPDM's two image towers and its pose encoder.

DINOv2 and CLIP come out of hundreds of millions of pictures; a transformer of that kind learns
little from a few thousand. These towers have the interface that FPDM uses (`last_hidden_state`,
`image_embeds`, `config`, `device`, `dtype`) and learn on a CPU. The released pose encoder sees 47
pixels around a cell and leaves the rest to Stable Diffusion's UNet; a small UNet needs one that
knows the whole pose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KIND = "convolutional"


@dataclass(frozen=True)
class ConvSourceConfig:
    """`widths` of five levels, each half as large as the one before; `hidden_size` of tokens."""

    widths: tuple[int, ...]
    hidden_size: int


@dataclass(frozen=True)
class ConvImageConfig:
    """`widths` of the levels, each half as large as the one before; `projection_dim` of embeds;
    `cells`: rows times columns of the last level's map."""

    widths: tuple[int, ...]
    projection_dim: int
    cells: int


@dataclass(frozen=True)
class ConvPoseConfig:
    """`widths` and `hidden_size` as in `ConvSourceConfig`; `out_channels` of the features."""

    widths: tuple[int, ...]
    hidden_size: int
    out_channels: int


@dataclass
class TowerOutput:
    """What a tower returns, under the names that transformers uses."""

    last_hidden_state: Tensor | None = None
    image_embeds: Tensor | None = None


class Residual(nn.Module):
    """Two convolutions on a residual branch: (B, C, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(self.norm(x)))))


def _down(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)


class _Tower(nn.Module):
    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class ConvSourceTower(_Tower):
    """Pixels (B, 3, H, W) -> `last_hidden_state` (B, 1 + H/8 W/8, C): the picture, then its cells.

    H and W are multiples of 32. A cell's state knows its surroundings (a small U-Net) and the whole
    picture (the pooled state is added).
    """

    def __init__(self, config: ConvSourceConfig) -> None:
        super().__init__()
        self.config = config
        w1, w2, w3, w4, w5 = config.widths
        self.stem = nn.Sequential(_down(3, w1), nn.ReLU(), _down(w1, w2), Residual(w2))
        self.fine = nn.Sequential(_down(w2, w3), Residual(w3), Residual(w3))
        self.middle = nn.Sequential(_down(w3, w4), Residual(w4))
        self.coarse = nn.Sequential(_down(w4, w5), Residual(w5), Residual(w5))
        self.up_coarse = nn.Conv2d(w5, w4, 1)
        self.join_middle = Residual(w4)
        self.up_middle = nn.Conv2d(w4, w3, 1)
        self.spread = nn.Linear(w5, w3)
        self.join_fine = Residual(w3)
        self.cell = nn.Conv2d(w3, config.hidden_size, 1)
        self.whole = nn.Linear(w5, config.hidden_size)

    def forward(self, pixels: Tensor) -> TowerOutput:
        fine = self.fine(self.stem(pixels))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        whole = F.relu(coarse).mean((2, 3))
        middle = self.join_middle(middle + _double(self.up_coarse(coarse)))
        fine = fine + _double(self.up_middle(middle)) + self.spread(whole)[:, :, None, None]
        cells = self.cell(self.join_fine(fine)).flatten(2).mT  # (B, cells, C)
        return TowerOutput(last_hidden_state=torch.cat([self.whole(whole)[:, None], cells], dim=1))


class ConvImageTower(_Tower):
    """Pixels (B, 3, H, W) -> `image_embeds` (B, E)."""

    def __init__(self, config: ConvImageConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        width = 3
        for level, wider in enumerate(config.widths):
            layers.append(_down(width, wider))
            layers.append(Residual(wider) if level else nn.ReLU())
            width = wider
        self.features = nn.Sequential(*layers)
        # The last maps are small; keeping their places lets the embedding tell poses apart.
        self.squeeze = nn.Conv2d(width, 32, 1)
        self.projection = nn.Sequential(
            nn.Linear(32 * config.cells + width, config.projection_dim * 2), nn.ReLU(),
            nn.Linear(config.projection_dim * 2, config.projection_dim),
        )  # fmt: skip

    def forward(self, pixels: Tensor) -> TowerOutput:
        features = F.relu(self.features(pixels))
        flat = torch.cat([F.relu(self.squeeze(features)).flatten(1), features.mean((2, 3))], dim=1)
        return TowerOutput(image_embeds=self.projection(flat))


class ConvPoseEncoder(_Tower):
    """Drawn pose (B, 3, H, W) in [0, 1] -> features (B, C0, H/8, W/8), at first all zero.

    Takes the place of `PoseEncoder`; H and W are multiples of 8.
    """

    def __init__(self, config: ConvPoseConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = ConvSourceTower(ConvSourceConfig(config.widths, config.hidden_size))
        self.conv_out = nn.Conv2d(config.hidden_size, config.out_channels, 1)
        nn.init.zeros_(self.conv_out.weight)
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    def states(self, pose_map: Tensor) -> Tensor:
        """What the tower makes of each cell: (B, hidden_size, H/8, W/8)."""
        height, width = pose_map.shape[-2:]
        padded = F.pad(pose_map, (0, -width % 32, 0, -height % 32))
        cells = self.tower(padded).last_hidden_state[:, 1:]
        grid = cells.mT.unflatten(-1, (padded.shape[-2] // 8, padded.shape[-1] // 8))
        return grid[..., : height // 8, : width // 8]

    def forward(self, pose_map: Tensor) -> Tensor:
        return self.conv_out(self.states(pose_map))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def describe(tower: ConvSourceTower | ConvImageTower | ConvPoseEncoder) -> dict[str, Any]:
    """The description that `build_*` needs to build the same tower."""
    return {"kind": KIND, **asdict(tower.config)}


def build_source_tower(config: Mapping[str, Any]) -> ConvSourceTower:
    """A source tower with random weights from its description."""
    return ConvSourceTower(ConvSourceConfig(tuple(config["widths"]), config["hidden_size"])).eval()


def build_pose_encoder(config: Mapping[str, Any]) -> ConvPoseEncoder:
    """A pose encoder with random weights from its description."""
    return ConvPoseEncoder(
        ConvPoseConfig(tuple(config["widths"]), config["hidden_size"], config["out_channels"])
    ).eval()


def build_image_tower(config: Mapping[str, Any]) -> ConvImageTower:
    """An image tower with random weights from its description."""
    return ConvImageTower(
        ConvImageConfig(tuple(config["widths"]), config["projection_dim"], config["cells"])
    ).eval()
