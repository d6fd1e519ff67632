# SPDX-License-Identifier: GPL-3.0-or-later
"""A training run's work folder: its world, its settings, the state of its stages."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from accelerate import Accelerator

from ..libraries import Net
from .batches import Batches
from .loop import train
from .settings import DemoSettings
from .world import World, open_world


def channels_last(module: Net) -> Net:
    """In the memory layout in which convolutions are fast."""
    # torch documents this form and leaves it out of its overloads.
    return module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Workspace:
    """Services that all stages share."""

    def __init__(self, work: Path, settings: DemoSettings, out: Path, preset: str) -> None:
        self.work = work
        self.settings = settings
        self.out = out
        self.preset = preset
        self.accelerator = Accelerator(
            mixed_precision=settings.mixed_precision,
            # Without this each of several processes on CPUs takes itself for the only one.
            cpu=not torch.accelerator.is_available(),
        )
        self.device = self.accelerator.device
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        torch.manual_seed(settings.seed)

    def world(self) -> World:
        settings = self.settings
        return open_world(
            self.work / "world", "train", settings.identities, settings.poses_per_identity
        )

    def _batches(self, *resident: str, everything: bool = False) -> Batches:
        """The samples that are ready (at least the early ones), or all of them."""
        world = self.world()
        ready = world.wait_for(world.size if everything else self.settings.early_samples)
        # Stages that start early agree on their data, whatever is ready by then.
        count = ready if everything else min(self.settings.early_samples, world.size)
        return Batches(world, count, self.device, resident)

    def _second_stage(self, *resident: str) -> Batches:
        """The samples of the second stage."""
        world = self.world()
        count = min(self.settings.latent_samples or world.size, world.size)
        world.wait_for(count)
        return Batches(world, count, self.device, resident)

    def _train(self, name: str, module: Net, loss, stage, until: int | None = None) -> Net:
        start = time.monotonic()
        with torch.enable_grad():  # a stage may be asked for where something is only encoded
            train(name, module, loss, stage, self.accelerator, self.work, self.settings.seed, until)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        return module

    def _step(self, name: str) -> int:
        path = self.work / f"{name}.pt"
        if not path.exists():
            return 0
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"])

    def _finished(self, name: str, steps: int) -> bool:
        return self._step(name) >= steps

    def _load(self, name: str, module: Net) -> Net:
        """A stage's moving average in `module`, in eval mode."""
        path = self.work / f"{name}.pt"
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["average"], strict=False)
        return module.to(self.device).eval()
