# SPDX-License-Identifier: GPL-3.0-or-later
"""One job on one server: upload what it needs, run it, bring its pictures back."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from datetime import datetime, timezone

from ..errors import PoseTransferError
from .client import ComfyClient
from .errors import ServerError, WorkflowError
from .jobs import InputFile, Job, overrides_of
from .progress import ProgressListener
from .result import Picture
from .workflow import Workflow

UPLOADS = "pose_transfer_queue"
"""Folder below the server's input folder. Files have names of their content there."""


@dataclass(frozen=True)
class Order:
    """What all jobs of a run have in common."""

    workflow: Workflow
    keep: tuple[str, ...] = ()
    """Titles of the nodes whose pictures are kept; none: of all that save to the output folder."""
    timeout: float = 600.0
    """Seconds for one try of one job, uploads and waiting in the server's queue included."""


@dataclass(frozen=True)
class Failure:
    """Why a job has no result; the titles are empty where no node is to blame."""

    text: str
    node_title: str = ""
    node_type: str = ""
    passing: bool = False
    """The server's trouble, not the job's: another try may help."""


@dataclass(frozen=True)
class Outcome:
    """What one try came to: pictures with the title of their node, or a failure."""

    started: str
    """UTC, ISO 8601."""
    seconds: float
    server: str = ""
    host: str = ""
    """Version of the server's ComfyUI."""
    pictures: tuple[tuple[str, Picture], ...] = ()
    failure: Failure | None = None


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Worker:
    """Does jobs on the server of `client`, several at a time if asked to. It never raises."""

    def __init__(self, client: ComfyClient, order: Order):
        self._client = client
        self._order = order
        self._uploaded: dict[str, str] = {}
        self._host = ""

    async def attempt(self, job: Job, on_progress: ProgressListener | None = None) -> Outcome:
        """One try; it takes no longer than the order's time limit and two seconds."""
        started, begun = now(), time.monotonic()
        pictures: tuple[tuple[str, Picture], ...] = ()
        failure = None
        try:
            pictures = await self._run(job, begun + self._order.timeout, on_progress)
        except WorkflowError as error:
            failure = Failure(error.message, error.node_title, error.node_type)
        except ServerError as error:
            self._uploaded.clear()  # it may be another server by now, with empty folders
            failure = Failure(str(error), passing=True)
        except (PoseTransferError, OSError) as error:
            failure = Failure(str(error))
        seconds = time.monotonic() - begun
        return Outcome(started, seconds, self._client.address, self._host, pictures, failure)

    async def _run(
        self, job: Job, deadline: float, on_progress: ProgressListener | None
    ) -> tuple[tuple[str, Picture], ...]:
        try:
            await asyncio.wait_for(self._prepare(job), deadline - time.monotonic())
        except asyncio.TimeoutError:
            raise ServerError(
                f"{self._client.address} did not take the inputs within {self._order.timeout:g} s."
            ) from None
        keep = self._order.keep
        result = await self._client.run(
            self._order.workflow,
            overrides_of(job.settings, self._uploaded),
            deadline - time.monotonic(),
            on_progress,
            keep or None,
        )
        pictures = tuple(
            (title, picture)
            for title, pictures in result.pictures.items()
            for picture in pictures
            if keep or picture.folder == "output"
        )
        missing = [title for title in keep if title not in result.pictures]
        if missing or not pictures:
            where = f" in {', '.join(map(repr, missing))}" if missing else ""
            raise PoseTransferError(f"The workflow ended well but saved no picture{where}.")
        return pictures

    async def _prepare(self, job: Job) -> None:
        if not self._host:
            self._host = await self._client.host_version()
        for setting in job.settings:
            if isinstance(setting.value, InputFile) and setting.value.sha256 not in self._uploaded:
                self._uploaded[setting.value.sha256] = await self._upload(setting.value)

    async def _upload(self, file: InputFile) -> str:
        data = file.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise PoseTransferError(
                f"{file.path} was changed while the run was at work. Start it again."
            )
        # Never over a file that is there: another job may be reading it.
        name = file.sha256[:24] + file.path.suffix.lower()
        return await self._client.upload_image(name, data, UPLOADS, overwrite=False)
