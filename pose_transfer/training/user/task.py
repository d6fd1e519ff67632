# SPDX-License-Identifier: GPL-3.0-or-later
"""What a method brings to be trained; everything else it shares with the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from accelerate import Accelerator
from torch import Tensor, nn

from .feed import Batch, Inputs
from .layouts import Pair
from .settings import DataSettings, TrainingSettings
from .views import View

Rows = list[list[np.ndarray]]
"""Pictures (H, W, 3) uint8 of one size, by rows of a sheet."""


class Task(Protocol):
    """A model being trained. All processes call the same methods in the same order."""

    columns: tuple[str, ...]
    """What a sheet's columns show."""

    @property
    def module(self) -> nn.Module:
        """What learns; it is moved and wrapped by the loop, and called only through the wrapper."""
        ...

    @property
    def inputs(self) -> Inputs: ...

    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch's loss and figures to log; `module` is `self.module` in its wrapper."""
        ...

    def check(
        self, module: nn.Module, views: Sequence[View], shown: int
    ) -> tuple[dict[str, float], Rows]:
        """Figures over pairs without augmentation, and the sheet's rows for the first `shown`."""
        ...

    def save(self, path: Path) -> None:
        """Write the module, now with its averaged weights, as the method's own file."""
        ...


class Settings(Protocol):
    """A configuration's three groups; `model` is the method's own."""

    @property
    def data(self) -> DataSettings: ...
    @property
    def model(self) -> Any: ...
    @property
    def training(self) -> TrainingSettings: ...


@dataclass(frozen=True)
class Method:
    """A subcommand: its configuration and how its task is built.

    `build(settings, accelerator, pairs)`: `pairs` are all that are trained on or measured.
    """

    help: str
    settings: type[Any]
    build: Callable[[Any, Accelerator, Sequence[Pair]], Task]
