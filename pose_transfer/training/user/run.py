# SPDX-License-Identifier: GPL-3.0-or-later
"""One run: from a configuration to a weight file, with all that goes on in between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..loop import train
from ..sharding import unshard
from .config import read_config
from .feed import Feed, Share
from .figures import draw_curves, sheet, tensorboard_writer
from .layouts import Pair, read_pairs
from .methods import METHODS
from .settings import TrainingSettings
from .task import Settings, Task
from .terms import require_same_terms, terms_of
from .views import Views

_MEASURED = 64
"""Held-out pairs that are measured at most: enough for a trend, few enough not to cost time."""


def run(method: str, config: Path, until: int | None = None) -> Path:
    """Train as the YAML file says, or go on where a stopped run was; returns the weight file.

    The output folder gets `<method>.safetensors` at the end and, while training: `<method>.pt` (all
    that a resumption needs), `<method>.jsonl` (log), `curves.png`, `sheets/<step>.png`, and
    `tensorboard/` if asked for. `until` stops before the end, and writes the weights as they are
    then. Raises PoseTransferError for what the configuration or the data have wrong, also for a
    setting that the run to go on with was not begun with.
    """
    chosen = METHODS[method]
    settings: Settings = read_config(config, chosen.settings)
    training, data = settings.training, settings.data
    # Asked for by name: several processes without a GPU would each take itself for the only one.
    accelerator = Accelerator(
        mixed_precision=training.mixed_precision, cpu=not torch.accelerator.is_available()
    )
    share = Share.of(
        training.batch, training.accumulation, accelerator.num_processes, accelerator.process_index
    )
    pairs = read_pairs(data, data.pairs)
    held_out = read_pairs(data, data.held_out) if data.held_out else pairs
    measured = held_out[:_MEASURED]
    terms = terms_of(settings, pairs)
    require_same_terms(training.output / f"{method}.pt", terms)
    if accelerator.is_main_process:
        print(f"{method}: {len(pairs)} pairs, {accelerator.num_processes} process(es)", flush=True)
    torch.manual_seed(training.seed)  # new networks begin alike in every process
    task = chosen.build(settings, accelerator, [*pairs, *measured])
    views = Views(pairs, data, training.seed)
    feed = Feed(views, task.inputs, share, accelerator.device)
    watch = _Watch(method, task, training, accelerator, views, measured, bool(data.held_out))

    def loss(
        module: nn.Module, call: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return task.loss(module, feed.batch(call))

    module = train(
        method,
        task.module,
        loss,
        training.stage(len(pairs)),
        accelerator,
        training.output,
        training.seed,
        until,
        schedule=lambda step: training.rate(step, len(pairs)),
        pace=training.pace(),
        watch=watch,
        report=watch.report,
        terms=terms,
    )
    out = training.output / f"{method}.safetensors"
    unshard(module)
    if accelerator.is_main_process:
        task.save(out)
        print(f"{method}: wrote {out}", flush=True)
    accelerator.wait_for_everyone()
    return out


class _Watch:
    """Measures, paints and plots in the pauses of the loop."""

    def __init__(
        self,
        method: str,
        task: Task,
        training: TrainingSettings,
        accelerator: Accelerator,
        views: Views,
        pairs: Sequence[Pair],
        held_out: bool,
    ) -> None:
        self.method = method
        self.task = task
        self.training = training
        self.accelerator = accelerator
        self.views = views
        self.pairs = pairs
        self.prefix = "held_out" if held_out else "training_pairs"
        self.writer: Any = None

    def __call__(self, module: nn.Module, step: int) -> dict[str, float]:
        views = [self.views.plain(pair, number) for number, pair in enumerate(self.pairs)]
        figures, rows = self.task.check(module, views, self.training.sheet_pairs)
        figures = {f"{self.prefix}_{name}": value for name, value in figures.items()}
        if self.accelerator.is_main_process:
            folder = self.training.output
            (folder / "sheets").mkdir(exist_ok=True)
            sheet(rows, self.task.columns).save(folder / "sheets" / f"{step:07d}.png")
        return figures

    def report(self, line: dict[str, Any]) -> None:
        """A line of the log; only the main process has one."""
        folder = self.training.output
        if self.training.tensorboard:
            self.writer = self.writer or tensorboard_writer(folder / "tensorboard", line["step"])
            for name, value in line.items():
                self.writer.add_scalar(name, value, line["step"])
        if "loss" not in line:  # one of our own, after a sheet
            draw_curves(folder / f"{self.method}.jsonl", folder / "curves.png")
