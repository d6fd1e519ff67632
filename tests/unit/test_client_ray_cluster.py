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
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pose_transfer.client import cli
from pose_transfer.client.server import free_port

TESTS = Path(__file__).parents[1]
fake = SimpleNamespace(**runpy.run_path(str(TESTS / "fake_comfyui.py")))
storm = SimpleNamespace(**runpy.run_path(str(TESTS / "storm.py")))
START_SECONDS = 600.0
PATIENCE = 600.0


@dataclass
class RayCluster:
    """Machines of two CPUs and, as they say, two GPUs, made by `ray start`; ended by their process
    ids."""

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
        command += [*place, "--node-ip-address", "127.0.0.1", "--num-cpus", "2", "--num-gpus", "2"]
        command += ["--object-store-memory", "80000000", "--disable-usage-stats", "--block"]
        log = self.folder / f"machine-{len(self.machines)}.log"
        with log.open("wb") as said:
            machine = subprocess.Popen(
                command,
                env={
                    **os.environ,
                    "RAY_raylet_start_wait_time_s": f"{START_SECONDS:g}",
                    "RAY_agent_register_timeout_ms": f"{START_SECONDS * 1000:.0f}",
                },
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


def test_a_run_on_a_cluster_has_a_server_for_each_gpu_and_leaves_the_cluster_as_it_was(
    cluster: RayCluster, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, base, jobs = tmp_path / "out", tmp_path / "base", 6
    options = ["--vary", f"Draw.seed={','.join(map(str, range(jobs)))}"]
    with (tmp_path / "log").open("wb") as log:
        driver = storm.start_queue(
            [*arguments, *options], out, base, log, cluster.address, servers=None
        )
        try:
            there = held_servers(driver, base)
            seen = [one.environ()["CUDA_VISIBLE_DEVICES"] for one in there]
            for one in there:
                one.resume()
            assert driver.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
        finally:
            driver.kill()
    assert sorted(seen) == ["0", "1"]
    assert len(storm.check(out, jobs)) == jobs
    assert not storm.servers(base)
    assert cluster.machines[0].poll() is None

    monkeypatch.delenv("RAY_AUTH_MODE")  # as it is where nobody thinks of tokens
    with (tmp_path / "log").open("wb") as log:
        driver = storm.start_queue(
            arguments, tmp_path / "more", tmp_path / "base", log, cluster.address
        )
        assert driver.wait(PATIENCE) == 1
    assert "set RAY_AUTH_MODE=token" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid", "127.0.0.1:x"])
def test_an_address_without_a_cluster_is_told_at_once(
    host: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"{host}:{free_port()}"
    started = time.monotonic()
    assert cli.main(["queue", *arguments, "--out", str(tmp_path / "out"), "--ray", address]) == 1
    assert time.monotonic() - started < 60
    assert f"There is no Ray cluster at {address}" in capsys.readouterr().err


def test_a_machine_that_is_lost_costs_nothing(
    cluster: RayCluster, arguments: list[str], tmp_path: Path
) -> None:
    cluster.start()
    out, base, jobs = tmp_path / "out", tmp_path / "base", 8
    options = ["--vary", f"Draw.seed={','.join(map(str, range(jobs)))}", "--in-flight", "1"]
    options += ["--set", "Draw.seconds=1.5", "--gpus-per-server", "2"]  # one on each machine
    with (tmp_path / "log").open("wb") as log:
        driver = storm.start_queue([*arguments, *options], out, base, log, cluster.address)
        try:
            there = held_servers(driver, base)
            of_second = {process.pid for process in cluster.processes(1)}
            (lost,) = (one for one in there if one.pid in of_second)
            (other,) = (one for one in there if one.pid not in of_second)
            lost.resume()
            storm.wait_for(lambda: driver.poll() is not None or storm.count(out) >= 2, PATIENCE)
            assert driver.poll() is None and storm.count(out) < jobs
            cluster.kill(1)
            other.resume()
            storm.wait_for(lambda: not lost.is_running(), 20)  # it ends with its actor
            assert driver.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
        finally:
            driver.kill()
    lines = storm.check(out, jobs)
    assert len({line["server"] for line in lines}) == 2


def held_servers(driver: subprocess.Popen, base: Path) -> list[psutil.Process]:
    """Both servers of a run, stopped as soon as they were there, so that none does all the work."""
    held: dict[int, psutil.Process] = {}

    def hold() -> bool:
        for number in {0, 1} - held.keys():
            for pid in storm.servers(base, number):
                held[number] = psutil.Process(pid)
                held[number].suspend()
        return len(held) == 2 or driver.poll() is not None

    storm.wait_for(hold, PATIENCE)
    assert driver.poll() is None, "it ended before both servers were there"
    return [held[0], held[1]]
