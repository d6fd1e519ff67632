# SPDX-License-Identifier: GPL-3.0-or-later
"""The pose editor in the real front end, for the tests beside this file.

Pictures land in build/screenshots.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import ElementHandle, Error, Locator, Page, expect, sync_playwright

from pose_transfer.client import ComfyServer
from pose_transfer.pose import read_keypoints
from pose_transfer.types import Pose

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
START_MS = 60_000

# Edit Pose -> Draw Pose -> Preview Image, and a second Edit Pose below. Adding them makes a step of
# the host's undo, as an artist's own click does.
BUILD = """async () => {
  document.querySelector("dialog.pt-editor .pt-primary")?.click();
  app.graph.clear();
  // Vue has to see that the nodes are gone, or it takes the new ones of equal ids for them.
  await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
  app.nodeOutputs = {};
  const add = (type, x, y) => {
    const node = LiteGraph.createNode(type);
    node.pos = [x, y];
    app.graph.add(node);
    return node;
  };
  const edit = add("PoseTransferEditPose", 40, 60);
  const draw = add("PoseTransferDrawPose", 360, 60);
  edit.connect(0, draw, 0);
  draw.connect(0, add("PreviewImage", 640, 60), 0);
  add("PoseTransferEditPose", 40, 520).title = "Second";
  Object.assign(app.canvas.ds, { scale: 1, offset: [120, 60] });
  app.canvas.setDirty(true, true);
  app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState();
}"""
# By id: the host reorders a graph's nodes when one of them gets the focus.
EDITORS = (
    "app.graph.nodes.filter(node => node.type == 'PoseTransferEditPose')"
    ".sort((one, other) => one.id - other.id)"
)
VALUES = f"{EDITORS}.map(node => node.widgets.find(widget => widget.name == 'pose').value)"


class EditorPage:
    """A page of the front end with two untouched editors in the graph."""

    def __init__(self, page: Page, server: ComfyServer, renderer: str) -> None:
        self.page = page
        self.server = server
        self.renderer = renderer

    def set(self, name: str, value: Any) -> None:
        """Changes a setting of the front end; it counts from the next start on."""
        request = urllib.request.Request(
            f"{self.server.address}/settings/{name}",
            data=json.dumps(value).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).close()

    def start(self) -> None:
        """Opens the front end and waits until its first workflow is there."""
        self.page.goto(self.server.address)
        self.page.wait_for_function(
            "window.app?.extensionManager?.workflow?.activeWorkflow?.changeTracker && app.graph",
            timeout=START_MS,
        )

    def build(self) -> None:
        """Makes the graph anew."""
        self.page.evaluate(BUILD)
        expect(self.page.locator(".pt-node")).to_have_count(2)

    def keep(self, name: str) -> None:
        """Keeps a picture of the page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"pose-editor-{name}-{self.renderer}.png")

    def note(self, name: str, measured: dict[str, float]) -> None:
        """Prints what was measured and keeps it beside the pictures."""
        print(self.renderer, measured)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"pose-editor-{name}-{self.renderer}.json"
        file.write_text(json.dumps(measured))

    def preview(self, which: int = 0) -> ElementHandle:
        """The small picture in a node, which opens its editor."""
        widget = f"{EDITORS}[{which}].widgets.find(widget => widget.name == 'pose')"
        found = self.page.evaluate_handle(f"{widget}.element.querySelector('button')").as_element()
        assert found is not None
        return found

    def open(self, which: int = 0) -> None:
        self.preview(which).click()
        expect(self.page.locator("dialog.pt-editor")).to_be_visible()

    def joint(self, index: int, part: str = "body") -> Locator:
        """A joint of the selected person."""
        return self.page.locator(f'.pt-selected circle[data-joint="{part}.{index}"]')

    def place(self, index: int) -> tuple[float, float]:
        """Where a joint is on the page, in px."""
        box = self.joint(index).bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, index: int, dx: float, dy: float) -> None:
        """Drags a joint by so many px of the page."""
        x, y = self.place(index)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + dx, y + dy, steps=8)
        self.page.mouse.up()

    def values(self) -> list[str]:
        """What the nodes keep."""
        return self.page.evaluate(VALUES)

    def value(self, which: int = 0) -> str:
        return self.values()[which]

    def body(self) -> np.ndarray:
        """The (18, 3) points of the first node's first person."""
        (pose,) = read_keypoints(self.value())
        return pose.people[0].body

    def shows(self, pose: Pose) -> bool:
        """Whether the first node keeps that pose."""
        return self.is_same(self.value(), pose)

    @staticmethod
    def is_same(text: str, pose: Pose) -> bool:
        """Whether the text is that pose, to the hundredth of a pixel that the editor keeps."""
        (found,) = read_keypoints(text)
        return len(found.people) == 1 and np.allclose(
            found.people[0].body, pose.people[0].body, rtol=0, atol=0.006
        )


@pytest.fixture(scope="module", params=["canvas", "vue"])
def editor_page(request: pytest.FixtureRequest, server: ComfyServer) -> Iterator[EditorPage]:
    """One for each of the front end's two ways to draw nodes.

    Opened once: starting it takes longer than all the tests.
    """
    chromium = os.environ.get("CHROMIUM")
    if not chromium:
        pytest.fail("CHROMIUM is not set: run these tests by `make test` or `make test-host`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950}, locale="en-US")
        editor = EditorPage(page, server, request.param)
        editor.set("Comfy.TutorialCompleted", True)
        editor.set("Comfy.VueNodes.Enabled", request.param == "vue")
        editor.start()
        yield editor
        browser.close()
    editor.set("Comfy.VueNodes.Enabled", False)


@pytest.fixture
def editor(editor_page: EditorPage) -> Iterator[EditorPage]:
    """The front end with a new graph; a script error fails the test."""
    errors: list[str] = []

    def note(error: Error) -> None:
        errors.append(str(error))

    editor_page.page.on("pageerror", note)
    editor_page.build()
    yield editor_page
    editor_page.page.remove_listener("pageerror", note)
    assert errors == []
