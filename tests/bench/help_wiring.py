# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the pictures of help pages whose nodes need weights that no demo has: the nodes, wired.

python tests/bench/help_wiring.py     # COMFYUI_PATH: ComfyUI's folder, CHROMIUM: the browser
"""

from __future__ import annotations

import io
import os
import runpy
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

PACK = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PACK))

from pose_transfer.client import ComfyServer  # noqa: E402

browser = SimpleNamespace(**runpy.run_path(str(PACK / "tests" / "front_end.py")))

IMAGES = PACK / "web" / "docs" / "images"
MARGIN = 28  # px around the nodes; the badge with the pack's name stands above a title

# Nodes left to right, with how low they lie, and wires: from which output of which node to which
# node's which input.
Wire = tuple[int, str, int, str]
LOADED: list[Wire] = [
    (0, "source_model", 1, "model"), (0, "VAE", 1, "vae"), (0, "model", 2, "model"),
    (1, "source_features", 2, "source_features"),
]  # fmt: skip
APPLIED: list[Wire] = [
    (0, "model", 1, "model"), (0, "truepose", 1, "truepose"), (1, "MODEL", 2, "model"),
]  # fmt: skip
PICTURES: dict[str, tuple[dict[str, int], list[Wire]]] = {
    "load_truepose": ({"LoadTruePose": 0, "SourceFeatures": 190, "GuideAttention": 0}, LOADED),
    "apply_truepose": ({"LoadTruePose": 0, "ApplyTruePose": 0, "GuideAttention": 0}, APPLIED),
}

# Returns the rectangle around all nodes, in px of the page.
BUILD = """async ([kinds, wires, margin]) => {
  let x = 0;
  const nodes = Object.entries(kinds).map(([kind, y]) => {
    const node = LiteGraph.createNode("PoseTransfer" + kind);
    node.pos = [x, y];
    app.graph.add(node);
    node.setSize([Math.max(node.size[0], 300), node.size[1]]);
    x += node.size[0] + 70;
    return node;
  });
  for (const [from, output, to, input] of wires)
    nodes[from].connect(nodes[from].findOutputSlot(output), nodes[to], input);
  Object.assign(app.canvas.ds, { scale: 1, offset: [110, 190] });
  app.canvas.setDirty(true, true);
  for (let frame = 0; frame < 5; frame += 1) await new Promise(requestAnimationFrame);
  const boxes = nodes.map(node => node.getBounding());
  const { left, top } = app.canvas.canvas.getBoundingClientRect();
  const [dx, dy] = app.canvas.ds.offset;
  const sides = [0, 1].map(axis => [
    Math.min(...boxes.map(box => box[axis])) - margin,
    Math.max(...boxes.map(box => box[axis] + box[axis + 2])) + margin,
  ]);
  return {
    x: left + dx + sides[0][0], y: top + dy + sides[1][0],
    width: sides[0][1] - sides[0][0], height: sides[1][1] - sides[1][0],
  };
}"""


def main() -> None:
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(comfyui, Path(base), {"pose-transfer": PACK}) as server,
        browser.front_end_of(server, "canvas") as front_end,
    ):
        front_end.set("Comfy.Minimap.Visible", False)
        front_end.start()
        for name, wiring in PICTURES.items():
            picture(front_end, *wiring).save(IMAGES / f"{name}.jpg", quality=85)


def picture(front_end: Any, kinds: dict[str, int], wires: list[Wire]) -> Image.Image:
    """These nodes, wired, as the front end draws them."""
    front_end.clear()
    box = front_end.page.evaluate(BUILD, [kinds, wires, MARGIN])
    shot = front_end.page.screenshot(clip=box)
    return Image.open(io.BytesIO(shot)).convert("RGB")


if __name__ == "__main__":
    main()
