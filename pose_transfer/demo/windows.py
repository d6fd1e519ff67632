# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows: upright pieces of a picture, resized to what a network looks at.

A window may reach over the picture's edge; what lies outside is medium grey, which is zero to the
networks and what they saw there in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..types import Box

_GREY = 128


@dataclass(frozen=True)
class Window:
    """`rows` x `columns` cells that begin at (`left`, `top`) px; `scale` cells per pixel."""

    left: float
    top: float
    scale: float
    rows: int
    columns: int

    @classmethod
    def around(cls, box: Box, rows: int, columns: int, margin: float, snap: float = 1.0) -> Window:
        """The window that shows `box` in its middle, `margin` times larger than need be.

        Where the scale is 1 but for a factor of `snap`, pixels are taken as they are.
        """
        scale = 1.0 / (margin * max(box.width / columns, box.height / rows))
        exact = 1.0 / snap <= scale <= snap
        if exact:
            scale = 1.0
        left = box.x + box.width / 2 - columns / (2 * scale)
        top = box.y + box.height / 2 - rows / (2 * scale)
        if exact:
            left, top = float(round(left)), float(round(top))
        return cls(left, top, scale, rows, columns)

    def cut(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the window shows of (H, W, 3): (rows, columns, 3) uint8."""
        height, width = picture.shape[:2]
        wide, high = self.columns / self.scale, self.rows / self.scale
        x0, y0 = math.floor(self.left), math.floor(self.top)
        x1, y1 = math.ceil(self.left + wide), math.ceil(self.top + high)
        region = np.full((y1 - y0, x1 - x0, 3), _GREY, np.uint8)
        inner_x = slice(min(max(x0, 0), width), max(min(x1, width), 0))
        inner_y = slice(min(max(y0, 0), height), max(min(y1, height), 0))
        part = picture[inner_y, inner_x]
        row, column = inner_y.start - y0, inner_x.start - x0
        region[row : row + part.shape[0], column : column + part.shape[1]] = part
        if self.scale == 1.0 and region.shape == (self.rows, self.columns, 3):
            return region
        box = (self.left - x0, self.top - y0, self.left - x0 + wide, self.top - y0 + high)
        resized = Image.fromarray(region).resize(
            (self.columns, self.rows), Image.Resampling.BILINEAR, box=box
        )
        return np.asarray(resized)

    def to_picture(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Places (..., 2) as x, y in cells -> px of the picture."""
        offset = np.array([self.left, self.top], np.float32)
        return points / np.float32(self.scale) + offset

    def pixels(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a picture whose pixel centres the window covers."""
        rows = [self.top - 0.5, self.top + self.rows / self.scale - 0.5]
        columns = [self.left - 0.5, self.left + self.columns / self.scale - 0.5]
        top, bottom = (min(max(math.ceil(y), 0), height) for y in rows)
        left, right = (min(max(math.ceil(x), 0), width) for x in columns)
        return slice(top, bottom), slice(left, right)

    def on_pixels(self, maps: Tensor, rows: slice, columns: slice) -> Tensor:
        """Maps (C, rows, columns) of the window, bilinearly, at pixels: (C, h, w)."""
        if self.scale == 1.0 and self.left == int(self.left) and self.top == int(self.top):
            top, left = rows.start - int(self.top), columns.start - int(self.left)
            return maps[
                :, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start
            ]
        y = (torch.arange(rows.start, rows.stop) + 0.5 - self.top) * self.scale
        x = (torch.arange(columns.start, columns.stop) + 0.5 - self.left) * self.scale
        grid = torch.stack(
            torch.broadcast_tensors(x * (2 / self.columns) - 1, (y * (2 / self.rows) - 1)[:, None]),
            dim=-1,
        )
        grid = grid[None].to(maps)
        return F.grid_sample(maps[None], grid, padding_mode="border", align_corners=False)[0]


def as_pixels(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [0, 1]."""
    tensor = torch.from_numpy(np.array(pictures))
    return tensor.permute(0, 3, 1, 2).float().div(255)  # BHWC -> BCHW
