# SPDX-License-Identifier: GPL-3.0-or-later
"""A small client of ComfyUI's HTTP interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp

from .errors import ServerError, WorkflowError
from .result import Picture, Result
from .workflow import Overrides, Workflow, load_workflow, title_of, with_overrides

POLL_SECONDS = (0.05, 0.5)
"""First and longest pause between two looks at the history."""


class ComfyClient:
    """Uploads images, queues workflows, waits, fetches what they made.

        async with ComfyClient("http://127.0.0.1:8188") as comfy:
            name = await comfy.upload_image("me.png", data)
            result = await comfy.run("workflow.json", {"Photo": {"image": name}})
            result.images["Save Image"]

    Raises:
        ServerError: the server cannot be reached, or takes longer than it may.
        WorkflowError: a node refused its inputs or failed.
    """

    def __init__(self, address: str = "http://127.0.0.1:8188", request_timeout: float = 60.0):
        self.address = address.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=request_timeout)
        self._client_id = uuid.uuid4().hex
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ComfyClient:
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def run(
        self,
        workflow: Workflow | str | Path,
        overrides: Overrides | None = None,
        timeout: float = 600.0,
    ) -> Result:
        """Queues the workflow, waits for its end, and fetches its images.

        Args:
            workflow: in API format, or a file of it.
            overrides: inputs to replace, by node title.
            timeout: seconds until the prompt is cancelled and ServerError is raised.
        """  # fmt: skip
        if not isinstance(workflow, dict):
            workflow = load_workflow(workflow)
        workflow = with_overrides(workflow, overrides or {})
        started = time.monotonic()
        prompt_id = await self.queue(workflow)
        try:
            entry = await self.wait(prompt_id, workflow, timeout)
        except (ServerError, asyncio.CancelledError):
            with contextlib.suppress(ServerError):
                await self.cancel(prompt_id)
            raise
        outputs: dict[str, dict[str, Any]] = entry["outputs"]
        return Result(
            pictures=await self._fetch_pictures(workflow, outputs),
            texts=_texts(workflow, outputs),
            outputs=outputs,
            seconds=time.monotonic() - started,
        )

    async def upload_image(self, name: str, data: bytes) -> str:
        """Puts an encoded image into the server's input folder; returns its name for Load Image."""
        form = aiohttp.FormData()
        form.add_field("image", data, filename=name, content_type="application/octet-stream")
        form.add_field("overwrite", "true")
        stored = await self._json("POST", "/upload/image", data=form)
        return f"{stored['subfolder']}/{stored['name']}" if stored["subfolder"] else stored["name"]

    async def object_info(self) -> dict[str, Any]:
        """Every node that the server knows, by id, with its inputs and outputs."""
        return await self._json("GET", "/object_info")

    async def queue(self, workflow: Workflow) -> str:
        """Queues the workflow; returns the prompt's id."""
        body = {"prompt": workflow, "client_id": self._client_id}
        answer = await self._json("POST", "/prompt", json=body, accepted=(200, 400))
        if answer.get("error") or answer.get("node_errors"):
            if "prompt_id" in answer:  # the parts without error were queued all the same
                await self.cancel(answer["prompt_id"])
            raise _refusal(workflow, answer)
        return answer["prompt_id"]

    async def wait(self, prompt_id: str, workflow: Workflow, timeout: float) -> dict[str, Any]:
        """The history entry of the prompt, once it has ended well.

        `workflow` is what was queued; it gives the names of nodes that fail.
        """
        deadline = time.monotonic() + timeout
        pause, longest = POLL_SECONDS
        while True:
            history = await self._json("GET", f"/history/{prompt_id}")
            if prompt_id in history:
                entry = history[prompt_id]
                if entry["status"]["status_str"] == "success":
                    return entry
                raise _failure(workflow, entry["status"]["messages"])
            if time.monotonic() > deadline:
                raise ServerError(
                    f"The workflow did not end within {timeout:g} s on {self.address}. Give it "
                    "more time, or look at the server's log."
                )
            await asyncio.sleep(pause)
            pause = min(longest, pause * 1.3)

    async def cancel(self, prompt_id: str) -> None:
        """Takes the prompt off the queue, or stops it if it runs."""
        await self._json("POST", "/queue", json={"delete": [prompt_id]})
        await self._json("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def _fetch_pictures(
        self, workflow: Workflow, outputs: dict[str, dict[str, Any]]
    ) -> dict[str, list[Picture]]:
        found: dict[str, list[Picture]] = {}
        for node_id, output in outputs.items():
            for image in output.get("images", ()):
                place = {key: image[key] for key in ("filename", "subfolder", "type")}
                _, data = await self._request("GET", "/view", (200,), params=place)
                picture = Picture(image["filename"], data)
                found.setdefault(title_of(workflow, node_id), []).append(picture)
        return found

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
        return json.loads(body)

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


def _texts(workflow: Workflow, outputs: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for node_id, output in outputs.items():
        if "text" in output:
            texts.setdefault(title_of(workflow, node_id), []).extend(map(str, output["text"]))
    return texts


def _refusal(workflow: Workflow, answer: dict[str, Any]) -> WorkflowError:
    """The first node error of an answer that refuses a prompt."""
    for node_id, report in (answer.get("node_errors") or {}).items():
        reasons = [f"{e['message']}: {e['details']}".rstrip(": ") for e in report["errors"]]
        return WorkflowError("; ".join(reasons), title_of(workflow, node_id), report["class_type"])
    error = answer["error"]
    if isinstance(error, str):
        return WorkflowError(error)
    return WorkflowError(f"{error['message']}: {error.get('details') or ''}".rstrip(": "))


def _failure(workflow: Workflow, messages: list[tuple[str, dict[str, Any]]]) -> WorkflowError:
    """The error that ended a prompt, from its history's messages."""
    for event, report in messages:
        if event in ("execution_error", "execution_interrupted"):
            # Nodes of an expanded graph are called "parent.…"; the parent is in the workflow.
            node_id = str(report["node_id"])
            title = title_of(workflow, node_id if node_id in workflow else node_id.split(".")[0])
            text = report.get("exception_message", "was interrupted").strip()
            return WorkflowError(text, title, report["node_type"])
    return WorkflowError("The workflow failed; the server did not say why.")
