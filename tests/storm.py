# SPDX-License-Identifier: GPL-3.0-or-later
"""A run on two servers through the worst: a server is killed, then the driver; then it goes on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PACK = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Report:
    """What the manifest says in the end, and how long the parts took, in seconds."""

    lines: list[dict[str, Any]]
    until_server_killed: float
    until_server_back: float
    until_driver_killed: float
    second_run: float


def storm(
    arguments: Sequence[str], out: Path, base: Path, jobs: int, patience: float = 300.0
) -> Report:
    """Runs `queue` with these arguments through it all; raises AssertionError where it fails.

    One server is killed when a sixth of the jobs are done; the other is held until Ray has brought
    back the first, so that there is work left for it. The driver is killed when a third of the jobs
    are done. Then the same command is given again.
    """
    started = time.monotonic()
    with (out.parent / "driver.log").open("ab") as log:
        driver = start_queue(arguments, out, base, log)
        try:
            wait_for(lambda: driver.poll() is not None or count(out) >= jobs // 6, patience)
            (server, *_), (other, *_) = servers(base, 0) or [0], servers(base, 1) or [0]
            assert server and other and driver.poll() is None, tail(log.name)
            os.kill(server, signal.SIGKILL)
            os.kill(other, signal.SIGSTOP)
            killed = time.monotonic()
            wait_for(lambda: any(pid != server for pid in servers(base, 0)), patience)
            back = time.monotonic()
            os.kill(other, signal.SIGCONT)
            wait_for(lambda: driver.poll() is not None or count(out) >= jobs // 3, patience)
            assert driver.poll() is None and count(out) < jobs, tail(log.name)
        finally:
            driver.kill()
            driver.wait()
        dead = time.monotonic()
        wait_for(lambda: not servers(base), 60)  # they end with their driver
        again = time.monotonic()
        second = start_queue(arguments, out, base, log)
        try:
            status = second.wait(patience)
        finally:
            second.kill()
    assert status == 0, tail(log.name)
    ended = time.monotonic()
    return Report(
        check(out, jobs), killed - started, back - killed, dead - back, ended - again
    )  # fmt: skip


def start_queue(
    arguments: Sequence[str], out: Path, base: Path, log: Any, ray: str = "local",
    servers: int | None = 2,
) -> subprocess.Popen:  # fmt: skip
    command = [sys.executable, "-m", "pose_transfer.client", "queue", *arguments]
    command += ["--out", str(out), "--ray", ray, "--base", str(base)]
    command += [] if servers is None else ["--servers", str(servers)]
    return subprocess.Popen(command, cwd=PACK, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def servers(base: Path, number: int | None = None) -> list[int]:
    """Process ids of the servers (of that number) whose folders are in `base`."""
    wanted = str(base / (f"server-{number}" if number is not None else "server-"))
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if "main.py" in words and any(word.startswith(wanted) for word in words):
            found.append(process.pid)
    return found


def check(out: Path, jobs: int) -> list[dict[str, Any]]:
    """Every result there once, none twice, none torn, none that the manifest does not know."""
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done"] * jobs
    assert len({line["job"] for line in lines}) == len({line["name"] for line in lines}) == jobs
    files = [file for line in lines for file in line["files"]]
    for file in files:
        assert hashlib.sha256((out / file["path"]).read_bytes()).hexdigest() == file["sha256"]
    on_disk = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    known = [".manifest.lock", "manifest.jsonl", *(file["path"] for file in files)]
    assert on_disk == sorted(known)
    return lines


def count(out: Path) -> int:
    path = out / "manifest.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(0.1)


def tail(log: str) -> str:
    return "The driver ended early:\n" + Path(log).read_text(errors="replace")[-3000:]
