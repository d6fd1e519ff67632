# SPDX-License-Identifier: GPL-3.0-or-later
"""Attention to the source's regions as a picture and in words."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from ..pose_transfer.images import from_uint8
from ..pose_transfer.truepose import REGIONS
from .previews import INK, PAPER, Picture, chosen, grid, text_size, titled

_TITLE_PX = 24
_TITLE_LETTERS = 22  # of the longest


def sheet(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (B, R, h, w) in [0, 1] -> one picture (1, rows, columns, 3), a tile for each region.

    Each map is shown in shades of its own highest value, which its title names; regions that get
    no attention at all are left out.
    """
    seen, levels = _levels(maps, height, width)
    grey = np.concatenate([np.concatenate(list(row), axis=1) for row in levels])
    picture = Image.new("RGB", (grey.shape[1], grey.shape[0] + _TITLE_PX), PAPER)
    picture.paste(Image.fromarray(grey), (0, _TITLE_PX))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for tile, region in enumerate(seen):
        draw.text((tile * width + 4, 3), _title(maps, region), fill=INK, font=font)
    return from_uint8(np.asarray(picture)[None])


def sheets_by_picture(maps: Tensor, height: int, width: int) -> list[Picture]:
    """The tiles of `sheet` in rows that suit a node, (H', W', 3) uint8 for each chosen picture."""
    seen, levels = _levels(maps, height, width)
    text_px = text_size(width, _TITLE_LETTERS)
    return [
        grid(
            [
                titled(np.repeat(tile[..., None], 3, axis=2), _title(maps, region), text_px)
                for tile, region in zip(levels[number], seen, strict=True)
            ]
        )
        for number in chosen(len(levels))
    ]


def _levels(maps: Tensor, height: int, width: int) -> tuple[list[int], NDArray[np.uint8]]:
    """The regions that get attention, and their maps (B, R', height, width) as shades of grey."""
    seen = [r for r in range(len(REGIONS)) if float(maps[:, r].max()) > 0] or [0]
    tiles = interpolate(maps[:, seen], (height, width), mode="bilinear")
    highest = tiles.amax((0, 2, 3), keepdim=True).clamp_min(1e-6)
    return seen, (tiles / highest * 255).round().byte().numpy()


def _title(maps: Tensor, region: int) -> str:
    return f"{REGIONS[region]} max {float(maps[:, region].max()):.0%}"


def shares(maps: Tensor) -> str:
    """Share of the attention of all of the picture's tokens that falls on each region."""
    of_source = maps.mean((0, 2, 3))
    lines = [
        f"{name} {float(share):.1%}"
        for name, share in zip(REGIONS, of_source, strict=True)
        if share > 0
    ]
    return f"source {float(torch.sum(of_source)):.1%}: " + ", ".join(lines)
