# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the demo workflows take on two cores, in a ComfyUI that was started for it.

    COMFYUI_PATH=... python tests/bench/bench_workflows.py [WORKFLOW]...

Seconds from the start of the server, and from the queueing, to the pictures; nothing is cached, so
OnePoseTrans tunes. On Linux the server is held to two cores, where there are more. The CPU time of
the run, all threads together, tells how much of it other programs took. Ends with status 1 where a
budget is exceeded: a minute from the start to the re-posed picture, four for OnePoseTrans.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pose_transfer.client import ComfyClient, ComfyServer, load_workflow  # noqa: E402

CORES = 2
PATIENCE = 3600.0


@dataclass(frozen=True)
class Budget:
    """Seconds to the pictures, from the server's start or from the queueing."""

    seconds: float
    with_start: bool


BUDGETS = {"fpdm_demo": Budget(60.0, True), "oneposetrans_demo": Budget(240.0, False)}


@dataclass(frozen=True)
class Times:
    start: float
    run: float
    cpu: float
    """Of the run, all threads together."""


def measure(name: str, comfyui: Path) -> Times:
    """One workflow in a server of its own."""
    workflow = load_workflow(ROOT / "workflows" / "api" / f"{name}.json")
    with tempfile.TemporaryDirectory(prefix="pose-transfer-bench-") as base:
        began = time.monotonic()
        with ComfyServer(comfyui, Path(base), {"pose-transfer": ROOT}) as server:
            started = time.monotonic()
            (process,) = [
                one for one in psutil.Process().children() if str(base) in " ".join(one.cmdline())
            ]  # fmt: skip
            before = sum(process.cpu_times()[:2])

            async def run() -> None:
                async with ComfyClient(server.address) as client:
                    await client.run(workflow, timeout=PATIENCE)

            asyncio.run(run())
            ended = time.monotonic()
            return Times(started - began, ended - started, sum(process.cpu_times()[:2]) - before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workflows", nargs="*", metavar="WORKFLOW", help=f"of {list(BUDGETS)}")
    asked = parser.parse_args()
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        parser.error("COMFYUI_PATH is not set: run it by `make bench`")
    names = asked.workflows or list(BUDGETS)
    if not set(names) <= BUDGETS.keys():
        parser.error(f"{names}: expected some of {list(BUDGETS)}")
    if sys.platform == "linux":  # what is started from here inherits it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    print(f"{'':18} {'start s':>8} {'run s':>8} {'CPU s':>8} {'budget':>7}")
    exceeded = False
    for name in names:
        times, budget = measure(name, Path(comfyui)), BUDGETS[name]
        exceeded |= times.run + times.start * budget.with_start > budget.seconds
        print(
            f"{name:18} {times.start:8.1f} {times.run:8.1f} {times.cpu:8.1f} {budget.seconds:7.0f}",
            flush=True,
        )
    sys.exit(exceeded)


if __name__ == "__main__":
    main()
