# SPDX-License-Identifier: GPL-3.0-or-later
"""Random batches of a rendered world, on the training device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .labels import IdentityLabels, identity_labels
from .world import World

_LANE_WIDTH = 0.04
"""Places with lanes farther apart than this are on parts of different kinds, body heights."""


class Batches:
    """A world's first `count` samples as tensors.

    On a GPU the arrays named by `resident` are copied there; the others, and all of them on a CPU,
    are read from the memory maps batch by batch.
    """

    def __init__(
        self, world: World, count: int, device: torch.device, resident: tuple[str, ...] = ()
    ) -> None:
        self.world = world
        self.poses = world.poses_per_identity
        self.count = count // self.poses * self.poses
        self.device = device
        self._resident: dict[str, Tensor] = {}
        if device.type == "cuda":
            for name in resident:
                self._resident[name] = _upload(getattr(world, name)[: self.count], device)
        labels = identity_labels(world.identity_seeds[: self.count // self.poses].tolist())
        self.labels = IdentityLabels(
            labels.colours.to(device), labels.classes.to(device), labels.tokens.to(device)
        )

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Rows `index` (B,) of the array `name`, on the device, in its own dtype."""
        if name in self._resident:
            return self._resident[name][index]
        rows = np.ascontiguousarray(getattr(self.world, name)[index.cpu().numpy()])
        return torch.from_numpy(rows).to(self.device, non_blocking=True)

    def pictures(self, name: str, index: Tensor) -> Tensor:
        """Rows of `image` or `pose_map` as (B, 3, 256, 192) float in [0, 1]."""
        return self.rows(name, index).permute(0, 3, 1, 2).float() / 255.0  # BHWC -> BCHW

    def cell_labels(self, index: Tensor) -> Tensor:
        """Parsing labels at the centre of each latent cell: (B, 32, 24) int64."""
        return self.rows("parsing", index)[:, 4::8, 4::8].long()

    def places(self, index: Tensor) -> Tensor:
        """Body coordinates near the centre of each latent cell: (B, 3, 32, 24), 0 outside."""
        return self.rows("coordinates", index)[:, 1::2, 1::2].permute(0, 3, 1, 2).float()

    def cloth(self, index: Tensor) -> Tensor:
        """Places at the centre of each latent cell, alike where clothes repeat: (B, 4, 32, 24).

        0 outside; see `mannequin.Rendering`.
        """
        grid = self.rows("cloth", index).float()
        four = grid.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).transpose(2, 3).flatten(3, 4)
        # The mean is at the centre; a cell that shows two parts is one of them near there.
        lane = four[..., 0]
        apart = lane.amax(-1) - lane.amin(-1) > _LANE_WIDTH
        outside = (four.abs().sum(-1) == 0).any(-1)
        place = torch.where((apart | outside)[..., None], four[..., 3, :], four.mean(-2))
        return place.permute(0, 3, 1, 2)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` sample numbers."""
        return torch.randint(self.count, (count,), device=self.device, generator=generator)

    def partners(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """For each sample another one of the same identity."""
        shift = torch.randint(1, self.poses, index.shape, device=self.device, generator=generator)
        person = index // self.poses
        return person * self.poses + (index % self.poses + shift) % self.poses

    def identities(self, index: Tensor) -> Tensor:
        """Identity numbers of samples."""
        return index // self.poses


def _upload(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy in slices, so that no second whole copy is ever held."""
    out = torch.empty(
        array.shape, dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype, device=device
    )
    for start in range(0, len(array), 2048):
        part = slice(start, start + 2048)
        out[part] = torch.from_numpy(np.ascontiguousarray(array[part]))
    return out


def normalised(
    pictures: Tensor, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """Tower input from (B, 3, H, W) in [0, 1]: PIL's bicubic filter, on the device."""
    resized = pictures
    if pictures.shape[-2:] != size:
        resized = F.interpolate(pictures, size, mode="bicubic", antialias=True).clamp(0, 1)
    shape = (1, 3, 1, 1)
    mean_rgb = torch.tensor(mean, device=pictures.device).view(shape)
    std_rgb = torch.tensor(std, device=pictures.device).view(shape)
    return (resized - mean_rgb) / std_rgb
