# SPDX-License-Identifier: GPL-3.0-or-later
"""Load Pose's upload button in the real front end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from pose_transfer.client import ComfyServer
from pose_transfer.mannequin import render
from pose_transfer.pose import write_keypoints

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
START_MS = 60_000
NODE = "app.graph.nodes.find(n => n.type == 'PoseTransferLoadPose')"


@pytest.fixture
def page(server: ComfyServer) -> Iterator[Page]:
    """The front end with an empty graph; a script error fails the test."""
    chromium = os.environ.get("CHROMIUM")
    if not chromium:
        pytest.fail("CHROMIUM is not set: run these tests by `make test` or `make test-host`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        opened = browser.new_page(locale="en-US")
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(server.address)
        opened.wait_for_function("window.app?.extensionManager && app.graph", timeout=START_MS)
        yield opened
        browser.close()
    assert errors == []


def test_a_pose_file_is_uploaded_and_chosen(page: Page, server: ComfyServer, tmp_path: Path):
    file = tmp_path / "from the browser.json"
    file.write_text(json.dumps(write_keypoints([render(9, 19).pose])))
    page.evaluate("app.graph.clear(); app.graph.add(LiteGraph.createNode('PoseTransferLoadPose'))")
    before = page.evaluate(f"{NODE}.serialize().widgets_values")
    with page.expect_file_chooser() as chooser:
        page.evaluate(f"{NODE}.widgets.find(w => w.type == 'button').callback()")
    chooser.value.set_files(file)
    page.wait_for_function(f"{NODE}.widgets.find(w => w.name == 'file').value == '{file.name}'")
    assert (server.base_directory / "input" / file.name).read_text() == file.read_text()
    after = page.evaluate(f"{NODE}.serialize().widgets_values")
    assert after == [file.name, *before[1:]]
    assert len(after) == 7, "the button must not become a value of the workflow"
    output = page.evaluate("app.graphToPrompt().then(prompt => Object.values(prompt.output))")
    assert [node["inputs"]["file"] for node in output] == [file.name]
