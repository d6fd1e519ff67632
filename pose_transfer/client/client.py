# SPDX-License-Identifier: GPL-3.0-or-later
"""A small client of ComfyUI's HTTP interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import aiohttp

from ..errors import PoseTransferError
from .answers import failure, refusal, texts_of
from .errors import ServerError
from .progress import ProgressFeed, ProgressListener
from .result import Picture, Result
from .workflow import Overrides, Workflow, load_workflow, title_of, with_overrides

POLL_SECONDS = (0.05, 0.5)
"""First and longest pause between two looks at the history."""
POLL_FAILURES = 5
"""Looks in a row that may fail before a prompt is given up: the work goes on behind a hiccup."""
CANCEL_SECONDS = 2.0
"""Time to take a prompt back that was given up."""


class _Forgotten(ServerError):
    """The server has lost the prompt; looking again is of no use."""


class ComfyClient:
    """Uploads images, queues workflows, waits, fetches what they made.

        async with ComfyClient("http://127.0.0.1:8188") as comfy:
            name = await comfy.upload_image("me.png", data)
            result = await comfy.run("workflow.json", {"Photo": {"image": name}})
            result.images["Save Image"]

    No call takes longer than its time limit, whatever the server does: `request_timeout` seconds
    for one request from the first byte to the last, `run` as long as it is given.

    Raises:
        ServerError: the server cannot be reached, does not answer as a ComfyUI does, or takes
            longer than it may.
        WorkflowError: a node refused its inputs or failed.
    """

    def __init__(self, address: str = "http://127.0.0.1:8188", request_timeout: float = 60.0):
        self.address = address.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=request_timeout)
        self._client_id = uuid.uuid4().hex
        self._session: aiohttp.ClientSession | None = None
        self._feed: ProgressFeed | None = None

    async def __aenter__(self) -> ComfyClient:
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        self._feed = ProgressFeed(self._session, self.address, self._client_id)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._feed:
            await self._feed.close()
            self._feed = None
        if self._session:
            await self._session.close()
            self._session = None

    async def run(
        self,
        workflow: Workflow | str | Path,
        overrides: Overrides | None = None,
        timeout: float = 600.0,
        on_progress: ProgressListener | None = None,
        pictures_of: Collection[str] | None = None,
    ) -> Result:
        """Queues the workflow, waits for its end, and fetches its images.

        Args:
            workflow: in API format, or a file of it.
            overrides: inputs to replace, by node title.
            timeout: seconds for all of it; then the prompt is cancelled, for which two more
                seconds are granted, and ServerError is raised.
            on_progress: hears how far the node at work is.
            pictures_of: titles of the nodes whose pictures are wanted; None for all.
        """  # fmt: skip
        if not isinstance(workflow, dict):
            workflow = load_workflow(workflow)
        workflow = with_overrides(workflow, overrides or {})
        started = time.monotonic()
        prompt_id = str(uuid.uuid4())  # ours, so that it can be cancelled if the answer is lost

        async def result() -> Result:
            await self.queue(workflow, prompt_id)
            entry = await self.wait(prompt_id, workflow, timeout)
            with self._expecting("/history"):
                outputs: dict[str, dict[str, Any]] = entry["outputs"]
                return Result(
                    pictures=await self._fetch_pictures(workflow, outputs, pictures_of),
                    texts=texts_of(workflow, outputs),
                    outputs=outputs,
                    seconds=time.monotonic() - started,
                )

        if self._feed is None:
            raise RuntimeError("use ComfyClient in an `async with` block")
        titles = {node_id: title_of(workflow, node_id) for node_id in workflow}
        telling = (
            self._feed.telling(prompt_id, titles, on_progress)
            if on_progress
            else contextlib.nullcontext()
        )
        try:
            with telling:
                return await asyncio.wait_for(result(), timeout)
        except asyncio.TimeoutError:
            await self._give_up(prompt_id)
            raise self._too_slow(timeout) from None
        except (ServerError, asyncio.CancelledError):
            await self._give_up(prompt_id)
            raise

    async def upload_image(
        self, name: str, data: bytes, subfolder: str = "", overwrite: bool = True
    ) -> str:
        """Puts a file into the server's input folder; returns its name for Load Image.

        Any file goes this way, such as keypoints for Load Pose. Without `overwrite` a file of
        another content keeps its name, and the new one gets a number.
        """
        form = aiohttp.FormData()
        form.add_field("image", data, filename=name, content_type="application/octet-stream")
        form.add_field("subfolder", subfolder)
        if overwrite:
            form.add_field("overwrite", "true")
        stored = await self._json("POST", "/upload/image", data=form)
        with self._expecting("/upload/image"):
            folder, name = str(stored["subfolder"]), str(stored["name"])
        return f"{folder}/{name}" if folder else name

    async def host_version(self) -> str:
        """The version of the server's ComfyUI."""
        stats = await self._json("GET", "/system_stats")
        with self._expecting("/system_stats"):
            return str(stats["system"]["comfyui_version"])

    async def object_info(self) -> dict[str, Any]:
        """Every node that the server knows, by id, with its inputs and outputs."""
        return await self._json("GET", "/object_info")

    async def queue(self, workflow: Workflow, prompt_id: str | None = None) -> str:
        """Queues the workflow; returns the prompt's id, which is a UUID of your own if given."""
        body: dict[str, Any] = {"prompt": workflow, "client_id": self._client_id}
        if prompt_id:
            body["prompt_id"] = prompt_id
        answer = await self._json("POST", "/prompt", json=body, accepted=(200, 400))
        with self._expecting("/prompt"):
            if answer.get("error") or answer.get("node_errors"):
                if "prompt_id" in answer:  # the parts without error were queued all the same
                    await self.cancel(answer["prompt_id"])
                raise refusal(workflow, answer)
            queued = answer["prompt_id"]
        if prompt_id not in (None, queued):
            await self._give_up(queued)
            raise ServerError(
                f"{self.address} was given the prompt {prompt_id} and speaks of {queued!r}. "
                "ComfyUI 0.30 or newer is needed; is something between it and this client?"
            )
        return queued

    async def wait(self, prompt_id: str, workflow: Workflow, timeout: float) -> dict[str, Any]:
        """The history entry of the prompt, once it has ended well.

        `workflow` is what was queued; it gives the names of nodes that fail. Some looks may fail;
        a server that was started anew and has forgotten the prompt is found out.
        """
        deadline = time.monotonic() + timeout
        pause, longest = POLL_SECONDS
        failures = 0
        while True:
            try:
                entry = await self._look(prompt_id, shaken=failures > 0)
                failures = 0
            except _Forgotten:
                raise
            except ServerError:
                entry = None
                failures += 1
                if failures >= POLL_FAILURES:
                    raise
            if entry is not None:
                with self._expecting("/history"):
                    if entry["status"]["status_str"] == "success":
                        return entry
                    raise failure(workflow, entry["status"]["messages"])
            if time.monotonic() > deadline:
                raise self._too_slow(timeout)
            await asyncio.sleep(pause)
            pause = min(longest, pause * 1.3)

    async def cancel(self, prompt_id: str) -> None:
        """Takes the prompt off the queue, or stops it if it runs."""
        await self._json("POST", "/queue", json={"delete": [prompt_id]})
        await self._json("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def _give_up(self, prompt_id: str) -> None:
        """Cancels as well as can be done in a short time."""
        with contextlib.suppress(ServerError, asyncio.TimeoutError):
            await asyncio.wait_for(self.cancel(prompt_id), CANCEL_SECONDS)

    async def _look(self, prompt_id: str, shaken: bool) -> dict[str, Any] | None:
        """The history entry if the prompt has ended; `shaken` asks whether it still is queued."""
        entry = await self._history(prompt_id)
        if entry is None and shaken and not await self._is_queued(prompt_id):
            entry = await self._history(prompt_id)  # it may have ended in between
            if entry is None:
                raise _Forgotten(
                    f"{self.address} no longer knows the prompt: it was started anew meanwhile."
                )
        return entry

    async def _history(self, prompt_id: str) -> dict[str, Any] | None:
        history = await self._json("GET", f"/history/{prompt_id}")
        with self._expecting("/history"):
            if history and prompt_id not in history:
                raise ServerError(
                    f"{self.address} was asked about the prompt {prompt_id} and speaks of "
                    f"{', '.join(history)}."
                )
            return history.get(prompt_id)

    async def _is_queued(self, prompt_id: str) -> bool:
        queue = await self._json("GET", "/queue")
        with self._expecting("/queue"):
            return any(
                item[1] == prompt_id for item in (*queue["queue_running"], *queue["queue_pending"])
            )

    def _too_slow(self, timeout: float) -> ServerError:
        return ServerError(
            f"The workflow did not end within {timeout:g} s on {self.address}. Give it more time, "
            "or look at the server's log."
        )

    async def _fetch_pictures(
        self,
        workflow: Workflow,
        outputs: dict[str, dict[str, Any]],
        wanted: Collection[str] | None,
    ) -> dict[str, list[Picture]]:
        found: dict[str, list[Picture]] = {}
        for node_id, output in outputs.items():
            title = title_of(workflow, node_id)
            if wanted is not None and title not in wanted:
                continue
            for image in output.get("images", ()):
                place = {key: str(image[key]) for key in ("filename", "subfolder", "type")}
                _, data = await self._request("GET", "/view", (200,), params=place)
                picture = Picture(place["filename"], data, place["subfolder"], place["type"])
                found.setdefault(title, []).append(picture)
        return found

    @contextlib.contextmanager
    def _expecting(self, path: str):
        """Turns an answer of another shape than ComfyUI's into a ServerError."""
        try:
            yield
        except PoseTransferError:
            raise  # says what it has to say already
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ServerError(
                f"{self.address}{path} did not answer as a ComfyUI does "
                f"({type(error).__name__}: {error})."
            ) from error

    async def _json(
        self, method: str, path: str, accepted: tuple[int, ...] = (200,), **arguments: Any
    ) -> Any:
        kind, body = await self._request(method, path, accepted, **arguments)
        if not body:
            return None
        if kind != "application/json":
            raise ServerError(
                f"{self.address}{path} answered with {kind} instead of JSON. Is that a ComfyUI?"
            )
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ServerError(
                f"{self.address}{path} answered with damaged JSON: {error}."
            ) from None

    async def _request(
        self, method: str, path: str, accepted: tuple[int, ...], **arguments: Any
    ) -> tuple[str, bytes]:
        if self._session is None:
            raise RuntimeError("use ComfyClient in an `async with` block")
        try:
            async with self._session.request(method, self.address + path, **arguments) as response:
                body = await response.read()
                if response.status not in accepted:
                    raise ServerError(
                        f"{self.address}{path} answered {response.status} {response.reason}: "
                        f"{body[:300].decode(errors='replace')}"
                    )
                return response.content_type, body
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise ServerError(
                f"No answer from {self.address} ({error or type(error).__name__}). Is ComfyUI "
                "running there?"
            ) from error
