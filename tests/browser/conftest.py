# SPDX-License-Identifier: GPL-3.0-or-later
"""The front end for the tests beside this file, in both of its renderers.

A picture lands in build/screenshots at each test's end, by the name of the test.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any, cast

import pytest

from pose_transfer.client import ComfyServer
from tests.front_end import SCREENSHOTS, EditorPage, FrontEnd, front_end_of


@pytest.fixture(scope="module", params=["canvas", "vue"])
def opened(request: pytest.FixtureRequest, server: ComfyServer) -> Iterator[FrontEnd]:
    """One for each of the front end's two ways to draw nodes.

    Opened once: starting it takes longer than all the tests.
    """
    with front_end_of(server, request.param) as front_end:
        yield front_end


@pytest.fixture
def front_end(opened: FrontEnd) -> Iterator[FrontEnd]:
    """The front end with an empty graph; a script error fails the test."""
    opened.clear()
    opened.errors.clear()
    yield opened
    assert opened.errors == []


@pytest.fixture
def editor(front_end: FrontEnd) -> Iterator[EditorPage]:
    """The front end with a new graph of two editors, closed."""
    editor = EditorPage(front_end)
    editor.build()
    yield editor
    editor.page.evaluate("document.querySelector('dialog.pt-editor .pt-primary')?.click()")


@pytest.fixture
def edit_pose_template(front_end: FrontEnd) -> EditorPage:
    """A front end that was just started, with the template edit_pose from its template browser."""
    front_end.renew()
    front_end.open_template("edit_pose")
    return EditorPage(front_end)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Generator[None, Any, Any]:
    """Keeps a picture of the page at the end of each test, also of one that failed."""
    try:
        return (yield)
    finally:
        front_end = cast(FrontEnd, item.funcargs["front_end"])
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        module, name = item.path.stem.removeprefix("test_"), item.name.removeprefix("test_")
        name = re.sub(r"[^\w-]+", "-", f"{module}-{name}").strip("-")
        front_end.page.screenshot(path=SCREENSHOTS / f"{name}.png")
