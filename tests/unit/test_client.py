# SPDX-License-Identifier: GPL-3.0-or-later
"""The client, against a server that answers as ComfyUI does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import tomllib
from aiohttp import web

from pose_transfer.client import (
    ComfyClient,
    ComfyServer,
    ServerError,
    WorkflowError,
    load_workflow,
    with_overrides,
)

WORKFLOW: dict[str, dict[str, Any]] = {
    "3": {"class_type": "Draw", "inputs": {"seed": 1}, "_meta": {"title": "The figure"}},
    "7": {"class_type": "Save", "inputs": {"images": ["3", 0]}, "_meta": {"title": "Keep"}},
}
SUCCESS: dict[str, Any] = {
    "status": {"status_str": "success", "messages": []},
    "outputs": {
        "7": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]},
        "3": {"text": ["0.93"]},
    },
}


class FakeComfy:
    """Keeps what it was asked; answers from `history` after `delay` looks."""

    def __init__(self, history: dict[str, Any] | None = None, delay: int = 0, prompt: Any = None):
        self.history = history
        self.delay = delay
        self.prompt = prompt or (200, {"node_errors": {}})
        self.queued: list[Any] = []
        self.cancelled: list[str] = []

    async def __aenter__(self) -> str:
        app = web.Application()
        app.router.add_post("/prompt", self._prompt)
        app.router.add_get("/history/{id}", self._history)
        app.router.add_get("/view", self._view)
        app.router.add_post("/queue", self._nothing)
        app.router.add_post("/interrupt", self._interrupt)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.queued.append(body["prompt"])
        status, answer = self.prompt
        own = {"prompt_id": body["prompt_id"]} if status == 200 else {}
        return web.json_response(answer | own, status=status)

    async def _history(self, request: web.Request) -> web.Response:
        self.delay -= 1
        done = self.history is not None and self.delay < 0
        return web.json_response({request.match_info["id"]: self.history} if done else {})

    async def _view(self, request: web.Request) -> web.Response:
        return web.Response(body=b"picture " + request.query["filename"].encode())

    async def _nothing(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        self.cancelled.append((await request.json())["prompt_id"])
        return web.Response()


def talk(fake: FakeComfy, ask: Callable[[ComfyClient], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        async with fake as address, ComfyClient(address) as client:
            return await ask(client)

    return asyncio.run(session())


def test_pictures_and_texts_come_back_by_title():
    result = talk(FakeComfy(SUCCESS, delay=2), lambda client: client.run(WORKFLOW))
    assert result.images == {"Keep": [b"picture a.png"]}
    assert result.texts == {"The figure": ["0.93"]}


def test_overrides_reach_the_server_and_leave_the_workflow_alone():
    fake = FakeComfy(SUCCESS)
    talk(fake, lambda client: client.run(WORKFLOW, {"The figure": {"seed": 9}}))
    assert fake.queued[0]["3"]["inputs"]["seed"] == 9
    assert WORKFLOW["3"]["inputs"]["seed"] == 1


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"Nobody": {"seed": 1}}, "no node with the title 'Nobody'.*Keep, The figure"),
        ({"Keep": {"seed": 1}}, "'Keep' has no input 'seed'.*images"),
    ],
)
def test_a_wrong_override_says_what_there_is(overrides, text):
    with pytest.raises(ValueError, match=text):
        with_overrides(WORKFLOW, overrides)


def test_two_nodes_of_one_title_cannot_be_addressed():
    twice = {**WORKFLOW, "8": WORKFLOW["7"]}
    with pytest.raises(ValueError, match="several nodes"):
        with_overrides(twice, {"Keep": {"images": ["3", 0]}})


def test_a_failed_node_is_named():
    report = {"node_id": "3", "node_type": "Draw", "exception_message": "no paint\n"}
    history = {
        "status": {"status_str": "error", "messages": [["execution_error", report]]},
        "outputs": {},
    }
    with pytest.raises(WorkflowError) as caught:
        talk(FakeComfy(history), lambda client: client.run(WORKFLOW))
    assert str(caught.value) == "Node 'The figure' (Draw): no paint"


def test_a_failure_inside_an_expanded_node_names_the_node_that_the_artist_sees():
    report = {"node_id": "3.0.2", "node_type": "Inner", "exception_message": "no"}
    history = {"status": {"status_str": "error", "messages": [["execution_error", report]]}}
    with pytest.raises(WorkflowError, match="'The figure'"):
        talk(FakeComfy(history), lambda client: client.run(WORKFLOW))


@pytest.mark.parametrize("status", [200, 400])
def test_a_refused_input_is_named_even_where_the_rest_was_queued(status):
    errors = [{"message": "Value too small", "details": "seed"}]
    answer = {"node_errors": {"3": {"class_type": "Draw", "errors": errors}}}
    answer |= {} if status == 200 else {"error": {"message": "m", "details": ""}}
    fake = FakeComfy(prompt=(status, answer))
    with pytest.raises(WorkflowError, match=r"'The figure'.*too small: seed"):
        talk(fake, lambda client: client.run(WORKFLOW))
    assert len(fake.cancelled) == (1 if status == 200 else 0)


def test_a_workflow_that_takes_too_long_is_cancelled():
    fake = FakeComfy(None)
    with pytest.raises(ServerError, match=r"within 0.2 s"):
        talk(fake, lambda client: client.run(WORKFLOW, timeout=0.2))
    assert len(fake.cancelled) == 1


def test_no_server_is_a_plain_sentence():
    async def ask() -> None:
        async with ComfyClient("http://127.0.0.1:1") as client:
            await client.run(WORKFLOW)

    with pytest.raises(ServerError, match="Is ComfyUI running"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        (json.dumps({"nodes": []}), "API format"),
        (json.dumps({"1": {"inputs": {}}}), "API format"),
    ],
)
def test_a_file_that_is_no_api_workflow_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "w.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_workflow(path)


def write_host(folder: Path, code: str) -> Path:
    folder.mkdir()
    (folder / "main.py").write_text(code)
    return folder


def test_a_server_that_dies_at_start_shows_its_last_words(tmp_path: Path):
    host = write_host(tmp_path / "host", "raise SystemExit('no memory left')")
    with (
        pytest.raises(ServerError, match=r"(?s)status 1.*no memory left"),
        ComfyServer(host, tmp_path / "base", {}),
    ):
        pass


LISTEN = """
import socket, sys, time
print('busy', flush=True)
listening = socket.create_server(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1])))
"""
MUTE = {
    "listens not": "import time; print('busy'); time.sleep(60)",
    "takes the connection and says nothing": LISTEN + "time.sleep(60)",
    "drips": LISTEN
    + """
while True:
    connection, _ = listening.accept()
    try:
        connection.send(b'HTTP/1.1 200 OK')
        while True:
            connection.send(b' ')
            time.sleep(0.2)
    except OSError:
        pass
""",
}


@pytest.mark.parametrize("code", MUTE.values(), ids=MUTE)
def test_a_server_that_never_answers_is_ended(code: str, tmp_path: Path):
    host = write_host(tmp_path / "host", code)
    server = ComfyServer(host, tmp_path / "base", {}, start_timeout=3.0)
    started = time.monotonic()
    with pytest.raises(ServerError, match=r"(?s)within 3 s.*busy"), server:
        pass
    assert time.monotonic() - started < 30
    assert server._process is None


def test_type_checkers_are_told_that_the_package_is_typed():
    pack = Path(__file__).parents[2]
    settings = tomllib.loads((pack / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in settings["package-data"]["pose_transfer"]
    assert (pack / "pose_transfer" / "py.typed").is_file()


def test_a_folder_that_is_no_comfyui_is_refused(tmp_path: Path):
    with pytest.raises(ServerError, match=r"no main.py"):
        ComfyServer(tmp_path, tmp_path, {})
