# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: the shipped workflow on a real ComfyUI, from nothing to a picture.

python -m pose_transfer.client.demo [workflow.json] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from .client import ComfyClient
from .errors import ServerError
from .result import Result
from .server import ComfyServer

PACK = Path(__file__).resolve().parents[2]
WORKFLOW = PACK / "workflows" / "api" / "fpdm_demo.json"
FIRST_OF_NAME = re.compile(r"_00001_(?=\.)")
TIMEOUT = 900.0  # seconds for the workflow: very slow machines get their picture too


def run_demo(workflow: Path, output: Path) -> list[Path]:
    """Runs the workflow on a server of its own; writes its pictures to `output`."""
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        raise ServerError(
            "COMFYUI_PATH is not set: run `make demo`, which sets up a ComfyUI, or set it to the "
            "folder of yours."
        )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pose-transfer-demo-") as folder:
        print("Starting ComfyUI ...", flush=True)
        with ComfyServer(Path(comfyui), Path(folder), {"pose-transfer": PACK}) as server:
            up = time.monotonic()
            print(f"It answers at {server.address}. Running {workflow.name} ...", flush=True)
            result = asyncio.run(_run(server.address, workflow))
    pictures = save_pictures(result, output)
    total = time.monotonic() - started
    for title, texts in result.texts.items():
        for text in texts:
            print(f"{title}:\n{text}")
    for path in pictures:
        print(f"Picture: {path}")
    print(
        f"Took {total:.1f} s: {up - started:.1f} s for ComfyUI to start, {result.seconds:.1f} s "
        "for the workflow."
    )
    return pictures


async def _run(address: str, workflow: Path) -> Result:
    async with ComfyClient(address) as comfy:
        return await comfy.run(workflow, timeout=TIMEOUT)


def save_pictures(result: Result, output: Path) -> list[Path]:
    """Writes what the workflow saved, under the host's names less the counter of a first file."""
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for pictures in result.pictures.values():
        for picture in pictures:
            path = output / FIRST_OF_NAME.sub("", picture.filename)
            path.write_bytes(picture.data)
            written.append(path)
    if not written:
        raise ServerError("The workflow ended without saving any picture.")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("workflow", type=Path, nargs="?", default=WORKFLOW)
    parser.add_argument("--output", type=Path, default=PACK / "output")
    arguments = parser.parse_args()
    try:
        run_demo(arguments.workflow, arguments.output)
    except (ValueError, OSError) as error:
        sys.exit(f"The demo failed: {error}")


if __name__ == "__main__":
    main()
