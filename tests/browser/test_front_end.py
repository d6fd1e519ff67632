# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo in the real front end, as an artist meets it. Pictures land in build/screenshots."""

from __future__ import annotations

import io
import json
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from pose_transfer.client import ComfyServer

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
PACK, TEMPLATE = "pose-transfer", "fpdm_demo"
# Those that name models to download are for photos.
FOR_THE_DEMO = [
    path.stem for path in sorted(WORKFLOWS.glob("*.json")) if '"models"' not in path.read_text()
]
START_MS, RUN_MS = 60_000, 300_000

# A node that the front end does not know, or that the server refused, is drawn red.
RED_NODES = (
    "app.graph.nodes.filter(n => n.has_errors || !LiteGraph.registered_node_types[n.type])"
    ".map(n => n.title)"
)
# Save Image nodes that have nothing to show yet.
WAITING = "app.graph.nodes.filter(n => n.type == 'SaveImage' && !app.nodeOutputs[n.id]?.images)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = os.environ.get("CHROMIUM")
    if not chromium:
        pytest.fail("CHROMIUM is not set: run these tests by `make test` or `make test-host`.")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """The front end, started, without its welcome; a script error fails the test."""
    set_setting(server, "Comfy.TutorialCompleted", True)
    opened = browser.new_page(viewport={"width": 1600, "height": 1000}, locale="en-US")
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(server.address)
    opened.wait_for_function(
        "window.app?.extensionManager?.workflow?.activeWorkflow?.changeTracker && app.graph",
        timeout=START_MS,
    )
    yield opened
    opened.close()
    assert errors == []


def set_setting(server: ComfyServer, name: str, value: Any) -> None:
    request = urllib.request.Request(
        f"{server.address}/settings/{name}",
        data=json.dumps(value).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()


def show_our_templates(page: Page) -> None:
    page.get_by_role("button", name="Templates").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(PACK, exact=True).click()
    expect(page.get_by_test_id(f"template-workflow-{TEMPLATE}")).to_be_visible(timeout=START_MS)


def open_demo(page: Page) -> None:
    show_our_templates(page)
    page.get_by_test_id(f"template-workflow-{TEMPLATE}").click()
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=START_MS)
    page.wait_for_function("app.graph.nodes.some(n => n.type.startsWith('PoseTransfer'))")
    page.wait_for_timeout(1000)  # the check for missing models runs after the graph is there


def keep(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_the_demo_is_in_the_template_browser(page: Page):
    with page.expect_response(re.compile(rf"/{TEMPLATE}\.jpg"), timeout=START_MS) as thumbnail:
        show_our_templates(page)
    assert thumbnail.value.ok, "the host shows a picture of its own where ours is missing"
    image = page.get_by_test_id(f"template-workflow-{TEMPLATE}").locator("img").first
    expect(image).to_be_visible()
    keep(page, "templates")
    assert image.evaluate("image => image.naturalWidth") > 0


@pytest.fixture(params=[False, True], ids=["canvas nodes", "vue nodes"])
def renderer(request: pytest.FixtureRequest, server: ComfyServer) -> Iterator[str]:
    """Each of the front end's two ways to draw nodes; set before the page opens."""
    set_setting(server, "Comfy.VueNodes.Enabled", request.param)
    yield "vue" if request.param else "canvas"
    set_setting(server, "Comfy.VueNodes.Enabled", False)


def test_the_demo_opens_without_a_missing_node_or_a_red_box(renderer: str, page: Page):
    open_demo(page)
    keep(page, f"opened-{renderer}")
    assert page.evaluate(RED_NODES) == []
    expect(page.get_by_test_id("error-overlay")).to_have_count(0)


def test_every_workflow_for_the_demo_opens_without_a_missing_node_or_model(page: Page):
    open_demo(page)
    for name in FOR_THE_DEMO:
        graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
        page.evaluate("graph => app.loadGraphData(graph)", graph)
        page.wait_for_timeout(1500)  # the checks for missing nodes and models run afterwards
        keep(page, f"opened-{name}")
        assert page.evaluate("app.graph.nodes.length") == len(graph["nodes"]), name
        assert page.evaluate(RED_NODES) == [], name
        expect(page.get_by_test_id("error-overlay")).to_have_count(0)
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_demo_runs_by_the_run_button_and_its_pictures_appear(page: Page, server: ComfyServer):
    open_demo(page)
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(
        f"!{WAITING}.length || app.lastNodeErrors || app.lastExecutionError", timeout=RUN_MS
    )
    page.wait_for_timeout(1000)  # the pictures' own load
    keep(page, "result")
    assert page.evaluate("[app.lastNodeErrors, app.lastExecutionError]") == [None, None]
    assert page.evaluate(RED_NODES) == []
    expect(page.get_by_test_id("error-overlay")).to_have_count(0)
    shown = page.evaluate("Object.values(app.nodeOutputs).flatMap(o => o.images ?? [])")
    assert shown
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
    keep(page, "missing-model")
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
    keep(page, f"opened-{name}")
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
    assert sorted(urls) == sorted(model["url"] for model in workflow["models"])
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
          for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
          const { left, top } = app.canvas.canvas.getBoundingClientRect();
          return [left + 480, top + 385];
        }"""
    )
    page.mouse.click(*title)
    page.wait_for_function("app.canvas.selectedItems.size == 1")
    page.get_by_test_id("info-button").click()
    picture = page.locator(".markdown-content img").first
    expect(picture).to_be_visible(timeout=START_MS)
    page.wait_for_function("document.querySelector('.markdown-content img').naturalWidth > 0")
    keep(page, "help")
    expect(page.locator(".markdown-content h1")).to_have_text("FPDM Guider")
