# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of one-shot tuning, over any model that can be asked what it sees in noisy latents.

Everything random comes from one generator on the CPU, so that a seed is one LoRA and nobody
else's random numbers change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PoseTransferError
from .crops import Photos, draw_crops
from .low_rank import LowRankBranches
from .objective import Sampling, draw_noise, loss_weight, masked_error
from .settings import TuningSettings

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents (B, C, ...), sigma (B,)) -> the clean latents that the model sees in them."""


@dataclass(frozen=True)
class Course:
    """How a tuning went: the loss of each step, and whether it broke down before its last step."""

    loss: tuple[float, ...]
    broke_down: bool


@dataclass(frozen=True, eq=False)
class _Batch:
    clean: Tensor
    mask: Tensor
    noise: Tensor
    sigma: Tensor


def tune(
    branches: LowRankBranches,
    photos: Photos,
    crop: tuple[int, int],
    denoise: Denoise,
    sampling: Sampling,
    settings: TuningSettings,
    *,
    parts: int = 1,
    half_precision: bool = False,
    after_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Course:
    """Teaches the branches, which must be attached, the photos' person.

    `crop` is (height, width) in latent cells. With `parts` > 1 each batch is run in that many
    parts whose gradients add up: less memory, the same loss. `half_precision` scales the loss so
    that float16 gradients do not vanish. `after_step(step, loss)` runs after every step, counted
    from 1; an exception of it ends the tuning.

    Where the loss stops being a number, the last weights that gave one are put back and the
    tuning ends. Raises PoseTransferError if there were none.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    parameters = branches.parameters()
    optimiser = torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    device = parameters[0].device
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**12, enabled=half_precision)

    def seen(noisy: Tensor, sigma: Tensor) -> Tensor:
        branches.renew()
        return denoise(noisy, sigma)

    good, losses = branches.snapshot(), []
    for step in range(1, settings.steps + 1):
        batch = _draw_batch(photos, crop, sampling, settings, generator, device)
        loss = _gradients(batch, seen, sampling, settings, parts, scaler)
        if not math.isfinite(loss):
            branches.restore(good)
            if not losses:
                raise PoseTransferError(
                    "The model's prediction is not a number at the very first step, so nothing "
                    "can be learnt. Run the model in another precision (float32 or bfloat16), and "
                    "check that it makes pictures at all."
                )
            return Course(tuple(losses), broke_down=True)
        branches.keep(good)
        losses.append(loss)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)
        branches.renew()
        after_step(step, loss)
    if not all(torch.isfinite(parameter).all() for parameter in parameters):
        branches.restore(good)
        return Course(tuple(losses), broke_down=True)
    return Course(tuple(losses), broke_down=False)


def _draw_batch(
    photos: Photos,
    crop: tuple[int, int],
    sampling: Sampling,
    settings: TuningSettings,
    generator: torch.Generator,
    device: torch.device,
) -> _Batch:
    clean, mask = draw_crops(photos, crop, settings.batch, generator)
    noise = draw_noise(tuple(clean.shape), settings.noise_offset, generator)
    levels = sampling.sigmas
    index = torch.randint(len(levels), (settings.batch,), generator=generator)
    sigma = levels[index.to(levels.device)].float()
    return _Batch(clean.to(device), mask.to(device), noise.to(device), sigma.to(device))


def _gradients(
    batch: _Batch,
    denoise: Denoise,
    sampling: Sampling,
    settings: TuningSettings,
    parts: int,
    scaler: torch.amp.GradScaler,
) -> float:
    """Adds the gradient of the batch's mean loss to the parameters; returns that loss.

    A loss that is no number is returned at once, without gradients.
    """
    count, total = len(batch.sigma), 0.0
    for part in torch.arange(count).chunk(min(parts, count)):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        clean, sigma = batch.clean[rows], batch.sigma[rows]
        denoised = denoise(sampling.noisy(clean, batch.noise[rows], sigma), sigma)
        error = masked_error(denoised, clean, batch.mask[rows])
        loss = (loss_weight(sampling, sigma, settings.min_snr_gamma) * error).sum() / count
        total += loss.item()
        if not math.isfinite(total):
            return total
        scaler.scale(loss).backward()
    return total
