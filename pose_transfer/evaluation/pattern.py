# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a garment's pattern a picture kept, without a trained judge.

SSIM is a product of a luminance and a contrast-structure term. The second one alone, on windows
large enough to hold half a period of a pattern or more, says whether the same light-and-dark and
the same change of hue lie in the same place with the same strength:

    cs = (2 cov(g, t) + C) / (var(g) + var(t) + C),    cov, var summed over R, G, B.

* A copy scores 1; a pattern of another orientation, period or phase has cov near 0 and scores
  near 0; a blurred-away or invented pattern has one variance near 0 and scores near 0.
* Mean colour plays no part (the colour error measures it), as the local mean is taken off.
* Plain against plain has both variances near 0 and scores C / C = 1; C is set so that the grain
  of an autoencoder on plain cloth (3 to 4 levels) costs under a tenth, while the weakest
  contrast of two colours in the mannequin world has fourteen times its variance.
* The generated figure may sit a pixel or two beside the true one. The garment may therefore be
  shifted as a whole by up to 4 pixels (of a 256-pixel-high picture), less than a quarter of the
  shortest period in the mannequin world; larger shifts would let an unrelated pattern fall into
  place.

Statistics are taken inside the garment only, by normalised convolution, so the outline of the
garment is no pattern. Chance is not exactly 0: the benchmark reports the score of another person
in the right pose next to every method's.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .metrics import Image, LabelMap

WORK_HEIGHT = 128
"""Pictures are reduced to this height first: half the demo's, pixel grain is no pattern."""
WINDOW_SIGMA = 4.0
"""Of the Gaussian window, pixels at WORK_HEIGHT; +- 1 sigma spans a period of 16 at 256."""
SHIFT = 2
"""Largest displacement, pixels at WORK_HEIGHT."""
STABILISER = 300.0
"""C above, squared levels summed over three channels."""
MIN_WORK_PIXELS = 40


def _windows(x: Tensor) -> Tensor:
    """Gaussian-weighted sums, zero outside the picture; x (N, C, H, W)."""
    radius = int(2.5 * WINDOW_SIGMA)
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    kernel = kernel / kernel.sum()
    flat = x.reshape(-1, 1, *x.shape[-2:])
    flat = F.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    flat = F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, radius))
    return flat.reshape(x.shape)


def _shifted(x: Tensor) -> Tensor:
    """All displacements of x (C, H, W) within SHIFT: (N, C, H, W), zeros moved in."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (SHIFT,) * 4)
    steps = range(2 * SHIFT + 1)
    return torch.stack([padded[:, r : r + height, c : c + width] for r in steps for c in steps])


def pattern_similarity(image: Image, truth: Image, garment: NDArray[np.bool_]) -> float:
    """0..1: the contrast-structure similarity of the two pictures inside `garment` (H, W).

    `garment` is the true garment's mask. NaN when fewer than about 160 pixels of it are visible.
    Raises ValueError when the sizes differ.
    """
    if image.shape != truth.shape or garment.shape != truth.shape[:2]:
        raise ValueError(
            f"image, truth and garment must share a size, got {image.shape}, {truth.shape}, "
            f"{garment.shape}."
        )
    height = WORK_HEIGHT
    width = max(round(image.shape[1] * height / image.shape[0]), 1)
    stack = np.concatenate([image, truth, garment[..., None] * np.uint8(255)], axis=2)
    work = torch.from_numpy(stack.astype(np.float32)).permute(2, 0, 1)  # HWC -> CHW
    work = F.interpolate(work[None], (height, width), mode="area")[0]
    inside = work[6] > 254.0  # cells that lie in the garment entirely: no outline
    if int(inside.sum()) < MIN_WORK_PIXELS:
        return float("nan")
    rows, columns = torch.nonzero(inside.any(1))[:, 0], torch.nonzero(inside.any(0))[:, 0]
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    mask = inside[box].float()[None]  # (1, h, w)
    generated, true = work[0:3][:, box[0], box[1]], work[3:6][:, box[0], box[1]]

    moved = _shifted(torch.cat([generated, mask]))
    g, m = moved[:, :3], moved[:, 3:] * mask  # (N, 3, h, w), (N, 1, h, w)
    t = true[None]
    weight = _windows(m).clamp_min(1e-6)
    mean_g, mean_t = _windows(g * m) / weight, _windows(t * m) / weight
    powers = ((g * g).sum(1, True), (t * t).sum(1, True).expand_as(m), (g * t).sum(1, True))
    power = _windows(torch.cat(powers, 1) * m) / weight
    var_g = (power[:, 0:1] - (mean_g**2).sum(1, True)).clamp_min(0)
    var_t = (power[:, 1:2] - (mean_t**2).sum(1, True)).clamp_min(0)
    cov = power[:, 2:3] - (mean_g * mean_t).sum(1, True)
    cs = (2 * cov + STABILISER) / (var_g + var_t + STABILISER)
    score = (cs * m).sum((1, 2, 3)) / m.sum((1, 2, 3)).clamp_min(1)
    return float(score.max().clamp(0, 1))


def pattern_similarities(
    image: Image, truth: Image, parsing: LabelMap, labels: tuple[int, ...]
) -> NDArray[np.float64]:
    """`pattern_similarity` for each garment label: (len(labels),), NaN where it is hidden."""
    return np.array([pattern_similarity(image, truth, parsing == label) for label in labels])
