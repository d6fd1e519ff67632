# SPDX-License-Identifier: GPL-3.0-or-later
"""One training loop for every model: AdamW, a schedule, moving average, exact resumption."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .settings import StageSettings
from .sharding import joined, load_optimizer_state, optimizer_state, own_part, part_of, whole

SAVE_SECONDS = 120.0

Loss = Callable[[nn.Module, int, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
"""(module, number of the call, generator on the device) -> loss and figures to log.

Without accumulation the number of the call is that of the step.
"""

Watch = Callable[[nn.Module, int], dict[str, float]]
"""(module with the averaged weights, in eval mode; step) -> figures to log."""


@dataclass(frozen=True)
class Pace:
    """How often a run does what, in steps."""

    accumulation: int = 1
    """Calls of the loss whose gradients make one step."""
    log_every: int = 100
    save_every: int | None = None
    """Every two minutes where None: not for a sharded module, whose processes save together."""
    watch_every: int | None = None
    """Besides at the end; only there where None."""


def learning_rate(settings: StageSettings, step: int) -> float:
    """Linear warm-up, a constant stretch, then a cosine down to 2 % of the peak."""
    warm = min(1.0, (step + 1) / max(settings.warm_up, 1))
    progress = step / max(settings.steps, 1)
    share = max(0.0, progress - settings.constant_until) / (1.0 - settings.constant_until)
    return settings.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * share)))


class Average:
    """Exponential moving average of a module's floating-point state: of this process's part."""

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

    @contextmanager
    def in_place(self, module: nn.Module) -> Iterator[None]:
        """While open, the module has the averaged weights and is in eval mode."""
        self._swap(module)
        module.eval()
        try:
            yield
        finally:
            self._swap(module)
            module.train()

    @torch.no_grad()
    def _swap(self, module: nn.Module) -> None:
        for name, value in _floats(module).items():
            own = value.clone()
            value.copy_(self.state[name])
            self.state[name].copy_(own)


def _floats(module: nn.Module) -> dict[str, Tensor]:
    return {k: own_part(v) for k, v in module.state_dict().items() if v.is_floating_point()}


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
    *,
    schedule: Callable[[int], float] | None = None,
    pace: Pace | None = None,
    watch: Watch | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    terms: Mapping[str, str] | None = None,
) -> nn.Module:
    """Train `module` in place and leave its moving average in it; returns it in eval mode.

    The state goes to `work/<name>.pt` at the pace's rhythm and at the end, written whole before it
    replaces the last one; a run that finds it goes on from there as if it had never stopped, bit
    for bit on a CPU, and a finished one returns at once. `work/<name>.jsonl` is the log: means over
    `pace.log_every` steps and over all processes. `until` stops before the schedule's end.
    `schedule(step)` gives the learning rate, by default `learning_rate(settings, step)`. `report`
    gets each line of the log, in the main process. `terms`, what the run depends on, are kept in
    the state for whoever wants to compare.

    A step whose gradient is not finite changes nothing; the log counts such steps as
    `skipped_steps`. While they last nothing is saved. Raises RuntimeError after ten or more in a
    row.
    """
    pace = pace or Pace()
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / f"{name}.pt"
    device = accelerator.device
    state = None
    if checkpoint.exists():
        # Mapped where everything goes to a GPU: a big model then is in memory only once.
        on_gpu = device.type == "cuda"
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=on_gpu)
        module.load_state_dict(state["module"])
    module.to(device).train()
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        # On every device: only a fused step can be told by a tensor to do nothing.
        fused=True,
    )
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    average = Average(module, settings.ema_decay)
    step = 0
    if state is not None:
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = True
        load_optimizer_state(module, optimizer.optimizer, state["optimizer"])
        tensors = module.state_dict()
        average.state = {
            k: part_of(x, tensors[k]).to(device, copy=True) for k, x in state["average"].items()
        }
        step = state["step"]
        del state
    rate = schedule or (lambda step: learning_rate(settings, step))
    # A step's draws depend on the step alone, so a resumed run sees what an unbroken one would.
    generator = torch.Generator(device)
    stop = settings.steps if until is None else min(until, settings.steps)
    saved = logged = time.monotonic()
    resumed = start_step = step
    # On the device, and asked for seldom: a GPU that is waited for at each step has nothing to do.
    bad, skipped = torch.zeros(2, device=device).unbind()
    meter = _Meter()

    def save() -> None:
        tensors = module.state_dict()
        content = {
            "module": {k: whole(x) for k, x in tensors.items()},
            "optimizer": optimizer_state(module, optimizer.optimizer),
            "average": {k: joined(x, tensors[k]) for k, x in average.state.items()},
            "step": step,
            "terms": dict(terms or {}),
        }
        if accelerator.is_main_process:
            _replace(checkpoint, content)

    with _open_log(work / f"{name}.jsonl", step, accelerator) as log:

        def write(line: dict[str, Any]) -> None:
            log.write(json.dumps(line) + "\n")
            log.flush()
            if report and "step" in line and accelerator.is_main_process:
                report(line)

        if step == 0:
            write({"settings": asdict(settings)})
        while step < stop:
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            optimizer.zero_grad(set_to_none=True)
            for part in range(pace.accumulation):
                call = step * pace.accumulation + part
                draws = seed * 1_000_003 + call * 1009 + accelerator.process_index
                generator.manual_seed(draws)
                torch.manual_seed(draws)  # dropout knows the global generator only
                last = part == pace.accumulation - 1
                with nullcontext() if last else accelerator.no_sync(wrapped):
                    with accelerator.autocast():
                        value, figures = loss(wrapped, call, generator)
                    accelerator.backward(value / pace.accumulation)
                meter.add({"loss": value, **figures})
            norm = accelerator.clip_grad_norm_(module.parameters(), settings.clip)
            assert norm is not None, "only DeepSpeed may keep it to itself"
            # The norm is the same in all processes, so they agree on what follows.
            broken = (~torch.isfinite(whole(norm))).float()
            bad = (bad + 1) * broken
            skipped = skipped + broken
            if accelerator.scaler is None:  # which in half precision does the same, and learns
                optimizer.optimizer.found_inf = broken
            optimizer.step()
            if not optimizer.step_was_skipped:
                average.update(module, step)
            if step % 10 == 9 and bad >= 10:
                raise RuntimeError(f"{name}: the gradient has not been finite for {bad:.0f} steps")
            step += 1
            now = time.monotonic()
            if step % pace.log_every == 0 or step == stop:
                speed = (step - start_step) * settings.batch / (now - logged + 1e-9)
                line = {"step": step, "samples_per_s": round(speed, 1), **meter.take(accelerator)}
                if skipped:
                    line["skipped_steps"] = int(skipped)
                    skipped = torch.zeros_like(skipped)
                write(line)
                if accelerator.is_main_process:
                    print(name, json.dumps(line), flush=True)
                logged, start_step = now, step
            if watch and (step == stop or (pace.watch_every and step % pace.watch_every == 0)):
                with average.in_place(module), torch.no_grad(), accelerator.autocast():
                    figures = watch(wrapped, step)
                write({"step": step, **figures})
            due = step % pace.save_every == 0 if pace.save_every else now - saved > SAVE_SECONDS
            if due and step < stop and not bad:
                save()
                saved = now
        if step > resumed and not bad:
            save()
    average.copy_to(module)
    return module.eval()


def _open_log(path: Path, step: int, accelerator: Accelerator) -> TextIO:
    """The log to append to, without what a killed run wrote after its last saved step."""
    if not accelerator.is_main_process:
        return open(os.devnull, "a")
    if path.exists():
        lines = [x for x in path.read_text().splitlines(True) if x.endswith("\n")]
        kept = [x for x in lines if step and json.loads(x).get("step", 0) <= step]
        path.write_text("".join(kept))
    return path.open("a")


class _Meter:
    """Figures since the last line of the log."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, figures: dict[str, Tensor]) -> None:
        for key, figure in figures.items():
            total, count = self._sums.get(key, (0.0, 0))
            self._sums[key] = total + figure.detach().float(), count + 1

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """Their means over the steps and the processes, to six digits; begins anew."""
        if not self._sums:
            return {}
        means = torch.stack(
            [torch.as_tensor(x, device=accelerator.device) / n for x, n in self._sums.values()]
        )
        values = accelerator.reduce(means, "mean").tolist()  # type: ignore[union-attr]
        taken = {key: float(f"{x:.6g}") for key, x in zip(self._sums, values, strict=True)}
        self._sums.clear()
        return taken
