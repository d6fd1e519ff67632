# SPDX-License-Identifier: GPL-3.0-or-later
"""One training loop for every model: AdamW, warm-up and cosine, moving average, resumption."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .settings import StageSettings

SAVE_SECONDS = 120.0

Loss = Callable[[nn.Module, int, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
"""(module, step, generator on the device) -> loss and figures to log."""


def learning_rate(settings: StageSettings, step: int) -> float:
    """Linear warm-up, a constant stretch, then a cosine down to 2 % of the peak."""
    warm = min(1.0, (step + 1) / max(settings.warm_up, 1))
    progress = step / max(settings.steps, 1)
    share = max(0.0, progress - settings.constant_until) / (1.0 - settings.constant_until)
    return settings.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * share)))


class Average:
    """Exponential moving average of a module's floating-point state."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone().float() for k, v in _floats(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        # Early on the average follows faster, or it would remember the initial weights.
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        current = _floats(module)
        torch._foreach_lerp_(
            list(self.state.values()), [current[k].float() for k in self.state], 1.0 - decay
        )

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, value in _floats(module).items():
            value.copy_(self.state[name])


def _floats(module: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in module.state_dict().items() if v.is_floating_point()}


def _replace(path: Path, state: dict) -> None:
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    os.replace(temporary, path)


def train(
    name: str,
    module: nn.Module,
    loss: Loss,
    settings: StageSettings,
    accelerator: Accelerator,
    work: Path,
    seed: int = 0,
    until: int | None = None,
) -> nn.Module:
    """Train `module` in place and leave its moving average in it; returns it in eval mode.

    The state goes to `work/<name>.pt` every two minutes and at the end, written whole before it
    replaces the last one; a run that finds it goes on from there, and a finished one returns at
    once. The log of the stage is `work/<name>.jsonl`, means over 100 steps. `until` stops before
    the schedule's end. Raises RuntimeError when the loss is not finite for ten steps in a row.
    """
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / f"{name}.pt"
    device = accelerator.device
    module.to(device).train()
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=device.type == "cuda",
    )
    average = Average(module, settings.ema_decay)
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        average.state = state["average"]
        step = state["step"]
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    # A step's draws depend on the step alone, so a resumed run sees what an unbroken one would.
    generator = torch.Generator(device)
    stop = settings.steps if until is None else min(until, settings.steps)
    saved = logged = time.monotonic()
    start_step, bad = step, 0
    sums: dict[str, tuple[Tensor | float, int]] = {}

    def save() -> None:
        if accelerator.is_main_process:
            _replace(
                checkpoint,
                {
                    "module": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.state,
                    "step": step,
                },
            )

    with (work / f"{name}.jsonl").open("a") as log:
        if step == 0:
            log.write(json.dumps({"settings": asdict(settings)}) + "\n")
        while step < stop:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            generator.manual_seed(seed * 1_000_003 + step * 1009 + accelerator.process_index)
            with accelerator.autocast():
                value, figures = loss(wrapped, step, generator)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(value)
            norm = accelerator.clip_grad_norm_(module.parameters(), settings.clip)
            if step % 10 == 0 or bad:
                bad = 0 if bool(torch.isfinite(value) & torch.isfinite(norm)) else bad + 1
                if bad >= 10:
                    raise RuntimeError(f"{name}: the loss has not been finite for {bad} steps")
            if not bad:
                optimizer.step()
                average.update(module, step)
            step += 1
            for key, figure in {"loss": value, **figures}.items():
                total, count = sums.get(key, (0.0, 0))
                sums[key] = total + figure.detach().float(), count + 1
            now = time.monotonic()
            if accelerator.is_main_process and (step % 100 == 0 or step == stop):
                rate = (step - start_step) * settings.batch / (now - logged + 1e-9)
                means = {k: round(float(total) / count, 4) for k, (total, count) in sums.items()}
                line = {"step": step, "samples_per_s": round(rate, 1), **means}
                sums.clear()
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(name, json.dumps(line), flush=True)
                logged, start_step = now, step
            if now - saved > SAVE_SECONDS:
                save()
                saved = now
        if start_step or step:
            save()
    average.copy_to(module)
    return module.eval()
