# SPDX-License-Identifier: GPL-3.0-or-later
"""The host is killed while Tune LoRA is at work: what lies on the disk, and the next queueing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from safetensors import safe_open

from pose_transfer.client import ComfyClient, ComfyServer, Progress, ServerError

PACK = Path(__file__).parents[2]
STEPS = 6
NAMED = re.compile(r"[0-9a-f]{32}\.(safetensors|png)")


def graph() -> dict[str, Any]:
    """The demo's base learns a rendered person in few and small steps."""
    nodes = {
        "demo": ("PoseTransferDemoModels", {}),
        "person": (
            "PoseTransferDemoPerson", {"identity": 19, "source_pose": 29, "target_pose": 9}
        ),
        "tune": (
            "PoseTransferTuneLoRA",
            {
                "model": ["demo", 0], "clip": ["demo", 1], "vae": ["demo", 2],
                "photos": ["person", 0], "prompt": "A man with face.", "steps": STEPS,
                "learning_rate": 0.001, "rank": 64, "alpha": 64.0, "batch": 1, "resolution": 64,
                "crop": "random squares", "seed": 0, "preview_every": 0, "blocks": "",
                "min_snr_gamma": 0.0, "noise_offset": 0.0,
            },
        ),
        "previews": ("SaveImage", {"images": ["tune", 3], "filename_prefix": "previews"}),
    }  # fmt: skip
    return {
        name: {"class_type": kind, "inputs": inputs, "_meta": {"title": name}}
        for name, (kind, inputs) in nodes.items()
    }


def queue_and_kill(
    server: ComfyServer, folder: Path, when: Callable[[float], bool]
) -> tuple[list[str], list[float]]:
    """Kills the server as soon as `when` holds of the tuning's step; what then lies in `folder`,
    and the steps that were heard of."""
    (process,) = [
        one for one in psutil.Process().children(recursive=True)
        if str(server.base_directory) in one.cmdline()
    ]  # fmt: skip
    steps: list[float] = [0.0]

    def listen(progress: Progress) -> None:
        if progress.node_title == "tune":
            steps.append(progress.value)

    async def session() -> None:
        async with ComfyClient(server.address) as client:
            running = asyncio.create_task(client.run(graph(), None, 300, listen))
            while not when(steps[-1]):
                assert not running.done(), "it ended before it was killed"
                await asyncio.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(ServerError):
                await running

    asyncio.run(session())
    process.wait(20)
    return sorted(path.name for path in folder.glob("*")), steps


def test_a_kill_in_the_middle_of_tuning_leaves_no_half_file_and_the_next_queueing_works(
    comfyui: Path, tmp_path: Path, connect: Callable[[ComfyServer], Any]
) -> None:
    base = tmp_path / "base"
    folder = base / "output" / "pose_transfer" / "loras"

    def server() -> ComfyServer:
        return ComfyServer(comfyui, base, {"pose-transfer": PACK})

    with server() as running:
        left, steps = queue_and_kill(running, folder, lambda step: step >= 2)
    assert left == [] and max(steps) < STEPS, "it was killed between two steps"

    with server() as running:
        left, _ = queue_and_kill(
            running, folder, lambda _: folder.is_dir() and any(folder.iterdir())
        )
    for name in filter(NAMED.fullmatch, left):  # whole, if it is there; drafts have other names
        require_whole(folder / name)

    with server() as running:
        comfy = connect(running)
        assert len(comfy.run(graph(), timeout=300).images["previews"]) == 1
        (made,) = folder.glob("*.safetensors")
        require_whole(made)
        again = {"previews": {"filename_prefix": "again"}, "person": {"target_pose": 39}}
        comfy.run(graph(), again, timeout=300)
        assert [made] == list(folder.glob("*.safetensors")) and made.stat().st_size > 100_000


def require_whole(path: Path) -> None:
    """Raises where a file's numbers cannot all be read."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (it is no dict)
                assert file.get_tensor(key).isfinite().all()
    else:
        with Image.open(path) as picture:
            picture.load()
