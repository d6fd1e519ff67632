# SPDX-License-Identifier: GPL-3.0-or-later
"""The pose editor in its graph: results, reloads, wires, two editors, the host's undo, palettes.

`editor` (conftest.py) opens the real front end in both of its renderers.
"""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from pose_transfer.client import ComfyServer
from pose_transfer.mannequin import render
from pose_transfer.pose import draw, read_keypoints, write_keypoints

LEFT_WRIST, LEFT_KNEE = 7, 12
RUN_MS = 120_000
# Numbers, units, names of axes and of the format.
OF_EVERY_LANGUAGE = re.compile(r"[\d\s.×/%°−-]*(px|X|Y|OpenPose JSON)?")


def test_a_joint_is_dragged_undone_reloaded_and_run(editor: Any, server: ComfyServer):
    page: Page = editor.page

    def result() -> np.ndarray:
        """Runs the graph; the picture that Preview Image shows."""
        page.evaluate("for (const id in app.nodeOutputs) delete app.nodeOutputs[id]")
        editor.run()
        address = page.evaluate(
            "(image => '/view?' + new URLSearchParams(image))"
            "(Object.values(app.nodeOutputs).find(o => o.images).images[0])"
        )
        with urllib.request.urlopen(server.address + address) as answer:
            return np.asarray(Image.open(answer).convert("RGB"))

    untouched = result()
    editor.open()
    editor.drag(LEFT_WRIST, 60, -150)
    kept = editor.value()
    editor.drag(LEFT_KNEE, 80, 10)
    page.keyboard.press("Control+z")
    assert editor.value() == kept
    page.keyboard.press("Escape")
    workflow = page.evaluate("app.graph.serialize()")
    editor.clear()
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    expect(page.locator(".pt-node")).to_have_count(2)
    assert editor.value() == kept
    edited = result()
    editor.keep("result")
    (pose,) = read_keypoints(kept)
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
    expect(page.get_by_role("heading", name="Second", exact=True)).to_be_visible()
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


def test_it_speaks_chinese_where_comfyui_does(editor: Any):
    page: Page = editor.page
    with editor.speaking("zh"):
        expect(page.locator(".pt-node button").first).to_have_text("编辑姿态")
        editor.open(1)
        page.keyboard.press("m")
        page.keyboard.press("Control+z")
        expect(page.get_by_role("status").last).to_have_text("已撤销：镜像人物")
        for part in ("left_hand", "face", "feet"):
            page.locator(f'.pt-part[data-part="{part}"] button[title^="补全"]').click()
        editor.joint(LEFT_WRIST).focus()
        page.keyboard.press("l")
        editor.joint(4).focus()
        page.keyboard.press("Delete")
        page.keyboard.press("Shift+?")
        expect(page.get_by_role("heading", name="按键与手势")).to_be_visible()
        editor.keep("chinese-help")
        shown = editor.texts("dialog.pt-editor") + editor.texts(".pt-node >> nth=0")
        page.keyboard.press("Escape")
        editor.keep("chinese")
        page.keyboard.press("Escape")
    assert len(shown) > 300 and "人物 1 的左腕，已锁定" in shown
    chinese = re.compile(r"[\u4e00-\u9fff]")
    foreign = {x for x in shown if not (chinese.search(x) or OF_EVERY_LANGUAGE.fullmatch(x))}
    assert foreign == {"Second"}, "the title that the artist gave the node"
    expect(page.locator(".pt-node button").first).to_have_text("Edit pose")


def test_a_photo_is_uploaded_and_lies_under_the_figure(
    editor: Any, server: ComfyServer, tmp_path: Path
):
    page: Page = editor.page
    photo = tmp_path / f"my photo {editor.renderer}.png"
    Image.fromarray(render(9, 19).image).save(photo)
    editor.open()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload").click()
    chooser.value.set_files(photo)
    expect(page.locator(".pt-photo")).to_be_visible()
    kept = server.base_directory / "input" / photo.name
    assert kept.read_bytes() == photo.read_bytes()
    page.get_by_role("button", name="Canvas like photo").click()
    editor.keep("photo")
    (pose,) = read_keypoints(editor.value())
    assert (pose.width, pose.height) == (192, 256)

    workflow = page.evaluate("app.graph.serialize()")
    page.keyboard.press("Escape")
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    editor.open()
    address = page.locator(".pt-photo").evaluate("image => image.href.baseVal")
    with urllib.request.urlopen(server.address + re.sub(r"^https?://[^/]+", "", address)) as answer:
        assert answer.read() == photo.read_bytes()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator(".pt-photo")).to_be_hidden()


def test_fingers_drag_joints_move_the_view_and_pinch_it(editor: Any):
    page: Page = editor.page
    editor.open()
    page.get_by_role("button", name="Mirror").click()  # any edit, so that there is a value
    before, (x, y) = editor.body(), editor.place(LEFT_WRIST)
    # Beside the joint: a finger reaches farther than a mouse.
    editor.swipe([(x + 15, y), (x + 30, y - 30), (x + 55, y - 60)])
    moved = editor.place(LEFT_WRIST)
    assert np.allclose(moved, (x + 40, y - 60), atol=2)
    dragged = editor.body()
    assert not np.allclose(dragged[LEFT_WRIST], before[LEFT_WRIST])

    box = page.locator(".pt-stage").bounding_box()
    assert box is not None
    left, top = box["x"] + 30, box["y"] + 60
    editor.swipe([(left, top), (left + 20, top + 10), (left + 50, top + 25)])
    assert np.allclose(editor.place(LEFT_WRIST), np.add(moved, (50, 25)), atol=2)

    middle, height = box["x"] + box["width"] / 2, box["y"] + 40
    span = editor.place(2)[0] - editor.place(5)[0]
    editor.swipe(
        [(middle - 50, height), (middle - 75, height), (middle - 100, height)],
        [(middle + 50, height), (middle + 75, height), (middle + 100, height)],
    )
    assert np.isclose(editor.place(2)[0] - editor.place(5)[0], 2 * span, rtol=0.02)
    editor.keep("pinched")
    assert np.array_equal(editor.body(), dragged), "looking from elsewhere moves nobody"
