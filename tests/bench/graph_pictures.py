# SPDX-License-Identifier: GPL-3.0-or-later
"""Thumbnails of workflows whose models are not here: a part of their graph, in the real front end.

    python tests/bench/graph_pictures.py     # COMFYUI_PATH: ComfyUI's folder, CHROMIUM: the browser

Others have the pictures that they make.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from PIL import Image

PACK = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PACK))

from pose_transfer.client import ComfyServer  # noqa: E402

browser = SimpleNamespace(**runpy.run_path(str(PACK / "tests" / "browser" / "conftest.py")))

WORKFLOWS = PACK / "workflows"
NAMES = ("oneposetrans_sdxl", "oneposetrans_sd15")
GROUPS = ("Learn the person", "Person and pose", "Sample and refine")
SIZE = (788, 285)
"""px, as the other thumbnails."""
CORNER, SCALE = (120, 150), 2 * SIZE[0] / 1610
"""Where the groups begin on the page, clear of bars, and px per unit of the graph."""
VIEW = """([groups, [x, y], scale]) => {
  const boxes = app.graph.groups.filter(g => groups.includes(g.title)).map(g => g.boundingRect);
  const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]));
  // The canvas begins where its element does.
  const place = app.canvas.canvas.getBoundingClientRect();
  Object.assign(app.canvas.ds, {
    scale, offset: [(x - place.x) / scale - left, (y - place.y) / scale - top],
  });
  app.canvas.setDirty(true, true);
}"""
# Reports and maps lie over the graph.
HIDE = "[data-testid^='error-overlay'], .minimap-main-container, [role=dialog] { display: none; }"


def main() -> None:
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(comfyui, Path(base), {"pose-transfer": PACK}) as server,
        browser.front_end_of(server, "canvas") as front_end,
    ):
        page = front_end.page
        page.set_viewport_size({"width": 1900, "height": 900})
        page.add_style_tag(content=HIDE)
        for name in NAMES:
            graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
            page.evaluate("graph => app.loadGraphData(graph)", graph)
            page.wait_for_timeout(3000)  # the front end moves the view itself, a little later
            page.evaluate(VIEW, [GROUPS, CORNER, SCALE])
            page.wait_for_timeout(1000)
            (x, y), (width, height) = CORNER, SIZE
            clip = {"x": x, "y": y, "width": 2 * width, "height": 2 * height}
            shown = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
            shown.resize(SIZE, Image.Resampling.LANCZOS).save(WORKFLOWS / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
