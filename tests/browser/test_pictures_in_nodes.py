# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes show of their work: Compare's slider, and the pictures of those that find or learn.

`front_end` (conftest.py) opens the real front end in both of its renderers.
"""

from __future__ import annotations

import io
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from pose_transfer.parsing import PALETTE

RED, GREEN, BLUE, WHITE, GREY = 0xDD2222, 0x22AA44, 0x2244DD, 0xF0F0F0, 0x808080
WIDTH, HEIGHT = 96, 128
COMPARE = "app.graph.nodes.find(node => node.type == 'PoseTransferCompare')"


def empty(color: int) -> dict[str, Any]:
    values = {"width": WIDTH, "height": HEIGHT, "batch_size": 1, "color": color}
    return {"class_type": "EmptyImage", "inputs": values}


# The truth of the first row is blue, that of the second is white.
COMPARISON = {
    "1": empty(RED),
    "2": empty(GREY),
    "3": empty(GREEN),
    "4": empty(BLUE),
    "5": empty(WHITE),
    "6": {"class_type": "ImageBatch", "inputs": {"image1": ["4", 0], "image2": ["5", 0]}},
    "7": {
        "class_type": "PoseTransferCompare",
        "inputs": {
            "source": ["1", 0],
            "pose_map": ["2", 0],
            "result": ["3", 0],
            "truth": ["6", 0],
        },
    },
}

SHOWING = ("DetectPose", "ParsePerson", "AttentionMaps")
PICTURES = {
    "1": {
        "class_type": "PoseTransferDemoPerson",
        "inputs": {"identity": 9, "source_pose": 19, "target_pose": 29},
    },
    "2": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["1", 2]}},
    "3": {
        "class_type": "PoseTransferDetectPose",
        "inputs": {
            "image": ["2", 0], "detector": "mannequin (demo)", "hands": False, "face": False,
            "feet": False, "resolution": 768, "people": "all", "index": 0, "order": "area",
            "on_missing": "error", "style": "openpose",
        },
    },
    "4": {
        "class_type": "PoseTransferParsePerson",
        "inputs": {"image": ["2", 0], "parser": "mannequin (demo)"},
    },
    "5": {"class_type": "PoseTransferDemoModels", "inputs": {}},
    "6": {
        "class_type": "PoseTransferTuneLoRA",
        "inputs": {
            "model": ["5", 0], "clip": ["5", 1], "vae": ["5", 2], "photos": ["1", 0],
            "prompt": "A man with face.", "steps": 4, "learning_rate": 0.001, "rank": 4,
            "alpha": 4.0, "batch": 1, "resolution": 64, "crop": "random squares", "seed": 0,
            "preview_every": 2, "blocks": "", "min_snr_gamma": 0.0, "noise_offset": 0.0,
        },
    },
    "7": {"class_type": "PreviewImage", "inputs": {"images": ["3", 1]}},
    "8": {"class_type": "PreviewImage", "inputs": {"images": ["4", 1]}},
    "9": {"class_type": "PreviewImage", "inputs": {"images": ["6", 3]}},
    "10": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["5", 1], "text": "A man."}},
    "11": {"class_type": "VAEEncode", "inputs": {"vae": ["5", 2], "pixels": ["1", 0]}},
    "12": {
        "class_type": "PoseTransferSourceFeatures",
        "inputs": {
            "model": ["5", 0], "vae": ["5", 2], "source": ["1", 0], "parsing": ["1", 5],
            "mode": "live, every step", "conditioning": ["10", 0],
        },
    },
    "13": {
        "class_type": "PoseTransferGuideAttention",
        "inputs": {
            "model": ["5", 0], "source_features": ["12", 0], "record": True, "face": 1.0,
            "hair": 1.0, "upper": 1.0, "lower": 1.0, "dress": 1.0, "shoes": 1.0, "skin": 1.0,
            "accessories": 1.0, "background": 0.0, "blocks": "all", "strength": 1.0, "start": 0.0,
            "end": 1.0, "correspondence": 1.0,
        },
    },
    "14": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["13", 0], "positive": ["10", 0], "negative": ["10", 0],
            "latent_image": ["11", 0], "seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler",
            "scheduler": "sgm_uniform", "denoise": 1.0,
        },
    },
    "15": {
        "class_type": "PoseTransferAttentionMaps",
        "inputs": {"record": ["13", 1], "latent": ["14", 0]},
    },
    "16": {"class_type": "PreviewImage", "inputs": {"images": ["15", 0]}},
}  # fmt: skip

# How many live pictures there were, and the size of the last one.
LAST_LIVE = """async () => {
  const { width, height } = await createImageBitmap(window.live.at(-1));
  return [window.live.length, width, height];
}"""


def load_comparison(front_end: Any) -> None:
    """Opens the graph of COMPARISON, its Compare node in the middle of the window."""
    page: Page = front_end.page
    page.evaluate("prompt => app.loadApiJson(prompt, 'compare')", COMPARISON)
    expect(page.locator(".pt-compare")).to_have_count(1)
    page.evaluate(
        f"""() => {{
          const node = {COMPARE};
          node.pos = [0, 0];
          Object.assign(app.canvas.ds, {{ scale: 1, offset: [500, 120] }});
          app.graph.nodes.filter(other => other != node).forEach(
            (other, row) => {{ other.pos = [-320, 190 * row - 60]; }});
          app.canvas.setDirty(true, true);
        }}"""
    )


@pytest.fixture
def slider(front_end: Any) -> Locator:
    """The divider of a Compare node that ran."""
    page: Page = front_end.page
    load_comparison(front_end)
    expect(page.get_by_text("Press Run: the pictures to compare appear here.")).to_be_visible()
    front_end.topic = "compare"
    front_end.keep("before")
    front_end.run()
    expect(page.get_by_role("slider", name="Divider")).to_be_visible()
    settle(page)
    return page.get_by_role("slider", name="Divider")


def settle(page: Page) -> None:
    """Waits until the pictures of the slider are there and drawn."""
    page.wait_for_function(
        "(pictures => pictures.length == 2 && pictures.every(i => i.complete && i.naturalWidth))"
        "([...document.querySelectorAll('.pt-compare img')])"
    )
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def colours(page: Page) -> list[int]:
    """What is seen at 10, 30, 70 and 90 % of the width of the compared pictures."""
    box = page.locator(".pt-compare-frame").bounding_box()
    assert box is not None
    seen = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    height = round(box["y"] + box["height"] * 0.8)
    points = [
        seen.getpixel((round(box["x"] + box["width"] * x), height)) for x in (0.1, 0.3, 0.7, 0.9)
    ]
    return [r << 16 | g << 8 | b for r, g, b in points]  # type: ignore[misc]


def brightness(page: Page) -> float:
    """Of the words on the controls: the sum of red, green and blue."""
    style = "getComputedStyle(document.querySelector('.pt-compare select')).color"
    colour = page.evaluate(style)
    return sum(map(float, colour[colour.index("(") + 1 : -1].split(",")[:3]))


def across(page: Page, share: float) -> tuple[float, float]:
    """A place on the compared pictures, in px of the page."""
    box = page.locator(".pt-compare-frame").bounding_box()
    assert box is not None
    return box["x"] + box["width"] * share, box["y"] + box["height"] / 2


def test_the_divider_follows_mouse_finger_and_keys(front_end: Any, slider: Locator):
    page: Page = front_end.page
    place = f"[...{COMPARE}.pos, ...app.canvas.ds.offset]"
    before = page.evaluate(place)
    expect(slider).to_have_attribute("aria-valuenow", "50")
    expect(slider).to_have_accessible_name("Divider between result and truth")
    assert colours(page) == [GREEN, GREEN, BLUE, BLUE]
    front_end.keep("middle")

    page.mouse.move(*across(page, 0.5))
    page.mouse.down()
    page.mouse.move(*across(page, 0.2), steps=4)
    page.mouse.up()
    expect(slider).to_have_attribute("aria-valuenow", "20")
    assert colours(page) == [GREEN, BLUE, BLUE, BLUE]
    front_end.keep("dragged")
    page.mouse.move(*across(page, 0.9))
    expect(slider).to_have_attribute("aria-valuenow", "20")

    front_end.swipe([across(page, x) for x in (0.2, 0.4, 0.6, 0.8)])
    expect(slider).to_have_attribute("aria-valuenow", "80")
    assert colours(page) == [GREEN, GREEN, GREEN, BLUE]
    assert page.evaluate(place) == before, "neither the node nor the graph was moved"

    for key, now in (
        ("ArrowLeft", 79), ("Shift+ArrowLeft", 69), ("PageUp", 79), ("End", 100), ("Home", 0),
        ("ArrowRight", 1),
    ):  # fmt: skip
        page.keyboard.press(key)
        expect(slider).to_have_attribute("aria-valuenow", str(now))
    expect(slider).to_have_attribute("aria-valuetext", "1 % result, 99 % truth")
    page.keyboard.press("Delete")
    assert page.evaluate(place) == before, "the node is still there, where it was"
    front_end.keep("keys")


def test_other_pictures_are_chosen_and_the_choice_is_kept(front_end: Any, slider: Locator):
    page: Page = front_end.page
    page.get_by_role("button", name="Next picture of the batch").click()
    expect(page.get_by_text("2 / 2")).to_be_visible()
    settle(page)
    assert colours(page) == [GREEN, GREEN, WHITE, WHITE]
    page.get_by_label("Picture on the left").select_option("source")
    settle(page)
    assert colours(page) == [RED, RED, WHITE, WHITE]
    page.get_by_role("button", name="Swap left and right").click()
    settle(page)
    assert colours(page) == [WHITE, WHITE, RED, RED]
    expect(slider).to_have_accessible_name("Divider between truth and source")
    front_end.keep("chosen")

    prompt = page.evaluate("app.graphToPrompt().then(made => made.output)")
    (inputs,) = [x["inputs"] for x in prompt.values() if x["class_type"] == "PoseTransferCompare"]
    assert set(inputs) == {"source", "pose_map", "result", "truth"}, "the slider is no input"
    command = "name => app.extensionManager.command.execute(name)"
    page.evaluate(command, "Comfy.NewBlankWorkflow")
    expect(page.locator(".pt-compare")).to_have_count(0)
    page.evaluate(command, "Workspace.PreviousOpenedWorkflow")
    settle(page)
    assert colours(page) == [BLUE, BLUE, RED, RED], "another tab was open in between"

    page.evaluate("app.loadGraphData(app.graph.serialize())")
    expect(page.get_by_text("Press Run: the pictures to compare appear here.")).to_be_visible()
    front_end.run()
    expect(page.get_by_label("Picture on the left")).to_have_value("truth")
    expect(page.get_by_label("Picture on the right")).to_have_value("source")
    settle(page)
    assert colours(page) == [BLUE, BLUE, RED, RED]


def test_the_contact_sheet_is_downloaded(front_end: Any, slider: Locator, tmp_path: Path):
    page: Page = front_end.page
    with page.expect_download() as download:
        page.get_by_role("button", name="Sheet").click()
    assert download.value.suggested_filename == "contact sheet.png"
    download.value.save_as(tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert sheet.shape[1] > 4 * WIDTH and sheet.shape[0] > 2 * HEIGHT
    found = {int(r) << 16 | int(g) << 8 | int(b) for r, g, b in sheet.reshape(-1, 3)}
    assert {RED, GREY, GREEN, BLUE, WHITE} <= found

    page.route("**/view?*", lambda route: route.fulfill(status=404))
    try:
        page.get_by_role("button", name="Sheet").click()
        expect(page.locator(".p-toast-message")).to_contain_text("no longer on the server")
        page.get_by_role("button", name="Next picture of the batch").click()
        expect(page.get_by_role("status").filter(has_text="no longer")).to_be_visible()
        front_end.keep("gone")
    finally:
        page.unroute("**/view?*")


def test_the_slider_wears_the_light_palette(front_end: Any, slider: Locator):
    page: Page = front_end.page
    wear = "palette => app.extensionManager.setting.set('Comfy.ColorPalette', palette)"
    page.evaluate(wear, "light")
    try:
        slider.focus()
        page.keyboard.press("Tab")
        front_end.keep("light")
        light = brightness(page)
    finally:
        page.evaluate(wear, "dark")
    assert light < 200 < 600 < brightness(page)


def test_the_slider_speaks_chinese_where_comfyui_does(front_end: Any):
    page: Page = front_end.page
    with front_end.speaking("zh"):
        load_comparison(front_end)
        expect(page.get_by_text("点击“运行”，要比较的图像会显示在此处。")).to_be_visible()
        front_end.run()
        divider = page.get_by_role("slider", name="结果与真值之间的分隔线")
        expect(divider).to_have_attribute("aria-valuetext", "结果 50 %，真值 50 %")
        settle(page)
        front_end.keep("chinese")
        shown = front_end.texts(".pt-compare")
        with page.expect_download() as download:
            page.get_by_role("button", name="对比表").click()
        assert download.value.suggested_filename == "对比表.png"
    assert len(shown) > 15 and any("SSIM" in text for text in shown)
    assert [x for x in shown if not re.search(r"[\u4e00-\u9fff]", x)] == ["1 / 2"]


def test_nodes_show_what_they_found_and_learnt(front_end: Any):
    """Pose, parsing, attention, tuning: live, when the run is over, and again from the cache."""
    page: Page = front_end.page
    page.evaluate("prompt => app.loadApiJson(prompt, 'pictures')", PICTURES)
    page.evaluate(
        """seed => {
          window.live = [];
          const tune = app.graph.nodes.find(node => node.type == "PoseTransferTuneLoRA");
          tune.widgets.find(widget => widget.name == "seed").value = seed;
          app.api.addEventListener("b_preview_with_metadata", ({ detail }) => {
            if (detail.displayNodeId == tune.id) window.live.push(detail.blob);
          });
          const at = { DetectPose: 0, ParsePerson: 1, AttentionMaps: 2, TuneLoRA: 3 };
          for (const node of app.graph.nodes) {
            for (const widget of node.widgets ?? [])
              if (widget.name == "control_after_generate") widget.value = "fixed";
            const column = at[node.type.replace("PoseTransfer", "")];
            node.pos = column === undefined ? [0, 1500] : [390 * column, 0];
            if (column !== undefined) node.setSize([360, node.size[1]]);
          }
          Object.assign(app.canvas.ds, { scale: 0.8, offset: [100, 170] });
        }""",
        {"canvas": 1, "vue": 2}[front_end.renderer],  # the same would be found, not tuned
    )
    front_end.run()
    shown = {kind: pictures_of(front_end, kind) for kind in SHOWING}
    page.wait_for_timeout(500)  # they fade in
    front_end.topic = "pictures"
    front_end.keep("shown")
    live, width, height = page.evaluate(LAST_LIVE)
    assert live == 3, "one for each preview, and the sheet of all"
    assert width == 256 and 64 + 0.4 * 256 < height < 256

    (pose, _), (palette, _) = shown["DetectPose"], shown["ParsePerson"]
    assert pose.shape == (256, 192, 3)
    assert palette.shape[0] > 512 and palette.shape[1] == 384, "there is a legend"
    legend = palette[512:].reshape(-1, 3)
    for label in ("background", "hair", "face", "upper"):
        assert (legend == PALETTE[label]).all(-1).sum() > 50, f"no patch of {label}"
    assert len(shown["AttentionMaps"]) == 1

    page.evaluate("app.nodeOutputs = {}")
    front_end.run()  # nothing is computed anew
    again = {kind: pictures_of(front_end, kind) for kind in SHOWING}
    for kind, pictures in shown.items():
        assert all(map(np.array_equal, pictures, again[kind])), kind


def pictures_of(front_end: Any, kind: str) -> list[np.ndarray]:
    """What a node shows, once the front end has drawn it."""
    page: Page = front_end.page
    node = f"app.graph.nodes.find(node => node.type == 'PoseTransfer{kind}')"
    page.wait_for_function(f"app.nodeOutputs[{node}.id]?.images?.length")
    files = page.evaluate(f"app.nodeOutputs[{node}.id].images")
    if front_end.renderer == "vue":
        body = page.get_by_test_id(f"node-body-{page.evaluate(f'{node}.id')}")
        expect(body.locator("img").first).to_be_visible()
    else:
        page.wait_for_function(f"{node}.imgs?.length == {len(files)}")
    pictures = []
    for file in files:
        with urllib.request.urlopen(
            f"{front_end.server.address}/view?{urllib.parse.urlencode(file)}"
        ) as answer:
            pictures.append(np.asarray(Image.open(answer).convert("RGB")))
    return pictures
