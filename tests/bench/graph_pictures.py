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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

PACK = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PACK))

from pose_transfer.client import ComfyServer  # noqa: E402

browser = SimpleNamespace(**runpy.run_path(str(PACK / "tests" / "front_end.py")))

WORKFLOWS = PACK / "workflows"
NAMES = ("oneposetrans_sdxl", "oneposetrans_sd15")
PARTS = (("Models",), ("Learn the person", "Person and pose"))
"""Groups that are neighbours; the parts are put side by side."""
SIZE, GAP = (788, 285), 6
"""px, as the other thumbnails."""
CORNER = (120, 150)
"""Where a part begins on the page, clear of bars."""
SCALE = 2 * (SIZE[0] - GAP) / (380 + 840)
"""px of the page per unit of the graph, so that both parts fit, at twice the thumbnail's size."""
VIEW = """([groups, [x, y], scale]) => {
  const boxes = app.graph.groups.filter(g => groups.includes(g.title)).map(g => g.boundingRect);
  const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]));
  // The canvas begins where its element does.
  const place = app.canvas.canvas.getBoundingClientRect();
  Object.assign(app.canvas.ds, {
    scale, offset: [(x - place.x) / scale - left, (y - place.y) / scale - top],
  });
  app.canvas.setDirty(true, true);
  return (Math.max(...boxes.map(b => b[0] + b[2])) - left) * scale;
}"""
"""Moves the part to the corner; its width in px."""
# Reports and maps lie over the graph.
HIDE = "[data-testid^='error-overlay'], .minimap-main-container, [role=dialog] { display: none; }"


def main() -> None:
    comfyui = Path(os.environ["COMFYUI_PATH"])
    graphs = {
        name: json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES
    }
    with (
        models_by_name(graphs) as base,
        ComfyServer(comfyui, base, {"pose-transfer": PACK}) as server,
        browser.front_end_of(server, "canvas") as front_end,
    ):
        page = front_end.page
        page.set_viewport_size({"width": 1900, "height": 900})
        page.add_style_tag(content=HIDE)
        for name, graph in graphs.items():
            page.evaluate("graph => app.loadGraphData(graph)", graph)
            page.wait_for_timeout(3000)  # the front end moves the view itself, a little later
            parts = [part_of(page, groups) for groups in PARTS]
            shown = Image.new("RGB", (2 * SIZE[0], 2 * SIZE[1]))
            left = 0
            for part in parts:
                shown.paste(part, (left, 0))
                left += part.width + 2 * GAP
            shown.resize(SIZE, Image.Resampling.LANCZOS).save(WORKFLOWS / f"{name}.jpg", quality=88)


@contextmanager
def models_by_name(graphs: dict[str, Any]) -> Iterator[Path]:
    """A base folder with empty files of the models' names, or their loaders would be red."""
    with tempfile.TemporaryDirectory() as base:
        for graph in graphs.values():
            for model in graph["models"]:
                path = Path(base, "models", model["directory"], model["name"])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        yield Path(base)


def part_of(page: Any, groups: tuple[str, ...]) -> Image.Image:
    """The upper part of these groups, at twice the thumbnail's size."""
    width = page.evaluate(VIEW, [groups, CORNER, SCALE])
    page.wait_for_timeout(1000)
    clip = {"x": CORNER[0], "y": CORNER[1], "width": width, "height": 2 * SIZE[1]}
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


if __name__ == "__main__":
    main()
