# SPDX-License-Identifier: GPL-3.0-or-later
"""Many jobs on many servers: Ray starts them, watches them and moves the jobs.

Each Ray actor owns one ComfyUI process. An actor whose server dies or falls silent ends itself, Ray
starts it anew, and its jobs go to whichever actor is free. Only the driver, which is the process
that calls `run_cluster`, keeps results, so none is kept twice however often a job was tried.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import MissingDependencyError
from .batch import Keep
from .errors import ServerError
from .jobs import Job
from .retry import Backoff
from .server_actor import ServerActor, ServerPlan
from .work import Failure, Order, Outcome, now

GRACE_SECONDS = 60.0
"""How long after a try's time limit an actor that did not answer is taken for dead."""
STOP_SECONDS = 20.0
CONNECT_SECONDS = 20.0
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class ClusterPlan:
    """How many servers, and what each takes of the cluster."""

    address: str = "local"
    """`local` for a cluster of this machine alone, that ends with the run; `auto`; or HOST:PORT."""
    servers: int = 0
    """0: one for each GPU of the cluster, or one where there is none."""
    cpus: float = 1.0
    """CPUs that Ray sets aside for each server."""
    gpus: float | None = None
    """GPUs for each server, also parts of one; None: one if the cluster has any at the start."""
    in_flight: int = 2
    """Jobs that each server has at a time."""
    restarts: int = 20
    """How often Ray starts a server anew before it is given up."""
    start_timeout: float = 900.0
    """Seconds to wait while no server is up, at the start and after all have died; a cluster may
    have to start machines first."""


@dataclass
class _Try:
    """A job that a server has."""

    server: int
    job: Job
    attempt: int
    started: str
    begun: float
    deadline: float


def run_cluster(
    jobs: Iterable[Job],
    order: Order,
    server: ServerPlan,
    keep: Keep,
    cluster: ClusterPlan | None = None,
    backoff: Backoff | None = None,
) -> None:
    """Runs the jobs on servers that Ray holds; returns when each has ended and was kept.

    Raises:
        MissingDependencyError: Ray is not installed.
        ServerError: no server starts, or all were given up; jobs that have not ended are not kept.
    """
    try:
        import ray
    except ImportError:
        raise MissingDependencyError(
            "Several servers need Ray: pip install 'ray>=2.40', or this pack's extra [cluster]."
        ) from None
    plan = cluster or ClusterPlan()
    with _connected(ray, plan), _base_folder(server) as placed:
        there = int(ray.cluster_resources().get("GPU", 0))
        gpus = float(there > 0) if plan.gpus is None else plan.gpus
        count = plan.servers or (int(there / gpus) if gpus else 0) or 1
        options = {"num_cpus": plan.cpus, "num_gpus": gpus, "max_restarts": plan.restarts}
        actor = ray.remote(**options)(ServerActor)
        actors = [actor.remote(placed, order, number) for number in range(count)]
        try:
            _Driver(ray, actors, order, keep, plan, backoff or Backoff()).run(iter(jobs))
        finally:
            stopping = [a.stop.remote() for a in actors]
            ray.wait(stopping, num_returns=len(stopping), timeout=STOP_SECONDS)


