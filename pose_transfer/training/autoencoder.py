# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's autoencoder: TAESD's layout, trained so that latents are close to linear in colour.

Averages of latents then decode to averages of colours, which is what a diffusion model produces
while it is unsure; without this, blends of two colours come out as a third.
"""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ..demo.architecture import UNET

LATENT_NOISE = 0.12
_WIDTHS = (16, 32, 64, 64)
"""Channels from full size down to an eighth. TAESD has 64 everywhere: see `export`."""
_LATENTS = UNET["in_channels"]
_MEAN_SCALE, _DETAIL_SCALE = 3.0, 4.0
ENCODER_BLOCKS = (0, 1, 1, 2)
DECODER_BLOCKS = (2, 1, 1, 1)


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


def _blocks(width: int, count: int) -> list[nn.Module]:
    return [AutoencoderTinyBlock(width, width, "relu") for _ in range(count)]


class TrainableAutoencoder(nn.Module):
    """A narrow TAESD, and the colour probe that only training uses.

    Pictures are (B, 3, H, W) in [-1, 1], latents (B, C, H/8, W/8) of the decoder's own scale. The
    layers are named after those of TAESD that they become; TAESD's other blocks are identities.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict()
        self.decoder = nn.ModuleDict()
        first, *rest = _WIDTHS
        self.encoder["0"] = _conv(3, first)
        width = first
        for level, (wider, count) in enumerate(zip(rest, ENCODER_BLOCKS[1:], strict=True)):
            start = 2 + 4 * level
            self.encoder[str(start)] = _conv(width, wider, 2, bias=False)
            for i, block in enumerate(_blocks(wider, count)):
                self.encoder[str(start + 1 + i)] = block
            width = wider
        self.encoder["14"] = _conv(width, _LATENTS)
        self.decoder["1"] = _conv(_LATENTS, width)
        for level, count in enumerate(DECODER_BLOCKS):
            start = 3 + 5 * level
            for i, block in enumerate(_blocks(width, count)):
                self.decoder[str(start + i)] = block
            if level < 3:
                narrower = _WIDTHS[2 - level]
                self.decoder[str(start + 4)] = _conv(width, narrower, bias=False)
                width = narrower
        self.decoder["19"] = _conv(width, 3)
        self.probe = nn.Conv2d(_LATENTS, 3, 1)
        self._start_linear()

    @torch.no_grad()
    def _start_linear(self) -> None:
        """Start as what it should stay close to: cells' mean colours, and their inner gradients.

        The encoder averages to four sub-cells of 4 x 4 pixels and takes mean and differences of
        them; the decoder spreads the means smoothly. Colours are not negative, so that ReLU passes
        them on. Training adds the rest; from random weights it takes much longer to find colour.
        """
        for part in (self.encoder, self.decoder):
            for layer in part.values():
                if isinstance(layer, AutoencoderTinyBlock):
                    layer.conv[-1].get_parameter("weight").mul_(0.1)
                    layer.conv[-1].get_parameter("bias").zero_()
        rgb = torch.arange(3)
        for name in ("0", "2", "6"):
            weight = self.encoder.get_parameter(f"{name}.weight")
            weight[:3] = 0.0
            if name == "0":
                weight[rgb, rgb, 1, 1] = 1.0
                self.encoder.get_parameter(f"{name}.bias")[:3] = 0.0
            else:
                weight[rgb, rgb, 1:, 1:] = 0.25
        weight = self.encoder.get_parameter("10.weight")
        weight[:12] = 0.0
        for row in range(2):
            for column in range(2):
                weight[3 * (2 * row + column) + rgb, rgb, 1 + row, 1 + column] = 1.0
        weight, bias = self._weights_and_bias("encoder.14")
        weight.mul_(0.1)
        bias.zero_()
        weight[:8, :, 1, 1] = 0.0
        bias[:3] = -0.5 * _MEAN_SCALE
        light, tint = torch.tensor([0.3, 0.59, 0.11]), torch.tensor([0.5, 0.0, -0.5])
        for cell, (across, down) in enumerate(((-1, -1), (1, -1), (-1, 1), (1, 1))):
            places = 3 * cell + rgb
            weight[rgb, places, 1, 1] = 0.25 * _MEAN_SCALE
            for channel, (sign, colour) in enumerate(
                ((across, light), (down, light), (across * down, light), (across, tint),
                 (down, tint))
            ):  # fmt: skip
                weight[3 + channel, places, 1, 1] = sign * colour * 0.5 * _DETAIL_SCALE
        weight, bias = self._weights_and_bias("decoder.1")
        weight[:3] = 0.0
        weight[rgb, rgb, 1, 1] = 1.0 / _MEAN_SCALE
        bias[:3] = 0.5
        smooth = torch.tensor([0.25, 0.5, 0.25])
        for name in ("7", "12", "17"):
            weight = self.decoder.get_parameter(f"{name}.weight")
            weight[:3] = 0.0
            weight[rgb, rgb] = smooth[:, None] * smooth
        weight, bias = self._weights_and_bias("decoder.19")
        weight.mul_(0.1)
        weight[:, :3] = 0.0
        weight[rgb, rgb, 1, 1] = 1.0
        bias.zero_()

    def _weights_and_bias(self, layer: str) -> tuple[nn.Parameter, nn.Parameter]:
        return self.get_parameter(f"{layer}.weight"), self.get_parameter(f"{layer}.bias")

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, C, H/8, W/8)."""
        x = F.relu(self.encoder["0"]((pictures + 1) / 2))
        for name in list(self.encoder)[1:]:
            x = self.encoder[name](x)
        return x

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, 8 h, 8 w) in [-1, 1], unclipped."""
        return decode(self.decoder, latents)

    def forward(self, pictures: Tensor, noise: Tensor, swap: Tensor, share: Tensor):
        """Reconstruction, reconstruction of mixed latents, probed colours and latents.

        `noise` (B, C, h, w) unit normal; `swap` (B,) the partner of each sample and `share`
        (B, 1, 1, 1) its part in the mixture.
        """
        latents = self.encode(pictures)
        noisy = latents + LATENT_NOISE * noise
        mixed = noisy + (noisy[swap] - noisy) * share
        half = len(mixed) // 4 or 1
        decoded = self.decode(torch.cat([noisy, mixed[:half]]))
        return decoded[: len(noisy)], decoded[len(noisy) :], self.probe(latents), latents


