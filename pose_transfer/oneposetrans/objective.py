# SPDX-License-Identifier: GPL-3.0-or-later
"""The denoising loss of tuning, for noise, velocity and flow prediction alike.

Every model is asked for the clean latents that it sees in noisy ones, `denoised`. That is affine
in what its network predicts, `denoised = a(sigma) x + gain(sigma) prediction`, so that the mean
square error of the prediction is that of `denoised` over `gain^2`: the loss of the reference for
whatever a network was trained to predict.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Sampling(Protocol):
    """What tuning must know of a model's noise schedule. `sigma` is always (B,)."""

    @property
    def sigmas(self) -> Tensor:
        """(T,): the noise levels the model was trained on, each equally often."""
        ...

    def noisy(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Clean latents (B, C, ...) with noise (B, C, ...) at each sample's level."""
        ...

    def gain(self, sigma: Tensor) -> Tensor:
        """(B,): by how much the denoised latents change per unit of the network's output."""
        ...

    def snr(self, sigma: Tensor) -> Tensor:
        """(B,): power of the signal over power of the noise."""
        ...


def loss_weight(sampling: Sampling, sigma: Tensor, min_snr_gamma: float) -> Tensor:
    """(B,): what the squared error of the denoised latents counts at each noise level.

    Without gamma 1 / gain^2. With it, min(SNR, gamma): the min-SNR weight, which is stated for
    the clean latents in the first place (Hang et al. 2023, equation 5).
    """
    if min_snr_gamma > 0:
        return sampling.snr(sigma).clamp(max=min_snr_gamma)
    return sampling.gain(sigma).pow(-2)


def masked_error(denoised: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
    """(B,): mean square error over what the mask shows; 0 where it shows nothing.

    `denoised`, `clean` (B, C, ...); `mask` (B, 1, ...) in [0, 1].
    """
    error = (denoised.float() - clean.float()).square() * mask
    area = mask.expand_as(error).flatten(1).sum(1)
    return error.flatten(1).sum(1) / area.clamp(min=1e-6)


def draw_noise(shape: tuple[int, ...], offset: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise (B, C, ...) on the CPU, with a constant of std `offset` per channel."""
    noise = torch.randn(shape, generator=generator)
    if offset:
        constant = torch.randn(shape[:2], generator=generator)
        noise += offset * constant.reshape(*shape[:2], *[1] * (len(shape) - 2))
    return noise
