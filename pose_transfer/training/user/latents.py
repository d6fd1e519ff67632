# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures' latents on disk: the autoencoder runs once for each picture, before training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...drafts import replacing
from ...errors import PoseTransferError
from ...libraries import moved
from .layouts import Picture
from .views import picture

# Always the same pictures together, whatever is there already: what else is in a batch shows in a
# result's last bits, and a resumed run is to see the same latents.
_TOGETHER = 8


@dataclass(frozen=True)
class Latents:
    """A folder of latent distributions, one file for each picture, way round and size.

    A file's name is the hash of everything that decides its content: the autoencoder's weights,
    the size, the picture's path, length and time of change, and how it is read.
    """

    folder: Path
    autoencoder: str
    height: int
    width: int

    def read(self, path: Path, flipped: bool) -> Tensor:
        """Mean and log-variance of the picture's latents, (2 C, H/8, W/8) float32."""
        return torch.from_numpy(np.load(self._file(path, flipped), allow_pickle=False)).float()

    def draw(self, path: Path, flipped: bool, generator: torch.Generator) -> Tensor:
        """A sample of the picture's latents, (C, H/8, W/8), not scaled."""
        mean, log_variance = self.read(path, flipped).chunk(2)
        noise = torch.randn(mean.shape, generator=generator)
        return mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * noise

    @torch.no_grad()
    def fill(
        self,
        pictures: Iterable[tuple[Picture, str]],
        flips: tuple[bool, ...],
        vae: AutoencoderKL,
        accelerator: Accelerator,
        workers: int,
    ) -> None:
        """Encode pictures, each with where it is named, as far as they are not there.

        Every process does its part.
        Raises PoseTransferError for a picture that cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        each = {picture.path: (picture, where) for picture, where in pictures}
        wanted = [(*item, flipped) for item in each.values() for flipped in flips]
        chunks = [wanted[i : i + _TOGETHER] for i in range(0, len(wanted), _TOGETHER)]
        mine = [
            chunk
            for chunk in chunks[accelerator.process_index :: accelerator.num_processes]
            if not all(self._file(x.path, flipped).exists() for x, _, flipped in chunk)
        ]
        if mine:
            moved(vae, accelerator.device).eval()
        loader = DataLoader(_Chunks(mine, self.height, self.width), None, num_workers=workers)
        for number, (chunk, pixels) in enumerate(zip(mine, loader, strict=True)):
            if isinstance(pixels, PoseTransferError):
                raise pixels
            found = vae.encode(pixels.to(accelerator.device), return_dict=False)[0]
            rows = found.parameters.half().cpu().numpy()
            for (x, _, flipped), row in zip(chunk, rows, strict=True):
                _write(self._file(x.path, flipped), row)
            if accelerator.is_main_process and number % 50 == 0:
                print(f"latents: {number + 1} of {len(mine)} batches", flush=True)
        moved(vae, "cpu")
        accelerator.wait_for_everyone()

    def _file(self, path: Path, flipped: bool) -> Path:
        stat = os.stat(path)
        key = json.dumps(
            [self.autoencoder, self.height, self.width, str(path.absolute()), stat.st_size,
             stat.st_mtime_ns, flipped, "upright"]
        )  # fmt: skip
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"


def decoded(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """The autoencoder's own latents -> pictures (B, H, W, 3) in [0, 1]; leaves it on the CPU."""
    moved(vae, latents.device)
    # It annotates torch.FloatTensor, a name from before all tensors had one type.
    pictures = vae.decode(latents, return_dict=False)[0].float()  # pyright: ignore[reportArgumentType]
    moved(vae, "cpu")
    return (pictures.movedim(1, -1) / 2 + 0.5).clamp(0, 1).cpu()  # BCHW -> BHWC


class _Chunks(Dataset):
    """Pixels (B, 3, H, W) in [-1, 1] of chunks of pictures."""

    def __init__(
        self, chunks: list[list[tuple[Picture, str, bool]]], height: int, width: int
    ) -> None:
        self.chunks = chunks
        self.size = width, height

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> Tensor | PoseTransferError:
        try:
            return torch.cat([self._pixels(*item) for item in self.chunks[index]])
        except PoseTransferError as error:
            return error

    def _pixels(self, source: Picture, where: str, flipped: bool) -> Tensor:
        image = source.image(where).resize(self.size, Image.Resampling.BICUBIC)
        return picture(image, flipped).movedim(-1, 1) * 2.0 - 1.0  # BHWC -> BCHW


def _write(path: Path, row: np.ndarray) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, row)