class _Driver:
    """Gives jobs to free servers and takes back what came of them.

    Back-pressure: a server has `in_flight` jobs, the driver holds no others but those that wait for
    another try, and `jobs` is asked for the next only when a server is free.
    """

    def __init__(
        self, ray: Any, actors: list[Any], order: Order, keep: Keep, plan: ClusterPlan,
        backoff: Backoff,
    ):  # fmt: skip
        self._ray = ray
        self._actors = actors
        self._order = order
        self._keep = keep
        self._plan = plan
        self._backoff = backoff
        self._starting: dict[Any, int] = {}
        self._busy: dict[Any, _Try] = {}
        self._free: deque[int] = deque()
        self._again: list[tuple[float, int, Job, int]] = []
        self._numbers = itertools.count()
        self._lost = ""

    def run(self, jobs: Iterator[Job]) -> None:
        for server in range(len(self._actors)):
            for _ in range(self._plan.in_flight):
                self._await_start(server)
        deadline = None  # for a server to start; set while none is up
        following = next(jobs, None)
        while following or self._again or self._busy:
            while self._free and (following or self._is_due()):
                if self._is_due():
                    _, _, job, attempt = heapq.heappop(self._again)
                    self._give(job, attempt)
                elif following:
                    self._give(following, 1)
                    following = next(jobs, None)
            if not (self._busy or self._free or self._starting):
                raise ServerError(f"No server is left. {self._lost}")
            if self._busy or self._free:
                deadline = None
            elif deadline is None:
                deadline = time.monotonic() + self._plan.start_timeout
            elif time.monotonic() > deadline:
                raise ServerError(
                    f"No server started within {self._plan.start_timeout:g} s. Each needs "
                    f"{self._plan.cpus:g} CPU and, where there are any, a GPU; the cluster has "
                    f"{self._ray.cluster_resources()}."
                )
            self._look()

    def _is_due(self) -> bool:
        return bool(self._again) and self._again[0][0] <= time.monotonic()

    def _give(self, job: Job, attempt: int) -> None:
        server = self._free.popleft()
        begun = time.monotonic()
        deadline = begun + self._order.timeout + GRACE_SECONDS
        ref = self._actors[server].attempt.remote(job)
        self._busy[ref] = _Try(server, job, attempt, now(), begun, deadline)

    def _await_start(self, server: int) -> None:
        """A place of the server is free once it answers; Ray asks again after a restart."""
        ref = self._actors[server].hello.options(max_task_retries=-1).remote()
        self._starting[ref] = server

    def _look(self) -> None:
        refs = [*self._busy, *self._starting]
        if not refs:
            time.sleep(LOOK_SECONDS)  # all that is left waits for its next try
            return
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=LOOK_SECONDS)
        for ref in ready:
            if ref in self._starting:
                self._started(ref)
            else:
                self._ended(ref)
        for one in self._busy.values():
            if time.monotonic() > one.deadline:
                one.deadline = float("inf")
                self._ray.kill(self._actors[one.server], no_restart=False)

    def _started(self, ref: Any) -> None:
        server = self._starting.pop(ref)
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            # Ray wraps the actor's own words in its traceback.
            self._lost = str(error).rpartition("ServerError: ")[2]
            return
        self._free.append(server)

    def _ended(self, ref: Any) -> None:
        one = self._busy.pop(ref)
        try:
            outcome: Outcome = self._ray.get(ref)
            self._free.append(one.server)
        except self._ray.exceptions.RayError as error:
            seconds = time.monotonic() - one.begun
            failure = Failure(self._loss(error), passing=True)
            outcome = Outcome(one.started, seconds, failure=failure)
            self._await_start(one.server)
        if outcome.failure and outcome.failure.passing and one.attempt <= self._backoff.retries:
            due = time.monotonic() + self._backoff.pause(one.attempt)
            entry = (due, next(self._numbers), one.job, one.attempt + 1)
            heapq.heappush(self._again, entry)
        else:
            self._keep(one.job, outcome, one.attempt)

    def _loss(self, error: Exception) -> str:
        """Why a server did not answer."""
        if isinstance(error, self._ray.exceptions.RayActorError):
            return "The server died while it was at work on this."
        # Its machine is gone, or was out of memory; the actor may live, and hear of the next job.
        return f"The server's answer was lost ({type(error).__name__})."


@contextmanager
def _connected(ray: Any, plan: ClusterPlan) -> Iterator[None]:
    # All that matters comes as an exception; the terminal belongs to the progress bar.
    options: dict[str, Any] = {
        "address": plan.address,
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
    }
    if plan.address == "local":
        # Nothing is reported to Ray's makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own half a minute for each is not enough on a machine that is busy.
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")
        os.environ.setdefault("RAY_agent_register_timeout_ms", "180000")
        needed = max(1, plan.servers) * plan.cpus
        options["num_cpus"] = int(max(os.cpu_count() or 1, needed))
        options["include_dashboard"] = False
    if ":" in plan.address:
        _require_listener(plan.address)
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise ServerError(
            f"There is no Ray cluster at {plan.address}, or it wants a token: {error}. If it was "
            "started with a token, set RAY_AUTH_MODE=token and put the same ~/.ray/auth_token on "
            "this machine."
        ) from error
    except Exception as error:  # the bare class is what Ray raises
        raise ServerError(f"Ray did not start: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raises ServerError unless something listens there: Ray itself tries for a quarter hour."""
    place = urlsplit(address if "//" in address else f"//{address}")
    try:
        socket.create_connection((place.hostname, place.port), CONNECT_SECONDS).close()
    except (OSError, ValueError, TypeError) as error:
        raise ServerError(f"There is no Ray cluster at {address}: {error}") from error


@contextmanager
def _base_folder(server: ServerPlan) -> Iterator[ServerPlan]:
    """The plan with a folder of this run's own for the servers, unless one was asked for."""
    if server.base:
        yield server
        return
    base = Path(tempfile.gettempdir()) / f"pose-transfer-servers-{uuid.uuid4().hex[:12]}"
    try:
        yield replace(server, base=base, remove=True)
    finally:
        with suppress(OSError):
            shutil.rmtree(base)
