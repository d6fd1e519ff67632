# SPDX-License-Identifier: GPL-3.0-or-later
"""What tuning shows while it runs: a quick picture with always the same noise, and the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .tuning import Denoise

_PAPER, _INK, _GRID = (24, 24, 28), (120, 190, 255), (70, 70, 80)


def euler(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """Euler's method from noise x (B, C, ...) at sigmas[0] down the descending levels.

    The same for noise levels (EPS, v) and flows: dx / dsigma = (x - denoised) / sigma.
    """
    for sigma, following in pairwise(sigmas):
        denoised = denoise(x, sigma.expand(len(x)))
        x = denoised + (x - denoised) * (following / sigma)
    return x


def draw_loss(losses: Sequence[float], total: int, width: int, height: int) -> Image.Image:
    """The loss over the steps, smoothed, on a scale from 0 to its largest value."""
    picture = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    smooth = smoothed(losses)
    top = max(max(smooth), 1e-12)
    for fraction in (0.25, 0.5, 0.75):
        pen.line([(0, height * fraction), (width, height * fraction)], fill=_GRID)
    points = [
        (step / max(total - 1, 1) * (width - 1), (1 - 0.95 * loss / top) * (height - 1))
        for step, loss in enumerate(smooth)
    ]
    if len(points) > 1:
        pen.line(points, fill=_INK, width=2)
    return picture


def smoothed(losses: Sequence[float], keep: float = 0.8) -> list[float]:
    """An exponential mean: single steps differ mostly by the noise level that they drew."""
    means, mean = [], losses[0]
    for loss in losses:
        mean = keep * mean + (1 - keep) * loss
        means.append(mean)
    return means


def likest(scores: Sequence[float]) -> int | None:
    """The place of the best score, the first of equal ones; None where no score is a number.

    A preview of weights that diverged has no score.
    """
    finite = [place for place, score in enumerate(scores) if math.isfinite(score)]
    return max(finite, key=scores.__getitem__, default=None)


def noise_for_preview(shape: tuple[int, ...], seed: int) -> Tensor:
    """Gaussian noise (B, C, ...) on the CPU from a generator of its own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
