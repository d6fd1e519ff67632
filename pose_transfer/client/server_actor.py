# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ray actor that owns one ComfyUI process. It needs no Ray itself; `cluster.py` wraps it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from .client import ComfyClient
from .jobs import Job
from .server import ComfyServer, answers
from .work import Order, Outcome, Worker

WATCH_SECONDS = 1.0
ASK_SECONDS = 10.0
OUTPUTS_KEPT = 32
"""Jobs whose pictures stay on the server's disk: the host serves a repeated try from there."""


@dataclass(frozen=True)
class ServerPlan:
    """What each server runs; the paths are those on the machine where it runs."""

    comfyui: Path
    custom_nodes: tuple[tuple[str, Path], ...]
    """Packs to load, by name."""
    models: Path | None = None
    """The folder of models, shared by all; None for an empty one."""
    base: Path | None = None
    """Where the servers keep their input, output and logs, a folder for each; best a fast disk."""
    remove: bool = False
    """Whether a server that is stopped takes its folder with it."""
    python: str = sys.executable
    arguments: tuple[str, ...] = ()
    """Further arguments for ComfyUI."""
    silence: float = 90.0
    """Seconds without an answer after which a server is taken for dead and started anew."""


class ServerActor:
    """Starts a server and does jobs on it; ends its own process when the server is gone.

    Ray then starts the actor anew, in the same folder. Ray sets which GPU it may see.
    """

    def __init__(self, plan: ServerPlan, order: Order, number: int):
        assert plan.base
        self._plan = plan
        self._order = order
        self._base = plan.base / f"server-{number}"
        self._base.mkdir(parents=True, exist_ok=True)
        models = self._base / "models"
        if plan.models and not models.exists():
            models.symlink_to(plan.models, target_is_directory=True)
        self._server = ComfyServer(
            plan.comfyui,
            self._base,
            dict(plan.custom_nodes),
            plan.python,
            plan.arguments,
            ends_with_starter=True,
        )
        self._server.__enter__()
        self._stopping = threading.Event()
        self._client: ComfyClient | None = None
        self._worker: Worker | None = None
        self._outputs: deque[list[Path]] = deque()
        threading.Thread(target=self._watch, daemon=True).start()

    async def hello(self) -> str:
        """The server's address; an answer means that it is up."""
        return self._server.address

    async def attempt(self, job: Job) -> Outcome:
        """One try of the job."""
        if self._worker is None:
            self._client = await ComfyClient(self._server.address).__aenter__()
            self._worker = Worker(self._client, self._order)
        outcome = await self._worker.attempt(job)
        if not self._server.is_running() and not self._stopping.is_set():
            self._die()  # at once, or the next jobs would be tried in vain
        self._tidy(outcome)
        return outcome

    async def stop(self) -> None:
        """Ends the server for good."""
        self._stopping.set()
        if self._client:
            await self._client.__aexit__()
        self._server.stop()
        if self._plan.remove:
            shutil.rmtree(self._base, ignore_errors=True)

    def _watch(self) -> None:
        answered = asked = time.monotonic()
        pause = min(ASK_SECONDS, self._plan.silence / 4)
        while not self._stopping.wait(WATCH_SECONDS):
            if time.monotonic() - asked > pause:
                asked = time.monotonic()
                if answers(self._server.address):
                    answered = time.monotonic()
            silent = time.monotonic() - answered > self._plan.silence
            if not self._stopping.is_set() and (silent or not self._server.is_running()):
                self._die()

    def _die(self) -> None:
        self._server.stop()
        os._exit(1)  # an exit that Ray takes for a failure, so that it restarts the actor

    def _tidy(self, outcome: Outcome) -> None:
        """Deletes pictures that the driver has had for a while."""
        output = self._base / "output"
        self._outputs.append(
            [
                output / picture.subfolder / picture.filename
                for _, picture in outcome.pictures
                if picture.folder == "output"
            ]
        )
        if len(self._outputs) > OUTPUTS_KEPT:
            for path in self._outputs.popleft():
                path.unlink(missing_ok=True)
