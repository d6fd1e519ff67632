# SPDX-License-Identifier: GPL-3.0-or-later
"""How a tuning went as one picture: the previews by their steps, and the curve of the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..pose_transfer.images import to_uint8
from ..pose_transfer.oneposetrans.cache import TunedLoRA
from .previews import chosen, grid, text_size, titled

_CURVE_HEIGHT = 0.4  # of its width
_NARROWEST = 256  # px
_TITLE_LETTERS = 22


def tuning_sheet(tuned: TunedLoRA, preview_every: int) -> NDArray[np.uint8]:
    """The previews, each under its step, above the smoothed loss: a picture (H, W, 3) uint8."""
    from ..pose_transfer.oneposetrans.preview import draw_loss, smoothed

    previews = to_uint8(tuned.previews)
    steps = preview_steps(len(tuned.loss), preview_every, len(previews))
    text_px = text_size(previews.shape[2], _TITLE_LETTERS)
    tiles = [titled(previews[i], f"step {steps[i]}", text_px) for i in chosen(len(previews))]
    pictures = grid(tiles)
    width = max(pictures.shape[1], _NARROWEST)
    smooth = smoothed(tuned.loss)
    curve = np.asarray(draw_loss(tuned.loss, len(smooth), width, round(width * _CURVE_HEIGHT)))
    title = f"loss {smooth[0]:.3g} -> {smooth[-1]:.3g} in {len(smooth)} steps"
    below = titled(curve, title, text_px)
    margin = [(0, 0), (0, width - pictures.shape[1]), (0, 0)]
    return np.concatenate([np.pad(pictures, margin, constant_values=250), below])


def preview_steps(total: int, preview_every: int, count: int) -> Sequence[int]:
    """After which step each of `count` previews was made: every so many, and the last one."""
    regular = list(range(preview_every, total + 1, preview_every)) if preview_every else []
    return [*regular[: count - 1], total]
