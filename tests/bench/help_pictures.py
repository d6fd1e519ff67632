# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the pictures of FPDM's help pages (web/docs/images) with the demo, in the real host.

python tests/bench/help_pictures.py     # COMFYUI_PATH: ComfyUI's folder
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

PACK = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PACK))

from pose_transfer.client import ComfyClient, ComfyServer, load_workflow  # noqa: E402

IMAGES = PACK / "web" / "docs" / "images"
DEMO = PACK / "workflows" / "api" / "fpdm_demo.json"
POSES = (9, 39, 69)
HEIGHT, GAP, PAPER = 224, 6, (250, 250, 250)

Pictures = dict[str, Image.Image]


async def pictures(client: ComfyClient, **changes: dict[str, Any]) -> Pictures:
    """Source, pose map, result and truth of the demo; `changes`: inputs by a node's title."""
    workflow = load_workflow(DEMO)
    titles = {node["_meta"]["title"]: node_id for node_id, node in workflow.items()}
    for number, (title, origin, slot) in enumerate(
        [("source", "Person", 0), ("pose map", "Draw target pose", 0), ("truth", "Person", 2)], 900
    ):
        workflow[str(number)] = {
            "class_type": "SaveImage",
            "inputs": {"images": [titles[origin], slot], "filename_prefix": "help"},
            "_meta": {"title": title},
        }
    overrides = {title.replace("_", " "): inputs for title, inputs in changes.items()}
    result = await client.run(workflow, overrides, 600)
    saved = {title: Image.open(io.BytesIO(data[0])) for title, data in result.images.items()}
    return {**saved, "result": saved["Save result"]}


def row(path: Path, *shown: Image.Image) -> None:
    """The pictures side by side, as a JPEG."""
    sized = [x.convert("RGB").resize((round(x.width * HEIGHT / x.height), HEIGHT)) for x in shown]
    width = sum(x.width for x in sized) + GAP * (len(sized) + 1)
    sheet = Image.new("RGB", (width, HEIGHT + 2 * GAP), PAPER)
    left = GAP
    for picture in sized:
        sheet.paste(picture, (left, GAP))
        left += picture.width + GAP
    sheet.save(path, quality=85)


async def make(address: str) -> None:
    """All pictures, from the server at that address."""
    async with ComfyClient(address) as client:
        posed = [await pictures(client, Person={"target_pose": pose}) for pose in POSES]
        first = posed[0]
        row(
            IMAGES / "load_fpdm.jpg", *(first[k] for k in ("source", "pose map", "result", "truth"))
        )
        pairs = [posed_one[k] for posed_one in posed for k in ("pose map", "result")]
        row(IMAGES / "apply_fpdm.jpg", first["source"], *pairs)

        without = await pictures(client, FPDM_guider={"fusion_weight": 0.0})
        shown = first["source"], first["pose map"], without["result"], first["result"]
        row(IMAGES / "fusion_embedding.jpg", *shown, first["truth"])

        weighed = [
            await pictures(client, FPDM_guider={"source_weight": w, "fusion_weight": w})
            for w in (1.0, 4.0, 8.0)
        ]
        results = [weighed[0], first, *weighed[1:]]
        row(IMAGES / "fpdm_guider.jpg", first["source"], *(x["result"] for x in results))


def main() -> None:
    """Starts the host with this pack and makes the pictures."""
    IMAGES.mkdir(exist_ok=True)
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(comfyui, Path(base), {"pose-transfer": PACK}) as server,
    ):
        asyncio.run(make(server.address))


if __name__ == "__main__":
    main()
