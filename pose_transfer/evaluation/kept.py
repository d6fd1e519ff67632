# SPDX-License-Identifier: GPL-3.0-or-later
"""Sampled latents kept on disk: a benchmark that was stopped, or has a new decoder, goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ..weights import read_weights, write_weights


class KeptLatents:
    """Batches of latents by everything that decides them; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, what: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` returned for the same `what` before (on the CPU), or returns now."""
        if self.folder is None:
            return make()
        path = self.folder / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.safetensors"
        if path.is_file():
            return read_weights(path).tensors["latents"]
        latents = make()
        write_weights(path, {"latents": latents}, {})
        return latents
