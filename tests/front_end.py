# SPDX-License-Identifier: GPL-3.0-or-later
"""ComfyUI's real front end, and the pose editor in it, for the browser's tests and measurements.

Pictures that are kept land in build/screenshots.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, ElementHandle, Locator, Page, expect, sync_playwright

from pose_transfer.client import ComfyServer
from pose_transfer.pose import read_keypoints
from pose_transfer.types import Pose

SCREENSHOTS = Path(__file__).resolve().parents[1] / "build" / "screenshots"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PACK = "pose-transfer"  # its folder, by which the template browser names it
START_MS, RUN_MS = 60_000, 300_000
expect.set_options(timeout=20_000)  # the machine is busy with other tests

CLEAR = """async () => {
  app.graph.clear();
  // Vue has to see that the nodes are gone, or it takes new ones of equal ids for them.
  await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
  app.nodeOutputs = {};
}"""
# The setting is there at once. The front end then fetches the names of all nodes, which takes a
# second and more, and opens the workflow again as it was.
CHOOSE = """async locale => {
  const { loadGraphData } = app;
  window.madeAnew = false;
  app.loadGraphData = async function load(...given) {
    app.loadGraphData = loadGraphData;
    await loadGraphData.apply(app, given);
    window.madeAnew = true;
  };
  await app.extensionManager.setting.set("Comfy.Locale", locale);
}"""
# How each run ended, by its id, from the first call on.
LISTEN = """() => {
  if (window.ended) return;
  window.ended = {};
  for (const kind of ["execution_success", "execution_error"])
    app.api.addEventListener(
      kind, ({ detail }) => { window.ended[detail.prompt_id] = [kind, detail]; });
}"""
# Edit Pose -> Draw Pose -> Preview Image, and a second Edit Pose below. Adding them makes a step of
# the host's undo, as an artist's own click does.
BUILD = """() => {
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

# Until the picture of the open editor is on the screen; the best of five, for the machine is busy
# with other tests.
OPENING = """async button => {
  let best = Infinity;
  for (let time = 0; time < 5; time += 1) {
    document.querySelector("dialog.pt-editor .pt-primary")?.click();
    await new Promise(resolve => setTimeout(resolve, 100));
    const start = performance.now();
    button.click();
    await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
    best = Math.min(best, performance.now() - start);
  }
  return best;
}"""
# Two pointer moves in each frame for two seconds, the whole arm following.
FOLLOWING = """async () => {
  const stage = document.querySelector(".pt-stage");
  const box = document.querySelector('[data-joint="body.5"]').getBoundingClientRect();
  const at = [box.x + box.width / 2, box.y + box.height / 2];
  const send = (type, x, y) => stage.dispatchEvent(new PointerEvent(type, {
    pointerId: 1, pointerType: "mouse", button: 0, clientX: x, clientY: y, altKey: true,
    bubbles: true, cancelable: true,
  }));
  stage.setPointerCapture = () => {}; // there is no such pointer
  send("pointerdown", ...at);
  const stamps = [], work = [];
  await new Promise(resolve => {
    const step = stamp => {
      stamps.push(stamp);
      if (stamp - stamps[0] > 2000) return resolve();
      const start = performance.now();
      for (const half of [0, 0.5]) {
        const turn = (stamps.length + half) / 10;
        send("pointermove", at[0] + 60 * Math.sin(turn), at[1] + 60 * Math.cos(turn) - 60);
      }
      work.push(performance.now() - start);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  });
  send("pointerup", ...at);
  work.sort((a, b) => a - b);
  const rate = 1000 * (stamps.length - 1) / (stamps.at(-1) - stamps[0]);
  return [rate, work[work.length >> 1], work[work.length >> 3]];
}"""


# Every text of an element and what lies in it, also those that are heard or seen under the pointer.
# The names of keys are left out.
TEXTS = """root => {
  const NAMES = ["title", "aria-label", "aria-valuetext", "placeholder", "alt", "data-count"];
  const found = [];
  const walk = element => {
    for (const name of NAMES)
      if (element.hasAttribute(name)) found.push(element.getAttribute(name));
    if (element.localName == "kbd") return;
    for (const child of element.childNodes)
      if (child.nodeType == Node.TEXT_NODE) found.push(child.data);
      else walk(child);
  };
  walk(root);
  return found.map(text => text.trim()).filter(Boolean);
}"""


class FrontEnd:
    """A page of the front end. `topic` begins the names of the pictures that are kept."""

    topic = "graph"

    def __init__(self, browser: Browser, server: ComfyServer, renderer: str) -> None:
        self.browser = browser
        self.server = server
        self.renderer = renderer
        self.errors: list[str] = []  # of scripts, since the test began
        self.page = self._new_page()

    def _new_page(self) -> Page:
        page = self.browser.new_page(viewport={"width": 1500, "height": 950}, locale="en-US")
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    def renew(self) -> None:
        """Opens the front end as somebody meets it who was never here."""
        self.page.close()
        self.page = self._new_page()
        self.start()

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

    def show_templates(self) -> Locator:
        """Opens the template browser at this pack's; returns its window."""
        self.page.get_by_role("button", name="Templates").first.click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text(PACK, exact=True).click()
        expect(dialog.get_by_test_id(re.compile("^template-workflow-")).first).to_be_visible(
            timeout=START_MS
        )
        return dialog

    def open_template(self, name: str) -> None:
        """Opens a workflow of the pack from the template browser."""
        self.show_templates().get_by_test_id(f"template-workflow-{name}").click()
        expect(self.page.get_by_role("dialog")).to_have_count(0, timeout=START_MS)
        self.page.wait_for_function("app.graph.nodes.some(n => n.type.startsWith('PoseTransfer'))")
        self.page.wait_for_timeout(1000)  # the check for missing models comes after the graph

    def texts(self, selector: str) -> list[str]:
        """What an element shows and says, with all that lies in it."""
        return self.page.locator(selector).evaluate(TEXTS)

    @contextmanager
    def speaking(self, locale: str) -> Iterator[None]:
        """Another language for a while. The front end makes all nodes anew, before and after."""
        self._choose(locale)
        try:
            yield
        finally:
            self._choose("en")

    def _choose(self, locale: str) -> None:
        """Chooses a language and waits until the nodes have been made anew."""
        self.page.evaluate(CHOOSE, locale)
        self.page.wait_for_function("window.madeAnew", timeout=START_MS)

    def clear(self) -> None:
        """Takes all nodes out of the graph."""
        self.page.evaluate(CLEAR)

    def run(self) -> None:
        """Presses Run and waits for the end of that run, which must be a good one."""
        self.page.evaluate(LISTEN)
        with self.page.expect_response(
            lambda answer: answer.url.endswith("/prompt") and answer.request.method == "POST",
            timeout=START_MS,
        ) as queued:
            self.page.get_by_test_id("queue-button").click()
        answer = queued.value.json()
        assert queued.value.ok and not answer["node_errors"], answer
        ended = f"window.ended[{json.dumps(answer['prompt_id'])}]"
        self.page.wait_for_function(ended, timeout=RUN_MS)
        kind, detail = self.page.evaluate(ended)
        assert kind == "execution_success", detail

    def swipe(self, *ways: Sequence[tuple[float, float]]) -> None:
        """Puts one finger down for each way, moves all along theirs, and takes them off."""
        session = self.page.context.new_cdp_session(self.page)
        kinds = ["touchStart", *["touchMove"] * (len(ways[0]) - 1)]
        for kind, places in zip(kinds, zip(*ways, strict=True), strict=True):
            points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        session.detach()

    def keep(self, name: str) -> None:
        """Keeps a picture of the page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self.topic}-{name}-{self.renderer}.png")

    def note(self, name: str, measured: dict[str, float]) -> None:
        """Prints what was measured and keeps it beside the pictures."""
        print(self.renderer, measured)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"{self.topic}-{name}-{self.renderer}.json"
        file.write_text(json.dumps(measured))


class EditorPage(FrontEnd):
    """The pose editors in the graph of a page that is open."""

    topic = "pose-editor"

    def __init__(self, front_end: FrontEnd) -> None:
        self.browser, self.page = front_end.browser, front_end.page
        self.server, self.renderer = front_end.server, front_end.renderer
        self.errors = front_end.errors

    def build(self) -> None:
        """Makes a new graph, with two untouched editors."""
        self.clear()
        self.page.evaluate(BUILD)
        expect(self.page.locator(".pt-node")).to_have_count(2)

    def preview(self, which: int = 0) -> ElementHandle:
        """The small picture in a node, which opens its editor."""
        widget = f"{EDITORS}[{which}].widgets.find(widget => widget.name == 'pose')"
        # The front end puts it into the page some time after its node is in the graph.
        found = self.page.wait_for_function(
            f"(button => button.isConnected && button)({widget}.element.querySelector('button'))"
        ).as_element()
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

    def speed(self) -> dict[str, float]:
        """How fast the open editor is with a whole person of 136 joints.

        Milliseconds until it is open; frames per second while a joint is dragged; milliseconds of
        work in a frame, half and an eighth of all frames needing less.
        """
        for part in ("left_hand", "right_hand", "face", "feet"):
            self.page.locator(f'.pt-part[data-part="{part}"] button[title^="Add"]').click()
        self.page.keyboard.press("Escape")
        opened = self.preview().evaluate(OPENING)
        rate, work, least = self.page.evaluate(FOLLOWING)
        return {
            "opened_ms": round(opened),
            "frames_per_s": round(rate, 1),
            "work_ms": round(work, 1),
            "least_work_ms": round(least, 1),
        }

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


@contextmanager
def front_end_of(server: ComfyServer, renderer: str) -> Iterator[FrontEnd]:
    """The front end of a server in a browser of its own; `renderer`: canvas or vue."""
    chromium = os.environ.get("CHROMIUM")
    if not chromium:
        pytest.fail("CHROMIUM is not set: run these tests by `make test` or `make test-host`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        front_end = FrontEnd(browser, server, renderer)
        front_end.set("Comfy.TutorialCompleted", True)
        front_end.set("Comfy.VueNodes.Enabled", renderer == "vue")
        front_end.start()
        yield front_end
        browser.close()
    front_end.set("Comfy.VueNodes.Enabled", False)
