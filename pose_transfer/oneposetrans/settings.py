# SPDX-License-Identifier: GPL-3.0-or-later
"""How one-shot tuning runs; the defaults are those of OnePoseTrans's released code."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import PoseTransferError

CODE_VERSION = 2
"""Part of every cache key: raise it when the same settings give another LoRA."""


@dataclass(frozen=True)
class TuningSettings:
    """Everything that decides which LoRA comes out, beside photos, caption and model.

    `batch` crops are drawn for every step. `min_snr_gamma` caps the weight of nearly clean
    latents (Hang et al. 2023, arXiv 2303.09556; the usual value is 5), 0 is the plain loss of the
    reference. `noise_offset` adds a constant of that size per channel to the noise, which lets
    brightness be learnt. `blocks` are block names or their beginnings, as in
    `up_blocks.0.attentions.1`; none means all. `resolution` is the shorter side of the resized
    photo in pixels; a square of that side is cropped from it at random for each sample, unless
    `whole_photo`.
    """

    steps: int = 60
    learning_rate: float = 1e-3
    rank: int = 32
    alpha: float = 32.0
    batch: int = 2
    resolution: int = 512
    whole_photo: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    min_snr_gamma: float = 0.0
    noise_offset: float = 0.0
    blocks: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "rank": self.rank, "batch": self.batch}
        for name, value in counts.items():
            if value < 1:
                raise PoseTransferError(f"The {name} of the tuning is {value}, expected 1 or more.")
        if not self.learning_rate > 0:
            raise PoseTransferError(
                f"The learning rate is {self.learning_rate}, expected more than 0, such as 0.001."
            )
