# SPDX-License-Identifier: GPL-3.0-or-later
"""What a sampling run leaves behind for Attention Maps."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate


class AttentionRecord:
    """ATTENTION_RECORD: how much attention fell on each region of the source, and where.

    Filled while sampling, from the start of each run anew; the one payload that is not frozen.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._sum: torch.Tensor | None = None
        self._count = 0

    def add(self, mass: torch.Tensor, shape: tuple[int, int]) -> None:
        """mass (B, N, R) of one block and step, N tokens in `shape` rows and columns."""
        maps = mass.mT.unflatten(-1, shape).float().cpu()  # (B, R, h, w)
        before = torch.zeros_like(maps) if self._sum is None else self._sum
        self._sum = before + interpolate(maps, before.shape[-2:])
        self._count += 1

    def maps(self) -> torch.Tensor | None:
        """Means over blocks and steps, (B, R, h, w) in [0, 1]; None before any sampling."""
        return None if self._sum is None else self._sum / self._count
