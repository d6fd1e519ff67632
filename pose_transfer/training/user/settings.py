# SPDX-License-Identifier: GPL-3.0-or-later
"""What every method's configuration has: the data, and how long and how fast to train."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..loop import Pace
from ..settings import StageSettings

MAY_CHANGE = {"may_change": True}
"""Marks a field that a run may go on with another value of: see `terms.py`."""


@dataclass(frozen=True)
class DataSettings:
    """Which pictures, and how they are varied. Defaults are the paper's for 512x352."""

    layout: Literal["deepfashion", "folder"]
    # Files may move: that the pairs are the same is seen from the pairs.
    pairs: Path = field(metadata=MAY_CHANGE)
    """CSV: columns from,to (deepfashion) or source,target (folder)."""
    images: Path = field(metadata=MAY_CHANGE)
    keypoints: Path | None = field(default=None, metadata=MAY_CHANGE)
    """deepfashion: the table `name:keypoints_y:keypoints_x`, or a folder of texts with 18 rows;
    folder: where the OpenPose JSON files are, by default beside the pictures."""
    held_out: Path | None = field(default=None, metadata=MAY_CHANGE)
    """Pairs, in the same form, that are measured and shown but not trained on."""
    height: int = 512
    width: int = 352
    flip: float = 0.5
    """Share of pairs that are mirrored, source and target alike."""
    jitter: float = 1.0
    """Standard deviation of the noise on the target's joints, px at height x width."""
    source_sizes: tuple[int, ...] = (256, 512)
    """The source is first shrunk to a square of one of these sizes, px."""
    identity: float = 0.05
    """Share of pairs whose source is replaced by the target."""
    workers: int = field(default=4, metadata=MAY_CHANGE)
    """Processes that read pictures, for each training process; 0 reads in that itself."""

    def __post_init__(self) -> None:
        if self.layout == "deepfashion" and self.keypoints is None:
            raise ValueError("the layout deepfashion needs 'keypoints', its table of joints.")
        if self.height < 64 or self.width < 64 or self.height % 8 or self.width % 8:
            raise ValueError(
                f"height x width is {self.height}x{self.width} px, expected multiples of 8 from 64."
            )
        require_shares(flip=self.flip, identity=self.identity)
        if not self.source_sizes or min(self.source_sizes) < 16:
            raise ValueError("source_sizes must be one or more sizes from 16 px.")
        if self.jitter < 0 or self.workers < 0:
            raise ValueError("jitter and workers must not be negative.")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """One run. An epoch is as many samples as there are pairs."""

    output: Path = field(metadata=MAY_CHANGE)
    """Folder of everything the run writes; several machines must share it."""
    epochs: float = field(metadata=MAY_CHANGE)
    batch: int
    """Samples in a step, over all processes and accumulated parts."""
    learning_rate: float
    accumulation: int = 1
    """Parts that a step's samples come in one after the other, to fit memory."""
    warm_up_epochs: float = 0.0
    decay_epochs: tuple[float, ...] = ()
    """Where the learning rate is multiplied by `decay`."""
    decay: float = 0.1
    weight_decay: float = 0.0
    ema: float = 0.9999
    """Decay of the moving average, which is what is shown and saved."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = field(default=False, metadata=MAY_CHANGE)
    """Trades a third of the speed for memory."""
    seed: int = 0
    log_every: int = field(default=50, metadata=MAY_CHANGE)
    save_every: int = field(default=500, metadata=MAY_CHANGE)
    sheet_every: int = field(default=1000, metadata=MAY_CHANGE)
    """Steps between sheets of pictures."""
    sheet_pairs: int = field(default=4, metadata=MAY_CHANGE)
    tensorboard: bool = field(default=False, metadata=MAY_CHANGE)

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "clip", "decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0.")
        for name in (
            "batch", "accumulation", "log_every", "save_every", "sheet_every", "sheet_pairs",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, expected from 0 to below 1.")
        if self.save_every % self.log_every:
            raise ValueError(
                f"save_every is {self.save_every}, expected a multiple of log_every "
                f"({self.log_every}), so that a resumed run's log goes on where it ended."
            )
        if self.batch % self.accumulation:
            raise ValueError(
                f"batch is {self.batch} and accumulation {self.accumulation}: the batch must be a "
                "multiple."
            )

    def stage(self, pairs: int) -> StageSettings:
        """The loop's settings for a number of pairs."""
        return StageSettings(
            steps=max(1, math.ceil(self.epochs * pairs / self.batch)),
            batch=self.batch,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            ema_decay=self.ema,
            clip=self.clip,
        )

    def pace(self) -> Pace:
        """The loop's rhythm."""
        return Pace(self.accumulation, self.log_every, self.save_every, self.sheet_every)

    def rate(self, step: int, pairs: int) -> float:
        """The learning rate of a step: a line up over the warm-up, then steps down."""
        epoch = step * self.batch / pairs
        warm_up_steps = self.warm_up_epochs * pairs / self.batch
        rate = self.learning_rate * min(1.0, (step + 1) / max(warm_up_steps, 1.0))
        return rate * self.decay ** sum(epoch >= x for x in self.decay_epochs)


def require_shares(**shares: float) -> None:
    """ValueError for what is not between 0 and 1."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}, expected a share from 0 to 1.")
