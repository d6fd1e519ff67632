# SPDX-License-Identifier: GPL-3.0-or-later
"""Load Pose's upload button in the real front end, in both of its renderers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from pose_transfer.client import ComfyServer
from pose_transfer.mannequin import render
from pose_transfer.pose import write_keypoints

NODE = "app.graph.nodes.find(n => n.type == 'PoseTransferLoadPose')"
BUTTON = "upload pose file"
BUILD = """() => {
  const node = LiteGraph.createNode("PoseTransferLoadPose");
  node.pos = [60, 60];
  app.graph.add(node);
  Object.assign(app.canvas.ds, { scale: 1, offset: [200, 100] });
  app.canvas.setDirty(true, true);
}"""
# Where the litegraph renderer drew the button, in px of the page.
ON_THE_CANVAS = f"""button => {{
  const node = {NODE};
  const widget = node.widgets.find(widget => widget.name == button);
  const {{ left, top }} = app.canvas.canvas.getBoundingClientRect();
  const [x, y] = app.canvas.ds.offset;
  return [left + x + node.pos[0] + node.size[0] / 2, top + y + node.pos[1] + widget.last_y + 10];
}}"""


def press(front_end: Any) -> None:
    """The button, as a mouse does it."""
    page: Page = front_end.page
    if front_end.renderer == "vue":
        page.get_by_role("button", name=BUTTON).click()
        return
    page.wait_for_function(f"{NODE}.widgets.find(w => w.name == '{BUTTON}').last_y > 0")
    page.mouse.click(*page.evaluate(ON_THE_CANVAS, BUTTON))


def test_a_pose_file_is_uploaded_and_chosen(front_end: Any, server: ComfyServer, tmp_path: Path):
    page: Page = front_end.page
    file = tmp_path / f"from the browser {front_end.renderer}.json"
    file.write_text(json.dumps(write_keypoints([render(9, 19).pose])))
    page.evaluate(BUILD)
    before = page.evaluate(f"{NODE}.serialize().widgets_values")
    with page.expect_file_chooser() as chooser:
        press(front_end)
    chooser.value.set_files(file)
    page.wait_for_function(f"{NODE}.widgets.find(w => w.name == 'file').value == '{file.name}'")
    assert (server.base_directory / "input" / file.name).read_text() == file.read_text()
    after = page.evaluate(f"{NODE}.serialize().widgets_values")
    assert after == [file.name, *before[1:]]
    assert len(after) == 7, "the button must not become a value of the workflow"
    output = page.evaluate("app.graphToPrompt().then(prompt => Object.values(prompt.output))")
    assert [node["inputs"]["file"] for node in output] == [file.name]


def test_a_file_that_is_refused_is_named(front_end: Any, tmp_path: Path):
    page: Page = front_end.page
    file = tmp_path / "too large.json"
    file.write_text("[]")
    page.evaluate(BUILD)
    page.route("**/upload/image", lambda route: route.fulfill(status=413))
    try:
        with page.expect_file_chooser() as chooser:
            press(front_end)
        chooser.value.set_files(file)
        message = page.locator(".p-toast-message").filter(has_text=file.name)
        expect(message).to_contain_text("too large.json was not uploaded: 413")
    finally:
        page.unroute("**/upload/image")
