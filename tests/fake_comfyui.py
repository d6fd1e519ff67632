# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that answers as ComfyUI does, in milliseconds: for the client's tests, and as a main.py.

Its nodes: `Draw` (inputs `seed`, `seconds`, `image`) and `Save`, which saves a text about what Draw
was given. Draw of a negative seed fails. Where that is allowed, seed 666 kills the server, and seed
667 silences it: it still takes connections, and says no word to any.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Trouble = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class FakeComfyUI:
    """Async context manager that gives the address. `trouble` may answer a request in its place."""

    def __init__(self, trouble: Trouble | None = None, may_die: bool = False):
        self.trouble = trouble
        self.may_die = may_die
        self.queued: dict[str, dict[str, Any]] = {}
        self.history: dict[str, Any] = {}
        self.cancelled: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.most_queued = 0
        self._sockets: list[web.WebSocketResponse] = []
        self._turn = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> str:
        return await self.start(0)

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._runner.cleanup()

    async def start(self, port: int) -> str:
        app = web.Application(middlewares=[self._troubled])
        app.router.add_get("/system_stats", self._stats)
        app.router.add_get("/ws", self._socket)
        app.router.add_post("/prompt", self._prompt)
        app.router.add_get("/history/{id}", self._history)
        app.router.add_get("/queue", self._queue)
        app.router.add_post("/queue", self._nothing)
        app.router.add_post("/interrupt", self._interrupt)
        app.router.add_post("/upload/image", self._upload)
        app.router.add_get("/view", self._view)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @web.middleware
    async def _troubled(self, request: web.Request, handler: Any) -> web.StreamResponse:
        answer = await self.trouble(request) if self.trouble else None
        return answer or await handler(request)

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "0.30.0"}})

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.append(socket)
        async for _ in socket:
            pass
        self._sockets.remove(socket)
        return socket

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt_id = body["prompt_id"]
        self.queued[prompt_id] = body["prompt"]
        self.most_queued = max(self.most_queued, len(self.queued))
        self._tasks.append(asyncio.create_task(self._execute(prompt_id, body["prompt"])))
        return web.json_response({"prompt_id": prompt_id, "number": 1, "node_errors": {}})

    async def _execute(self, prompt_id: str, workflow: dict[str, Any]) -> None:
        async with self._turn:
            (draw_id, draw), (save_id, _) = workflow.items()
            inputs = draw["inputs"]
            progress = {"prompt_id": prompt_id, "node": draw_id, "value": 1, "max": 2}
            for socket in self._sockets:
                await socket.send_json({"type": "progress", "data": progress})
            await asyncio.sleep(inputs["seconds"])
            if inputs["seed"] == 666 and self.may_die:
                os._exit(1)
            if inputs["seed"] == 667 and self.may_die:
                os.kill(os.getpid(), signal.SIGSTOP)
            status, messages, outputs = "success", [], {}
            if inputs["seed"] < 0:
                report = {
                    "node_id": draw_id, "node_type": "Draw", "exception_message": "no such seed",
                }  # fmt: skip
                status, messages = "error", [["execution_error", report]]
            else:
                text = f"seed {inputs['seed']} of {inputs['image']}"
                place = {"filename": f"{text}.png".replace("/", "|"), "subfolder": ""}
                outputs = {save_id: {"images": [place | {"type": "output"}]}}
            self.queued.pop(prompt_id)
            self.history[prompt_id] = {
                "status": {"status_str": status, "messages": messages},
                "outputs": outputs,
            }

    async def _history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        found = {prompt_id: self.history[prompt_id]} if prompt_id in self.history else {}
        return web.json_response(found)

    async def _queue(self, _: web.Request) -> web.Response:
        pending = [[1, prompt_id, {}] for prompt_id in self.queued]
        return web.json_response({"queue_running": [], "queue_pending": pending})

    async def _nothing(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        self.cancelled.append((await request.json())["prompt_id"])
        return web.Response()

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image, folder = form["image"], str(form.get("subfolder", ""))
        assert isinstance(image, web.FileField)
        self.uploads[f"{folder}/{image.filename}"] = image.file.read()
        return web.json_response({"name": image.filename, "subfolder": folder, "type": "input"})

    async def _view(self, request: web.Request) -> web.Response:
        return web.Response(body=b"picture: " + request.query["filename"].encode())


WORKFLOW: dict[str, dict[str, Any]] = {
    "3": {
        "class_type": "LoadImage",
        "inputs": {"seed": 1, "seconds": 0.0, "image": "none"},
        "_meta": {"title": "Draw"},
    },
    "7": {"class_type": "Save", "inputs": {"images": ["3", 0]}, "_meta": {"title": "Keep it"}},
}
"""Draw goes as a Load Image, so that a folder of sources finds it."""


async def _serve(port: int) -> None:
    await FakeComfyUI(may_die=True).start(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    asyncio.run(_serve(parser.parse_known_args()[0].port))
