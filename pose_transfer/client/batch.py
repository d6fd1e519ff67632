# SPDX-License-Identifier: GPL-3.0-or-later
"""Many jobs on one server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from .client import ComfyClient
from .errors import ServerError
from .jobs import Job
from .progress import ProgressListener
from .retry import Backoff
from .work import Order, Outcome, Worker

Keep = Callable[[Job, Outcome, int], None]
"""Takes a job, what came of it, and after how many tries; called once for each job."""
ALIVE_SECONDS = 10.0


async def run_batch(
    client: ComfyClient,
    jobs: Iterable[Job],
    order: Order,
    keep: Keep,
    in_flight: int = 2,
    backoff: Backoff | None = None,
    on_progress: ProgressListener | None = None,
) -> None:
    """Runs the jobs, `in_flight` of them queued on the server at a time.

    Two hide the uploads and downloads of one job behind the work on another; a long queue is never
    built up on the server, so others get their turn there. A job that fails is kept as such.

    Raises:
        ServerError: the server is gone for good; jobs that have not ended are not kept.
    """
    worker = Worker(client, order)
    shared = iter(jobs)
    patience = backoff or Backoff()
    lanes = [
        asyncio.create_task(_lane(client, worker, shared, keep, patience, on_progress))
        for _ in range(in_flight)
    ]
    try:
        await asyncio.gather(*lanes)
    finally:
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)


async def _lane(
    client: ComfyClient,
    worker: Worker,
    jobs: Iterator[Job],
    keep: Keep,
    backoff: Backoff,
    on_progress: ProgressListener | None,
) -> None:
    for job in jobs:
        attempts = 1
        outcome = await worker.attempt(job, on_progress)
        while outcome.failure and outcome.failure.passing and attempts <= backoff.retries:
            await asyncio.sleep(backoff.pause(attempts))
            attempts += 1
            outcome = await worker.attempt(job, on_progress)
        if outcome.failure and outcome.failure.passing and not await _answers(client):
            raise ServerError(
                f"{client.address} does not come back ({attempts} tries; the last: "
                f"{outcome.failure.text}). Start it again, then the same command goes on."
            )
        keep(job, outcome, attempts)


async def _answers(client: ComfyClient) -> bool:
    try:
        await asyncio.wait_for(client.host_version(), ALIVE_SECONDS)
    except (ServerError, asyncio.TimeoutError):
        return False
    return True
