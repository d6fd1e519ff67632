# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo in the real front end, as an artist meets it.

`front_end` (conftest.py) opens it in both of its renderers.
"""

from __future__ import annotations

import io
import json
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from pose_transfer.client import ComfyServer

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
TEMPLATE = "fpdm_demo"
# Those that name models to download are for photos.
FOR_THE_DEMO = [
    path.stem for path in sorted(WORKFLOWS.glob("*.json")) if '"models"' not in path.read_text()
]
START_MS = 60_000

# A node that the front end does not know, or that the server refused, is drawn red.
RED_NODES = (
    "app.graph.nodes.filter(n => n.has_errors || !LiteGraph.registered_node_types[n.type])"
    ".map(n => n.title)"
)


@pytest.fixture
def page(front_end: Any) -> Page:
    """The front end, just started, without its welcome."""
    front_end.renew()
    front_end.topic = "front-end"
    return front_end.page


def test_the_demo_is_in_the_template_browser(front_end: Any, page: Page):
    with page.expect_response(re.compile(rf"/{TEMPLATE}\.jpg"), timeout=START_MS) as thumbnail:
        dialog = front_end.show_templates()
    assert thumbnail.value.ok, "the host shows a picture of its own where ours is missing"
    image = dialog.get_by_test_id(f"template-workflow-{TEMPLATE}").locator("img").first
    expect(image).to_be_visible()
    page.wait_for_function("image => image.naturalWidth > 0", arg=image.element_handle())


def test_the_demo_opens_without_a_missing_node_or_a_red_box(front_end: Any, page: Page):
    front_end.open_template(TEMPLATE)
    assert page.evaluate(RED_NODES) == []
    expect(page.get_by_test_id("error-overlay")).to_have_count(0)


def test_every_workflow_for_the_demo_opens_without_a_missing_node_or_model(
    front_end: Any, page: Page
):
    front_end.open_template(TEMPLATE)
    for name in FOR_THE_DEMO:
        graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
        page.evaluate("graph => app.loadGraphData(graph)", graph)
        page.wait_for_timeout(1500)  # the checks for missing nodes and models run afterwards
        front_end.keep(f"opened-{name}")
        assert page.evaluate("app.graph.nodes.length") == len(graph["nodes"]), name
        assert page.evaluate(RED_NODES) == [], name
        expect(page.get_by_test_id("error-overlay")).to_have_count(0)
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_demo_runs_by_the_run_button_and_its_pictures_appear(
    front_end: Any, page: Page, server: ComfyServer
):
    front_end.open_template(TEMPLATE)
    front_end.run()
    page.wait_for_timeout(1000)  # the pictures' own load
    assert page.evaluate(RED_NODES) == []
    expect(page.get_by_test_id("error-overlay")).to_have_count(0)
    saving = "app.graph.nodes.filter(node => node.type == 'SaveImage').map(node => node.id)"
    shown = page.evaluate(f"{saving}.flatMap(id => app.nodeOutputs[id]?.images ?? [])")
    assert len(shown) == page.evaluate(saving + ".length"), "one for each that saves"
    for image in shown:
        place = urllib.parse.urlencode(image)
        with urllib.request.urlopen(f"{server.address}/view?{place}") as answer:
            picture = Image.open(io.BytesIO(answer.read()))
        assert picture.width >= 192 and picture.height >= 256
        assert len(picture.convert("RGB").getcolors(maxcolors=2**24) or ()) > 100, "a blank picture"


def test_a_missing_checkpoint_is_named_with_its_folder_and_address(page: Page):
    workflow = json.loads((WORKFLOWS / "fpdm_photo.json").read_text(encoding="utf-8"))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.get_by_test_id("error-overlay-see-errors").click(timeout=START_MS)
    group = page.get_by_test_id("error-group-missing-model")
    expect(group).to_be_visible()
    for model in workflow["models"]:
        expect(group).to_contain_text(model["name"])
        expect(group).to_contain_text(model["directory"])
        group.get_by_role("button", name="Copy URL").click()
        assert page.evaluate("navigator.clipboard.readText()") == model["url"]


@pytest.mark.parametrize("name", ["oneposetrans_sdxl", "oneposetrans_sd15"])
def test_a_workflow_for_photos_opens_and_names_each_missing_model_once(name: str, page: Page):
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.get_by_test_id("error-overlay-see-errors").click(timeout=START_MS)
    group = page.get_by_test_id("error-group-missing-model")
    expect(group).to_be_visible()
    page.wait_for_timeout(1000)
    assert page.evaluate("app.graph.nodes.length") == len(workflow["nodes"])
    unknown = "app.graph.nodes.filter(n => !LiteGraph.registered_node_types[n.type])"
    assert page.evaluate(f"{unknown}.map(n => n.type)") == []
    for kind in ("missing-node", "swap-nodes"):
        expect(page.get_by_test_id(f"error-group-{kind}")).to_have_count(0)
    buttons = group.get_by_role("button", name="Copy URL")
    urls = []
    for number in range(buttons.count()):
        buttons.nth(number).click()
        urls.append(page.evaluate("navigator.clipboard.readText()"))
    # Where the front end could not fetch a file by itself, it gives the file's page ("blob").
    offered = sorted(url.replace("/blob/", "/resolve/") for url in urls)
    assert offered == sorted(model["url"] for model in workflow["models"])
    for model in workflow["models"]:
        expect(group).to_contain_text(model["name"])
        expect(group).to_contain_text(model["directory"])


def test_the_help_of_a_node_shows_its_pictures(page: Page):
    title = page.evaluate(
        """async () => {
          app.graph.clear();
          const node = LiteGraph.createNode("PoseTransferFPDMGuider");
          node.pos = [300, 300];
          app.graph.add(node);
          Object.assign(app.canvas.ds, { scale: 1, offset: [100, 100] });
          app.canvas.setDirty(true, true);
          const { left, top } = app.canvas.canvas.getBoundingClientRect();
          return [left + 480, top + 385];
        }"""
    )
    # A node hears clicks once it is drawn, which each renderer does in its own time.
    for _ in range(START_MS // 1000):
        page.mouse.click(*title)
        page.wait_for_timeout(1000)
        if page.evaluate("app.canvas.selectedItems.size == 1"):
            break
    page.get_by_test_id("info-button").click()
    picture = page.locator(".markdown-content img").first
    expect(picture).to_be_visible(timeout=START_MS)
    page.wait_for_function("document.querySelector('.markdown-content img').naturalWidth > 0")
    expect(page.locator(".markdown-content h1")).to_have_text("FPDM Guider")