def decode(layers: nn.ModuleDict, latents: Tensor) -> Tensor:
    """`TrainableAutoencoder.decode` by its decoder's layers."""
    x = F.relu(layers["1"](torch.tanh(latents / 3) * 3))
    for name in list(layers)[1:]:
        if name in ("7", "12", "17"):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = layers[name](x)
    return x * 2 - 1


def autoencoder_loss(
    module: nn.Module, pictures: Tensor, foreground: Tensor, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 and edge loss on the figure first, plus both terms that make latents linear in colour.

    `pictures` (B, 3, H, W) in [-1, 1], `foreground` (B, 1, H, W) in {0, 1}.
    """
    device, count = pictures.device, len(pictures)
    height, width = pictures.shape[-2] // 8, pictures.shape[-1] // 8
    noise = torch.randn((count, _LATENTS, height, width), device=device, generator=generator)
    swap = torch.randperm(count, device=device, generator=generator)
    share = torch.rand((count, 1, 1, 1), device=device, generator=generator) * 0.5
    output, mixed, probed, latents = module(pictures, noise, swap, share)
    output, mixed, probed = output.float(), mixed.float(), probed.float()
    weight = 1.0 + 3.0 * foreground
    error = output - pictures
    reconstruction = ((error.abs() + error.square()) * weight).mean()
    across = (output.diff(dim=-1) - pictures.diff(dim=-1)).abs() * weight[..., 1:]
    down = (output.diff(dim=-2) - pictures.diff(dim=-2)).abs() * weight[..., 1:, :]
    edges = across.mean() + down.mean()
    pooled = F.avg_pool2d(pictures, 8)
    colour = (probed - pooled).abs().mean()
    wanted = (pictures + (pictures[swap] - pictures) * share)[: len(mixed)]
    mixture = (F.avg_pool2d(mixed, 8) - F.avg_pool2d(wanted, 8)).abs().mean()
    # Keeps latents inside the decoder's soft clamp at 3 and the scale fixed for the noise.
    size = (latents.float().square().mean() - 1.0).clamp_min(0.0)
    loss = reconstruction + edges + colour + 0.5 * mixture + 0.05 * size
    mse = (error.square() * foreground).sum() / (foreground.sum() * 3)
    return loss, {
        "psnr": 10 * torch.log10(4.0 / error.square().mean()),
        "psnr_figure": 10 * torch.log10(4.0 / mse),
        "colour": colour,
        "std": latents.float().std(),
    }
