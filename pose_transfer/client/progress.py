# SPDX-License-Identifier: GPL-3.0-or-later
"""How far prompts are, as the server tells it over its websocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

RECONNECT_SECONDS = 2.0


@dataclass(frozen=True)
class Progress:
    """A node that is at work: `value` of `maximum` steps are done."""

    node_title: str
    value: float
    maximum: float


ProgressListener = Callable[[Progress], None]


class ProgressFeed:
    """Reads the websocket in the background and tells each prompt's listener.

    It is for the eye only: whether a prompt has ended is asked over HTTP. So a socket that breaks,
    hangs or talks nonsense costs the bar its movement, and nothing else.
    """

    def __init__(self, session: aiohttp.ClientSession, address: str, client_id: str):
        self._session = session
        self._url = f"{address}/ws?clientId={client_id}"
        self._listeners: dict[str, tuple[Mapping[str, str], ProgressListener]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def telling(self, prompt_id: str, titles: Mapping[str, str], listener: ProgressListener):
        """While the block runs, `listener` hears of the prompt; `titles` are by node id."""
        if self._task is None:
            self._task = asyncio.create_task(self._read())
        self._listeners[prompt_id] = (titles, listener)
        try:
            yield
        finally:
            del self._listeners[prompt_id]

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _read(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError):
                async with self._session.ws_connect(self._url, heartbeat=20.0) as socket:
                    async for message in socket:
                        if message.type == aiohttp.WSMsgType.TEXT:
                            self._tell(message.data)
            await asyncio.sleep(RECONNECT_SECONDS)

    def _tell(self, text: str) -> None:
        try:
            message = json.loads(text)
            if message["type"] != "progress":
                return
            data: dict[str, Any] = message["data"]
            titles, listener = self._listeners[data["prompt_id"]]
            # Nodes of an expanded graph are called "parent.…"; the parent is in the workflow.
            title = titles[str(data["node"]).split(".")[0]]
            progress = Progress(title, _finite(data["value"]), _finite(data["max"]))
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return  # of another prompt, or not what a ComfyUI says
        listener(progress)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no number of steps")
    return number
