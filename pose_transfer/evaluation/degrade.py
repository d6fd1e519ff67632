# SPDX-License-Identifier: GPL-3.0-or-later
"""Degradations of true pictures that the pattern judge must see through.

Every strength is drawn per picture from a generator on the CPU, so that a run is repeatable
whatever device the pictures are on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_BLUR = 2.2
"""Standard deviation, pixels at 256 x 192; an autoencoder of factor 8 blurs by about 1.5."""
MAX_NOISE = 0.05
MAX_OFFSET = 3
"""The generated outline may lie this many pixels beside the true parsing."""


def _uniform(count: int, low: float, high: float, dice: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=dice)


def gaussian_blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Blur image (B, C, H, W), one sigma (B,) in pixels per picture; edges are repeated."""
    radius = int(3 * MAX_BLUR + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma.to(image).clamp_min(0.05)[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)  # (B, 2 r + 1)
    batch, channels, height, width = image.shape
    weight = kernel.repeat_interleave(channels, 0)[:, None]  # (B C, 1, 2 r + 1)
    flat = F.pad(image.reshape(1, batch * channels, height, width), (radius,) * 4, "replicate")
    flat = F.conv2d(flat, weight[..., None], groups=batch * channels)
    flat = F.conv2d(flat, weight[:, :, None], groups=batch * channels)
    return flat.reshape(image.shape)


def degrade(image: Tensor, parsing: Tensor, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Degraded image (B, 3, H, W) in [0, 1] and its parsing (B, H, W).

    In this order: mirror (half of the batch draws), down- and up-sampling by up to 2, blur up to
    MAX_BLUR, per-channel gain .88 to 1.12 and offset up to .04, grain up to MAX_NOISE, and the
    parsing moved by up to MAX_OFFSET pixels. A third of the pictures stay sharp.
    """
    batch, _, height, width = image.shape
    mirrored = torch.rand(batch, generator=dice).lt(0.5).to(image.device)
    image = torch.where(mirrored[:, None, None, None], image.flip(-1), image)
    parsing = torch.where(mirrored[:, None, None], parsing.flip(-1), parsing)

    sharp = torch.rand(batch, generator=dice).lt(1 / 3)
    reduced = torch.rand(batch, generator=dice).lt(0.5) & ~sharp
    factor = float(_uniform(1, 1.2, 2.0, dice))
    small = F.interpolate(image, (round(height / factor), round(width / factor)), mode="area")
    small = F.interpolate(small, (height, width), mode="bilinear")
    image = torch.where(reduced.to(image.device)[:, None, None, None], small, image)
    sigma = _uniform(batch, 0.2, MAX_BLUR, dice).masked_fill(sharp, 0.0)
    image = gaussian_blur(image, sigma)

    gain = _uniform(3 * batch, 0.88, 1.12, dice).view(batch, 3, 1, 1).to(image.device)
    offset = _uniform(3 * batch, -0.04, 0.04, dice).view(batch, 3, 1, 1).to(image.device)
    noise = _uniform(batch, 0.0, MAX_NOISE, dice).view(batch, 1, 1, 1)
    grain = torch.randn(image.shape, generator=dice) * noise
    image = (image * gain + offset + grain.to(image.device)).clamp(0, 1)

    down, right = torch.randint(-MAX_OFFSET, MAX_OFFSET + 1, (2,), generator=dice).tolist()
    return image, parsing.roll((down, right), (1, 2))
