# SPDX-License-Identifier: GPL-3.0-or-later
"""Sampled latents kept on disk: a benchmark that was stopped, or has a new decoder, goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..drafts import replacing


class KeptLatents:
    """Batches of latents by everything that decides them; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, what: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` returned for the same `what` before, or returns now; on the CPU if kept."""
        if self.folder is None:
            return make()
        path = self.folder / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.safetensors"
        if path.is_file():
            return load_file(path)["latents"]
        latents = make().cpu().contiguous()
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            save_file({"latents": latents}, draft)
        return latents


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and numbers."""
    out = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        out.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        out.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return out.hexdigest()
