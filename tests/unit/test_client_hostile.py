# SPDX-License-Identifier: GPL-3.0-or-later
"""No server, however odd, holds the client longer than it allows, and none makes it crash."""

from __future__ import annotations

import asyncio
import runpy
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from pose_transfer.client import ComfyClient, Progress, Result, ServerError
from pose_transfer.client import client as client_module

fake = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "fake_comfyui.py")))
LIMIT, CANCEL = 0.4, 0.3


@pytest.fixture(autouse=True)
def short_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CANCEL_SECONDS", CANCEL)


async def truncated(_: web.Request) -> web.StreamResponse:
    return web.Response(text='{"prompt_id": "a', content_type="application/json")


async def cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"half')
    assert request.transport
    request.transport.close()
    return response


async def page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>Welcome</html>", content_type="text/html")


async def broken(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="Internal Server Error")


async def other_shape(_: web.Request) -> web.StreamResponse:
    return web.json_response([["what", 1]])


async def empty(_: web.Request) -> web.StreamResponse:
    return web.Response()


async def other_prompt(_: web.Request) -> web.StreamResponse:
    entry = {"status": {"status_str": "success", "messages": []}, "outputs": {}}
    other = "00000000-0000-4000-8000-000000000000"
    return web.json_response({other: entry, "prompt_id": other})


async def nested(_: web.Request) -> web.StreamResponse:
    depth = 100_000
    return web.Response(text="[" * depth + "]" * depth, content_type="application/json")


async def odd_messages(request: web.Request) -> web.StreamResponse:
    """A failed prompt whose events are no pairs."""
    status = {"status_str": "error", "messages": [["execution_error"]]}
    return web.json_response({request.path.rpartition("/")[2]: {"status": status}})


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def drips(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(600):
        await response.write(b" ")
        await asyncio.sleep(0.1)
    return response


async def run_against(trouble: Any, **arguments: Any) -> Result:
    async with fake.FakeComfyUI(trouble) as address, ComfyClient(address) as client:
        return await client.run(fake.WORKFLOW, timeout=LIMIT, **arguments)


ANSWERS = [
    truncated, cut_off, page, broken, other_shape, empty, other_prompt, nested, hangs, drips,
]  # fmt: skip
CASES = [
    *(("/prompt", answer) for answer in ANSWERS),
    *(("/history", answer) for answer in (*ANSWERS, odd_messages)),
    *(("/view", answer) for answer in (cut_off, broken, hangs, drips)),
]


@pytest.mark.parametrize(("path", "answer"), CASES, ids=[f"{p} {a.__name__}" for p, a in CASES])
def test_every_hostile_answer_is_a_server_error_in_time(path: str, answer: Any) -> None:
    async def trouble(request: web.Request) -> web.StreamResponse | None:
        return await answer(request) if request.path.startswith(path) else None

    started = time.monotonic()
    with pytest.raises(ServerError):
        asyncio.run(run_against(trouble))
    assert time.monotonic() - started < LIMIT + CANCEL + 1.5


def test_a_server_that_hangs_at_everything_is_left_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(ServerError, match=r"within 0\.4 s"):
        asyncio.run(run_against(hangs, on_progress=print))
    assert time.monotonic() - started < LIMIT + CANCEL + 1.5


def test_a_hiccup_while_waiting_costs_nothing() -> None:
    asked = 0

    async def trouble(request: web.Request) -> web.StreamResponse | None:
        nonlocal asked
        asked += request.path.startswith("/history")
        return await broken(request) if request.path.startswith("/history") and asked < 4 else None

    assert asyncio.run(run_against(trouble)).images["Keep it"]


def test_a_server_that_forgot_the_prompt_is_found_out() -> None:
    """As after a restart: one look fails, then nobody knows the prompt."""

    async def session() -> None:
        server = fake.FakeComfyUI()
        asked = 0

        async def trouble(request: web.Request) -> web.StreamResponse | None:
            nonlocal asked
            if not request.path.startswith("/history"):
                return None
            asked += 1
            server.queued.clear()
            server.history.clear()
            return await broken(request) if asked == 1 else None

        server.trouble = trouble
        async with server as address, ComfyClient(address) as client:
            await client.run(fake.WORKFLOW, {"Draw": {"seconds": 30.0}}, timeout=20)

    started = time.monotonic()
    with pytest.raises(ServerError, match="no longer knows the prompt"):
        asyncio.run(session())
    assert time.monotonic() - started < 5


NONSENSE = {
    "cut off": "{",
    "a list": "[]",
    "no progress": '{"type": "progress", "data": {"node": "3"}}',
    "null": "null",
    "nested": "[" * 100_000,
    "huge": '{"type": "progress", "data": {"prompt_id": "ID", "node": "3", "value": 1%s, "max": 2}}'
    % ("0" * 400),
    "endless": '{"type": "progress", "data": {"prompt_id": "ID", "node": "3", "value": 1, '
    '"max": Infinity}}',
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_on_the_websocket_is_passed_over(text: str) -> None:
    heard: list[Progress] = []

    async def session() -> Result:
        server = fake.FakeComfyUI()

        async def trouble(request: web.Request) -> web.StreamResponse | None:
            if request.path == "/ws":
                socket = web.WebSocketResponse()
                await socket.prepare(request)
                while not server.queued:
                    await asyncio.sleep(0.01)
                (prompt_id,) = server.queued
                await socket.send_str(text.replace("ID", prompt_id))
                # What comes after it is heard, so the feed lives.
                sound = {"prompt_id": prompt_id, "node": "3", "value": 1, "max": 2}
                await socket.send_json({"type": "progress", "data": sound})
                await asyncio.sleep(0.1)
                return socket
            if request.path.startswith("/history"):
                await asyncio.wait_for(told.wait(), 5)
            return None

        told = asyncio.Event()

        def listen(progress: Progress) -> None:
            heard.append(progress)
            told.set()

        server.trouble = trouble
        overrides = {"Draw": {"seconds": 0.3}}
        async with server as address, ComfyClient(address) as client:
            return await client.run(fake.WORKFLOW, overrides, 10, on_progress=listen)

    assert asyncio.run(session()).images["Keep it"]
    assert heard == [Progress("Draw", 1.0, 2.0)]


def test_a_prompt_that_was_queued_under_another_id_is_taken_back() -> None:
    async def session() -> list[str]:
        server = fake.FakeComfyUI()

        async def trouble(request: web.Request) -> web.StreamResponse | None:
            own = request.path == "/prompt"
            return web.json_response({"prompt_id": "its own", "node_errors": {}}) if own else None

        server.trouble = trouble
        async with server as address, ComfyClient(address) as client:
            with pytest.raises(ServerError, match="speaks of 'its own'"):
                await client.queue(fake.WORKFLOW, "00000000-0000-4000-8000-000000000001")
        return server.cancelled

    assert asyncio.run(session()) == ["its own"]


def test_progress_comes_with_the_title_of_the_node() -> None:
    heard: list[Progress] = []

    async def session() -> None:
        async with fake.FakeComfyUI() as address, ComfyClient(address) as client:
            for _ in range(3):  # the socket may not be there for the first
                await client.run(
                    fake.WORKFLOW, {"Draw": {"seconds": 0.1}}, 10, on_progress=heard.append
                )

    asyncio.run(session())
    assert heard and set(heard) == {Progress("Draw", 1.0, 2.0)}
