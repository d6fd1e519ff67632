# SPDX-License-Identifier: GPL-3.0-or-later
"""The pose editor in its graph: results, reloads, wires, two editors, the host's undo, palettes.

`editor` (conftest.py) opens the real front end in both of its renderers.
"""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from pose_transfer.client import ComfyServer
from pose_transfer.mannequin import render
from pose_transfer.pose import draw, read_keypoints, write_keypoints

LEFT_WRIST = 7
RUN_MS = 120_000


def test_a_dragged_joint_changes_the_result(editor: Any, server: ComfyServer):
    page: Page = editor.page

    def result() -> np.ndarray:
        """Runs the graph; the picture that Preview Image shows."""
        page.evaluate("for (const id in app.nodeOutputs) delete app.nodeOutputs[id]")
        page.get_by_test_id("queue-button").click()
        page.wait_for_function(
            "Object.values(app.nodeOutputs).some(o => o.images) || app.lastNodeErrors"
            " || app.lastExecutionError",
            timeout=RUN_MS,
        )
        assert page.evaluate("[app.lastNodeErrors, app.lastExecutionError]") == [None, None]
        address = page.evaluate(
            "(image => '/view?' + new URLSearchParams(image))"
            "(Object.values(app.nodeOutputs).find(o => o.images).images[0])"
        )
        with urllib.request.urlopen(server.address + address) as answer:
            return np.asarray(Image.open(answer).convert("RGB"))

    untouched = result()
    editor.open()
    editor.drag(LEFT_WRIST, 60, -150)
    page.keyboard.press("Escape")
    edited = result()
    editor.keep("result")
    (pose,) = read_keypoints(editor.value())
    assert np.array_equal(edited, draw(pose, 768, 512, "openpose"))
    assert not np.array_equal(edited, untouched)


def test_the_value_is_the_same_after_a_reload(editor: Any):
    page: Page = editor.page
    editor.open()
    editor.drag(LEFT_WRIST, 33, -77)
    page.keyboard.press("l")
    editor.joint(10).focus()
    page.keyboard.press("h")
    for part in ("left_hand", "face"):
        page.locator(f'.pt-part[data-part="{part}"] button[title^="Add"]').click()
    page.keyboard.press("Escape")
    saved, workflow = editor.value(), page.evaluate("app.graph.serialize()")
    assert "left_hand_keypoints_2d" not in saved
    assert "hand_left_keypoints_2d" in saved

    editor.start()
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    expect(page.locator(".pt-node")).to_have_count(2)
    assert editor.value() == saved
    prompt = page.evaluate("app.graphToPrompt().then(prompt => Object.values(prompt.output))")
    given = [node["inputs"]["pose"] for node in prompt if "EditPose" in node["class_type"]]
    assert given == [saved, ""]
    editor.open()
    expect(editor.joint(LEFT_WRIST)).to_have_class(re.compile("pt-locked"))
    expect(editor.joint(10)).to_have_class(re.compile("pt-hidden"))
    editor.keep("reloaded")
    page.keyboard.press("m")
    page.keyboard.press("Control+z")
    assert editor.value() == saved


def test_the_wired_pose_and_picture_come_to_the_editor(editor: Any, server: ComfyServer):
    page: Page = editor.page
    sample = render(9, 19)
    picture = f"editor {editor.renderer}.png"
    Image.fromarray(sample.image).save(server.base_directory / "input" / picture)
    page.evaluate(
        """([pose, picture]) => {
          const edit = app.graph.nodes
            .filter(node => node.type == "PoseTransferEditPose").sort((a, b) => a.id - b.id)[0];
          const load = LiteGraph.createNode("PoseTransferLoadPose");
          const image = LiteGraph.createNode("LoadImage");
          load.pos = [-300, 60]; image.pos = [-300, 500];
          app.graph.add(load); app.graph.add(image);
          load.widgets.find(widget => widget.name == "text").value = pose;
          const file = image.widgets.find(widget => widget.name == "image");
          file.options.values.push(picture);
          file.value = picture;
          load.connect(0, edit, "detected_pose");
          image.connect(0, edit, "image");
        }""",
        [json.dumps(write_keypoints([sample.pose])), picture],
    )
    page.get_by_test_id("queue-button").click()
    caption = page.get_by_text("1 person, 192 × 256 px, as wired", exact=True)
    expect(caption).to_be_visible(timeout=RUN_MS)
    editor.open()
    size = """async () => {
      const picture = new Image();
      picture.src = document.querySelector(".pt-photo").href.baseVal;
      await picture.decode();
      return [picture.naturalWidth, picture.naturalHeight];
    }"""
    assert page.evaluate(size) == [192, 256]
    editor.drag(4, 20, -30)
    editor.keep("wired")
    assert not editor.shows(sample.pose)
    page.get_by_role("button", name="Take wired pose").click()
    assert editor.shows(sample.pose)
    page.keyboard.press("Control+z")
    assert not editor.shows(sample.pose)


def test_two_editors_keep_their_own_pose_and_history(editor: Any):
    page: Page = editor.page
    editor.open(0)
    page.locator(".pt-preset", has_text="Waving").click()
    page.keyboard.press("Escape")
    editor.open(1)
    expect(page.get_by_role("heading", name="Second")).to_be_visible()
    page.locator(".pt-preset", has_text="Sitting").click()
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    editor.keep("two")
    first, second = editor.values()
    assert len(read_keypoints(first)[0].people) == 1
    assert len(read_keypoints(second)[0].people) == 2
    editor.open(0)
    page.keyboard.press("Control+z")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    assert editor.values()[1] == second
    page.keyboard.press("Control+y")
    assert editor.values() == [first, second]


def test_the_host_s_undo_takes_back_one_edit_and_the_editor_lives_on(editor: Any):
    page: Page = editor.page
    undo = "app.extensionManager.workflow.activeWorkflow.changeTracker.undo()"
    editor.open()
    page.keyboard.press("m")
    first = editor.value()
    editor.drag(LEFT_WRIST, 30, -90)
    second = editor.value()
    page.evaluate(undo)
    expect(page.locator("dialog.pt-editor")).to_be_visible()
    assert editor.value() == first
    editor.drag(LEFT_WRIST, -20, -20)
    assert editor.value() not in (first, second)
    page.keyboard.press("Escape")
    page.evaluate(undo)
    assert editor.value() == first
    editor.open()
    expect(page.locator(".pt-selected circle")).to_have_count(18)


def test_it_wears_the_light_palette(editor: Any):
    page: Page = editor.page
    editor.set("Comfy.ColorPalette", "light")
    try:
        editor.start()
        editor.build()
        editor.open()
        editor.keep("light")
        colours = page.evaluate(
            "(style => [style.backgroundColor, style.color])"
            "(getComputedStyle(document.querySelector('dialog.pt-editor')))"
        )
    finally:
        editor.set("Comfy.ColorPalette", "dark")
    light, dark = (sum(map(float, c[c.index("(") + 1 : -1].split(",")[:3])) for c in colours)
    assert light > 600 > 200 > dark
