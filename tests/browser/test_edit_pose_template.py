# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger's way: from the template edit_pose to a pose of their own to a picture of it.

In both of the front end's renderers, on the demo's models.
"""

from __future__ import annotations

import urllib.request
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from pose_transfer.client import ComfyServer
from pose_transfer.detectors.demo import load_demo_detector, load_demo_parser

LEFT_ELBOW, LEFT_WRIST, LEFT_KNEE = 6, 7, 12
LOWERED = np.array([172.0, 116.0])  # px; the template's wrist is raised beside the head
SHOWN = """() => {
  const save = app.graph.nodes.find(node => node.type == "SaveImage");
  return "/view?" + new URLSearchParams(app.nodeOutputs[save.id].images[0]);
}"""


class Seen(NamedTuple):
    """A result (H, W, 3), where the demo's parser sees a person, where its detector joints."""

    picture: NDArray[np.uint8]
    person: NDArray[np.bool_]
    body: NDArray[np.float32]

    def reach(self, point: np.ndarray) -> float:
        """px from the left wrist that was found to that point."""
        return float(np.hypot(*(self.body[LEFT_WRIST, :2] - point)))

    def covers(self, start: np.ndarray, end: np.ndarray) -> float:
        """Which share of the line between two points, in px, lies on the person."""
        points = start + np.linspace(0, 1, 50)[:, None] * (end - start)
        x, y = np.round(points).astype(int).T
        return float(self.person[y, x].mean())


def test_a_dragged_arm_is_seen_in_the_result_and_kept_over_a_reload(
    edit_pose_template: Any, server: ComfyServer
):
    editor = edit_pose_template
    page: Page = editor.page

    def run() -> Seen:
        """Presses Run; what Save Image then shows."""
        page.evaluate("app.nodeOutputs = {}")
        editor.run()
        with urllib.request.urlopen(server.address + page.evaluate(SHOWN)) as answer:
            picture = np.asarray(Image.open(answer).convert("RGB"))
        ((person, _),) = load_demo_detector().detect(picture)
        labels, _ = load_demo_parser().parse(picture)
        return Seen(picture, labels > 0, person.body.astype(np.float32))

    untouched = editor.value()
    elbow, raised = editor.body()[[LEFT_ELBOW, LEFT_WRIST], :2]
    before = run()

    editor.open()
    across = np.subtract(editor.place(LEFT_WRIST), editor.place(LEFT_ELBOW))
    zoom = np.hypot(*across) / np.hypot(*(raised - elbow))  # px of the page for one of the canvas
    editor.drag(LEFT_WRIST, *(zoom * (LOWERED - raised)))
    editor.keep("template-dragged")
    page.get_by_role("button", name="Done").click()
    expect(page.locator("dialog.pt-editor")).to_have_count(0)
    kept = editor.value()
    assert np.allclose(editor.body()[LEFT_WRIST, :2], LOWERED, atol=1)
    after = run()
    editor.keep("template-result")

    assert before.reach(raised) < 24 < before.reach(LOWERED)
    assert after.reach(LOWERED) < 24 < after.reach(raised)
    assert before.covers(elbow, raised) > 0.8 and after.covers(elbow, LOWERED) > 0.8
    # The raised forearm is gone, but for the part at the elbow that both poses share.
    assert after.covers((elbow + raised) / 2, raised) < 0.2
    # The arm moved and nothing else: the two outlines differ where it was and where it is.
    rows, columns = np.mgrid[: before.person.shape[0], : before.person.shape[1]]
    arm = (columns > elbow[0] - 16) & (rows < LOWERED[1] + 20)
    both = (before.person & after.person & ~arm).sum()
    assert both / ((before.person | after.person) & ~arm).sum() > 0.9
    assert (before.person != after.person)[arm].sum() > 200

    # A second edit is taken back; what is left is exactly the first one, also after a reload.
    editor.open()
    editor.drag(LEFT_KNEE, 40, 10)
    assert editor.value() != kept
    page.keyboard.press("Control+z")
    page.keyboard.press("Escape")
    assert editor.value() == kept != untouched
    page.reload()
    expect(page.locator(".pt-node")).to_have_count(1, timeout=60_000)
    assert editor.value() == kept
    assert np.array_equal(run().picture, after.picture), "the same value gives the same picture"
