# SPDX-License-Identifier: GPL-3.0-or-later
"""`queue --ray HOST:PORT` on a Ray cluster that was there before, of two machines in one."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pose_transfer.client.server import free_port

TESTS = Path(__file__).parents[1]
fake = SimpleNamespace(**runpy.run_path(str(TESTS / "fake_comfyui.py")))
storm = SimpleNamespace(**runpy.run_path(str(TESTS / "storm.py")))
START_SECONDS = 180.0


@dataclass
class RayCluster:
    """Machines of one CPU each, as `ray start` makes them; ended by their process ids."""

    folder: Path
    """Short, for sockets lie in it. No other cluster on this machine is touched or found."""
    address: str = ""
    machines: list[subprocess.Popen] = field(default_factory=list)

    def start(self) -> None:
        """A further machine; the first is the head."""
        place = ["--address", self.address]
        if not self.machines:
            port = free_port()
            self.address = f"127.0.0.1:{port}"
            place = ["--head", "--port", str(port)]
            place += ["--temp-dir", str(self.folder), "--include-dashboard", "false"]
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"]
        command += [*place, "--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--num-gpus", "0"]
        command += ["--object-store-memory", "80000000", "--disable-usage-stats", "--block"]
        log = self.folder / f"machine-{len(self.machines)}.log"
        with log.open("wb") as said:
            machine = subprocess.Popen(
                command,
                env={**os.environ, "RAY_raylet_start_wait_time_s": f"{START_SECONDS:g}"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self.machines.append(machine)
        storm.wait_for(
            lambda: machine.poll() is not None or "block forever" in log.read_text(), START_SECONDS
        )
        assert machine.poll() is None, log.read_text()

    def processes(self, number: int) -> list[psutil.Process]:
        """All of that machine, its own process last."""
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.machines[number].pid)
            return [*own.children(recursive=True), own]
        return []

    def kill(self, number: int) -> None:
        """As when its plug is pulled."""
        there = self.processes(number)
        for process in reversed(there):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(there, 20)
        self.machines[number].wait()


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is started here; a token that lies on this machine is not looked at."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))


@pytest.fixture
def cluster(token: None) -> Iterator[RayCluster]:
    made = RayCluster(Path(tempfile.mkdtemp(prefix="ray-")))
    try:
        made.start()
        yield made
    finally:
        for number in range(len(made.machines)):
            made.kill(number)
        shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    host = tmp_path / "host"
    host.mkdir()
    shutil.copy(TESTS / "fake_comfyui.py", host / "main.py")
    (tmp_path / "workflow.json").write_text(json.dumps(fake.WORKFLOW))
    return [str(tmp_path / "workflow.json"), "--comfyui", str(host)]


def test_a_run_uses_the_cluster_at_an_address_and_leaves_it_as_it_was(
    cluster: RayCluster, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seeds, there in (("1,2,3", 3), ("1,2,3,4,5", 5)):
        with (tmp_path / "log").open("wb") as log:
            driver = storm.start_queue(
                [*arguments, "--vary", f"Draw.seed={seeds}"], tmp_path / "out", tmp_path / "base",
                log, cluster.address, servers=1,
            )  # fmt: skip
            assert driver.wait(200) == 0, (tmp_path / "log").read_text()
        assert len(storm.check(tmp_path / "out", there)) == there
        assert not storm.servers(tmp_path / "base")
        assert cluster.machines[0].poll() is None

    monkeypatch.delenv("RAY_AUTH_MODE")  # as it is where nobody thinks of tokens
    with (tmp_path / "log").open("wb") as log:
        driver = storm.start_queue(
            arguments, tmp_path / "more", tmp_path / "base", log, cluster.address
        )
        assert driver.wait(200) == 1
    assert "set RAY_AUTH_MODE=token" in (tmp_path / "log").read_text()


def test_an_address_without_a_cluster_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "log").open("wb") as log:
        driver = storm.start_queue(arguments, tmp_path / "out", tmp_path / "base", log, address)
        assert driver.wait(200) == 1
    assert f"There is no Ray cluster at {address}" in (tmp_path / "log").read_text()


def test_a_machine_that_is_lost_costs_nothing(
    cluster: RayCluster, arguments: list[str], tmp_path: Path
) -> None:
    cluster.start()
    out, base, jobs = tmp_path / "out", tmp_path / "base", 16
    seeds = ",".join(map(str, range(jobs)))
    options = ["--vary", f"Draw.seed={seeds}", "--set", "Draw.seconds=1.5", "--in-flight", "1"]
    with (tmp_path / "log").open("wb") as log:
        driver = storm.start_queue([*arguments, *options], out, base, log, cluster.address)
        try:
            storm.wait_for(lambda: driver.poll() is not None or len(hosts(out)) == 2, 200)
            assert driver.poll() is None, (tmp_path / "log").read_text()
            (lost,) = (
                storm.servers(base, number)
                for number in (0, 1)
                if is_on(storm.servers(base, number), cluster.processes(1))
            )
            cluster.kill(1)
            at_loss = storm.count(out)
            storm.wait_for(lambda: not any(map(psutil.pid_exists, lost)), 20)
            assert driver.wait(200) == 0, (tmp_path / "log").read_text()
        finally:
            driver.kill()
    assert at_loss < jobs
    storm.check(out, jobs)


def hosts(out: Path) -> set[Any]:
    """The servers that have made something."""
    path = out / "manifest.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return {json.loads(line)["server"] for line in lines if line.endswith("\n")}


def is_on(servers: list[int], machine: list[psutil.Process]) -> bool:
    return any(process.pid in servers for process in machine)
