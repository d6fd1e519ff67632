# SPDX-License-Identifier: GPL-3.0-or-later
"""Photos of the person as latents, and random crops of them that show the person."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PoseTransferError

_GREY = 0.5


@dataclass(frozen=True, eq=False)
class Photos:
    """`latents` (N, C, ..., h, w) as the model sees them; `mask` (N, 1, ..., h, w) in [0, 1]."""

    latents: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.latents.shape[-2:] != self.mask.shape[-2:] or len(self.latents) != len(self.mask):
            raise ValueError(
                f"The latents are {tuple(self.latents.shape)}, the mask {tuple(self.mask.shape)}: "
                "number of photos, height and width must be equal."
            )
        if not (self.mask.flatten(1).amax(1) > 0).all():
            raise PoseTransferError(
                "The mask of a photo is empty: it must show the person. Check the mask, or leave "
                "it unconnected to learn the whole photo."
            )


def crop_starts(mask: Tensor, side: int, dim: int) -> tuple[int, int]:
    """First and last start of a crop of `side` cells that shows enough of the masked part.

    Enough is half of the part's extent along `dim`, or half a crop where the part is larger.
    """
    other = [d for d in range(mask.ndim) if d != dim % mask.ndim]
    cells = mask.amax(other).nonzero().flatten()
    low, high = int(cells[0]), int(cells[-1]) + 1
    enough = (min(high - low, side) + 1) // 2
    last = mask.shape[dim] - side
    return min(max(low + enough - side, 0), last), max(min(high - enough, last), 0)


def draw_crops(
    photos: Photos, size: tuple[int, int], count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` random crops of (height, width) cells: latents (count, C, ...) and their masks."""
    latents, masks = [], []
    for _ in range(count):
        photo = _draw(0, len(photos.latents) - 1, generator)
        mask = photos.mask[photo]
        top, left = (
            _draw(*crop_starts(mask, side, dim), generator)
            for side, dim in zip(size, (-2, -1), strict=True)
        )
        window = (..., slice(top, top + size[0]), slice(left, left + size[1]))
        latents.append(photos.latents[photo][window])
        masks.append(mask[window])
    return torch.stack(latents), torch.stack(masks)


def person_square(photo: Tensor, mask: Tensor) -> Tensor:
    """The masked part of a photo alone, in the middle of a grey square just large enough.

    `photo` (H, W, 3), `mask` (H, W) in [0, 1]; returns (side, side, 3). For encoders that look at
    squares: nothing of the person is cut off, and nothing else is seen.
    """
    seen = mask >= mask.max() / 2
    rows, columns = (seen.any(dim).nonzero().flatten() for dim in (1, 0))
    window = (
        slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1),
    )  # fmt: skip
    part, shown = photo[window], mask[window][..., None]
    height, width = part.shape[:2]
    side = max(height, width)
    square = photo.new_full((side, side, part.shape[-1]), _GREY)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = part * shown + _GREY * (1 - shown)
    return square


def _draw(first: int, last: int, generator: torch.Generator) -> int:
    return int(torch.randint(first, last + 1, (), generator=generator))
