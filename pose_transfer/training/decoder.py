# SPDX-License-Identifier: GPL-3.0-or-later
"""The decoder's second training: faces first, from latents as the second stage makes them.

A face is two or three cells wide and its features are weak in the latents: blurring it by 1.5 px
moves them by .09 on average, less than the noise that the autoencoder learns under, and what the
second stage predicts is off by more. So a decoder that is only asked for pictures as a whole paints
no eyes. This one sees windows around heads, true latents and predicted ones, and is asked for the
face above all: it learns where eyes and mouth are on a head of that shape and turn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..demo.architecture import LATENT_FACTOR
from ..mannequin import LABELS
from .autoencoder import TrainableAutoencoder, decode
from .batches import Batches

WINDOW = 10
"""Cells on each side of a window."""
_HEADS = 0.6
"""Share of windows around heads; the others are anywhere, often at the picture's edge."""
_JITTER = 3.0
"""How far from the middle of a window a head may be, cells."""
_NOISE = 0.1
_FACE_WEIGHT = 5.0
_GARMENT_WEIGHT = 1.0
"""Added to the weight of 1 that everything has; garments' patterns are what comes next to faces."""
_FACE, _HAIR = LABELS.index("face"), LABELS.index("hair")
_GARMENTS = [LABELS.index(name) for name in ("upper", "lower")]


class Decoder(nn.Module):
    """An autoencoder's decoder alone; the layers are the autoencoder's, by the same names."""

    def __init__(self, autoencoder: TrainableAutoencoder) -> None:
        super().__init__()
        self.decoder = autoencoder.decoder

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) of the decoder's own scale -> (B, 3, 8 h, 8 w) in [-1, 1], unclipped."""
        return decode(self.decoder, latents)


class DecoderTask:
    """Batches and loss of the stage.

    `latents` (N, C, h, w) of all samples in `data`, of deviation 1; `predicted` (M, C, h, w), what
    the second stage makes of those of the samples `chosen` (M,); `mean` and `std` bring both to the
    decoder's scale.
    """

    def __init__(
        self, data: Batches, latents: Tensor, chosen: Tensor, predicted: Tensor, mean: float,
        std: float,
    ) -> None:  # fmt: skip
        self.data = data
        self.latents = latents
        self.chosen = chosen
        self.predicted = predicted
        self.mean, self.std = mean, std

    def __call__(
        self, module: nn.Module, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        device = self.data.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, device=device, generator=generator)

        rows = torch.randint(len(self.chosen), (batch,), device=device, generator=generator)
        rows = rows.to(self.chosen.device)
        index = self.chosen[rows].to(device)
        clean = self.latents[index.to(self.latents.device)].to(device).float()
        noise = torch.randn(clean.shape, device=device, generator=generator)
        clean = clean + noise * (_NOISE * uniform(batch, 1, 1, 1))
        guessed = self.predicted[rows].to(device).float()
        latents = torch.where(uniform(batch, 1, 1, 1) < 0.5, clean, guessed)
        labels = self.data.rows("parsing", index)
        corners = _corners(labels, latents.shape[-2:], uniform(batch), uniform(batch, 2))

        pictures = self.data.pictures("image", index) * 2 - 1
        wanted = _cut(pictures, corners, LATENT_FACTOR)
        shown = _cut(labels[:, None], corners, LATENT_FACTOR)
        inner = _inner(corners, latents.shape[-2:])
        output = module(_cut(latents, corners, 1) * self.std + self.mean).float()
        face = (shown == _FACE) * inner
        garments = sum((shown == label) * inner for label in _GARMENTS)
        weight = inner + _FACE_WEIGHT * face + _GARMENT_WEIGHT * garments
        error = (output - wanted).abs()
        across = (output.diff(dim=-1) - wanted.diff(dim=-1)).abs() * weight[..., 1:]
        down = (output.diff(dim=-2) - wanted.diff(dim=-2)).abs() * weight[..., 1:, :]
        loss = (error * weight).mean() + 0.5 * (across.mean() + down.mean())
        off = (error * face).sum() / (3 * face.sum()).clamp_min(1)
        return loss, {"face": off, "all": (error * inner).sum() / (3 * inner.sum())}


def _corners(labels: Tensor, cells: torch.Size, choice: Tensor, place: Tensor) -> Tensor:
    """Top and left (B, 2) of a window for each sample, in cells.

    `labels` (B, H, W); `choice` (B,) and `place` (B, 2) are uniform in [0, 1).
    """
    face, head = labels == _FACE, (labels == _FACE) | (labels == _HAIR)
    seen = torch.where(face.any((1, 2), keepdim=True), face, head).float()
    amount = seen.sum((1, 2)).clamp_min(1)
    rows, columns = (
        torch.arange(side, device=labels.device, dtype=torch.float32) for side in labels.shape[1:]
    )
    middle = torch.stack(
        [(seen.sum(2) @ rows) / amount, (seen.sum(1) @ columns) / amount], dim=1
    ) / LATENT_FACTOR  # fmt: skip
    room = torch.tensor([side - WINDOW for side in cells], device=labels.device)
    around = middle - WINDOW / 2 + (2 * place - 1) * _JITTER
    anywhere = place * (room + 2 * _JITTER) - _JITTER
    corner = torch.where((choice < _HEADS)[:, None], around, anywhere).round().long()
    return corner.clamp_min(0).minimum(room)


def _cut(maps: Tensor, corners: Tensor, cell: int) -> Tensor:
    """The windows of maps (B, C, H, W) with `cell` pixels to a cell."""
    size = WINDOW * cell
    return torch.stack(
        [
            one[:, top : top + size, left : left + size]
            for one, (top, left) in zip(maps, (corners * cell).tolist(), strict=True)
        ]
    )


def _inner(corners: Tensor, cells: torch.Size) -> Tensor:
    """(B, 1, H, W): 0 in the outer cells, which have nothing beside them, but at the picture's
    edge."""
    inside = torch.ones(len(corners), 1, WINDOW, WINDOW, device=corners.device)
    for axis, side in enumerate(cells):
        line = inside.movedim(2 + axis, 1)  # a view, (B, side of the window, ...)
        line[:, 0] *= (corners[:, axis] == 0).float()[:, None, None]
        line[:, -1] *= (corners[:, axis] == side - WINDOW).float()[:, None, None]
    return inside.repeat_interleave(LATENT_FACTOR, 2).repeat_interleave(LATENT_FACTOR, 3)
