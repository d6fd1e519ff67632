# SPDX-License-Identifier: GPL-3.0-or-later
"""Thumbnails of the workflows, from the pictures that they make with the demo in the real host.

    python tests/bench/thumbnails.py [NAME]...     # COMFYUI_PATH: ComfyUI's folder; default: all

Those whose models no demo stands in for show their graph: `graph_pictures.py`.
"""

from __future__ import annotations

import asyncio
import io
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from picture_rows import side_by_side
from PIL import Image, ImageSequence

PACK = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PACK))

from pose_transfer.client import ComfyClient, ComfyServer, load_workflow  # noqa: E402
from pose_transfer.client.workflow import Workflow  # noqa: E402
from pose_transfer.mannequin import render  # noqa: E402

TESTS = PACK / "tests" / "host" / "test_truepose_workflows.py"
on_the_demo: Callable[..., Workflow] = runpy.run_path(str(TESTS))["on_the_demo"]

WORKFLOWS = PACK / "workflows"
README_PICTURE = PACK / "docs" / "images" / "demo.jpg"
HEIGHT = 256
"""Of a picture in a row, px."""
ROWS = {
    "edit_pose": ("Save result",),
    "fpdm_sequence": ("Save film",),
    "person_parsing": ("Save parsing", "Save mask", "Save composite", "Save face"),
    "pose_from_photo": ("Save picture", "Save pose map"),
    "retarget_pose": ("Save overlay", "Save pose map"),
}
SHEETS = {
    "fpdm_demo": "Save comparison",
    "fpdm_photo": "Save comparison",
    "oneposetrans_demo": "Save comparison",
    "start_here_demo": "Save side by side",
    "truepose_demo": "Save comparison",
    "truepose_edit_region": "Save side by side",
    "truepose_training_free": "Save comparison",
}
"""Which picture of a workflow is one already."""
FRAMES = 5
"""Of a film, evenly spaced."""
IDENTITY, POSE, NEW_POSE = 129, 29, 9
"""The mannequin that stands in for a photo, as it stands there, and as it shall."""


async def for_photos(client: ComfyClient, name: str) -> tuple[Workflow, dict[str, Any]]:
    """A workflow for photos on the demo's models, and what to change in it."""
    if name == "fpdm_photo":
        return load_workflow(WORKFLOWS / "api" / "fpdm_demo.json"), {
            "Person": {"identity": IDENTITY}
        }
    photos = []
    person = render(IDENTITY, POSE)
    for label, sample in (("person", person), ("pose", render(IDENTITY, NEW_POSE))):
        data = io.BytesIO()
        Image.fromarray(sample.image).save(data, "png")
        photos.append(await client.upload_image(f"{label}.png", data.getvalue()))
    return on_the_demo(load_workflow(WORKFLOWS / "api" / f"{name}.json"), *photos), {
        "Guide attention": {"strength": 4.0},
        "Source features": {"mode": "clean, once"},
        "Sample": {"steps": 20, "cfg": 2.0, "scheduler": "sgm_uniform"},
        "Caption": {"value": person.caption},
    }


async def made(client: ComfyClient, name: str) -> dict[str, list[Image.Image]]:
    """The pictures that a workflow saves, by the title of the node."""
    if name in ("fpdm_photo", "truepose_training_free"):
        workflow, changes = await for_photos(client, name)
    else:
        workflow, changes = load_workflow(WORKFLOWS / "api" / f"{name}.json"), {}
    result = await client.run(workflow, changes, 1500)
    return {
        title: [Image.open(io.BytesIO(data)) for data in pictures]
        for title, pictures in result.images.items()
    }


def row(pictures: list[Image.Image]) -> Image.Image:
    """Pictures side by side, of a film some frames."""
    shown = []
    for picture in pictures:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
        chosen = np.linspace(0, len(frames) - 1, min(len(frames), FRAMES)).round().astype(int)
        shown += [frames[i] for i in chosen]
    return side_by_side(shown, HEIGHT)


async def make(address: str, names: list[str]) -> None:
    """These workflows' thumbnails, from the server at that address."""
    async with ComfyClient(address) as client:
        for name in names:
            pictures = await made(client, name)
            if name in SHEETS:
                thumbnail = pictures[SHEETS[name]][0].convert("RGB")
            else:
                thumbnail = row([pictures[title][0] for title in ROWS[name]])
            thumbnail.save(WORKFLOWS / f"{name}.jpg", quality=88)
            print(name, thumbnail.size, flush=True)


def main() -> None:
    names = sys.argv[1:] or sorted({**ROWS, **SHEETS})
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(comfyui, Path(base), {"pose-transfer": PACK}) as server,
    ):
        asyncio.run(make(server.address, names))
    shutil.copyfile(WORKFLOWS / "fpdm_demo.jpg", README_PICTURE)


if __name__ == "__main__":
    main()
