# SPDX-License-Identifier: GPL-3.0-or-later
"""Ray's part of `queue`, on servers that answer as ComfyUI does and start in a second."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from pose_transfer.client import Backoff, ClusterPlan, Job, Order, Outcome, ServerError, cli
from pose_transfer.client.cluster import _Driver

TESTS = Path(__file__).parents[1]
SHIPPED = TESTS.parent / "workflows" / "api" / "fpdm_demo.json"
fake = SimpleNamespace(**runpy.run_path(str(TESTS / "fake_comfyui.py")))
storm = SimpleNamespace(**runpy.run_path(str(TESTS / "storm.py")))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder that passes for ComfyUI's."""
    folder = tmp_path / "host"
    folder.mkdir()
    shutil.copy(TESTS / "fake_comfyui.py", folder / "main.py")
    return folder


@pytest.fixture
def workflow(tmp_path: Path) -> str:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(fake.WORKFLOW))
    return str(path)


def test_a_job_that_kills_its_servers_fails_alone(
    host: Path, workflow: str, tmp_path: Path
) -> None:
    options = ("--vary", "Draw.seed=1,666,2,3", "--retries", "1", "--in-flight", "1")
    with (tmp_path / "log").open("wb") as log:
        arguments = [workflow, *options, "--comfyui", str(host)]
        driver = storm.start_queue(arguments, tmp_path / "out", tmp_path / "base", log)
        assert driver.wait(200) == 1
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    ended = {line["name"]: line for line in map(json.loads, lines)}
    assert {name: line["status"] for name, line in ended.items()} == {
        "seed-1": "done", "seed-2": "done", "seed-3": "done", "seed-666": "failed",
    }  # fmt: skip
    assert ended["seed-666"]["attempts"] == 2
    assert re.search("server died|No answer", ended["seed-666"]["error"]["text"])
    assert not storm.servers(tmp_path / "base")


def test_a_server_that_falls_silent_in_the_middle_of_a_job_is_started_anew(
    host: Path, workflow: str, tmp_path: Path
) -> None:
    """Its process lives and takes connections, so only its silence gives it away."""
    options = ("--vary", "Draw.seed=1,667,2", "--retries", "0", "--in-flight", "1")
    with (tmp_path / "log").open("wb") as log:
        arguments = [workflow, *options, "--comfyui", str(host), "--silence", "8"]
        # One try may take ten minutes: it is not the try's time limit that helps.
        driver = storm.start_queue(arguments, tmp_path / "out", tmp_path / "base", log, servers=1)
        assert driver.wait(500) == 1
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    ended = {line["name"]: line for line in map(json.loads, lines)}
    assert {name: line["status"] for name, line in ended.items()} == {
        "seed-1": "done", "seed-2": "done", "seed-667": "failed",
    }  # fmt: skip
    assert "server died" in ended["seed-667"]["error"]["text"]
    assert not storm.servers(tmp_path / "base")


def test_servers_that_do_not_start_are_told_with_their_last_words(
    host: Path, workflow: str, tmp_path: Path
) -> None:
    (host / "main.py").write_text("raise SystemExit('no memory left')")
    with (tmp_path / "log").open("wb") as log:
        arguments = [workflow, "--comfyui", str(host)]
        driver = storm.start_queue(arguments, tmp_path / "out", tmp_path / "base", log)
        assert driver.wait(200) == 1
    _, said, reason = (tmp_path / "log").read_text().rpartition("No server is left. ")
    assert said and reason.startswith("ComfyUI ended with status 1")
    assert reason.endswith("no memory left\n")
    assert (tmp_path / "out" / "manifest.jsonl").read_text() == ""


def test_what_ray_prints_on_the_way_is_not_shown(
    host: Path, workflow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its threads print to stdout that a task failed and is tried again, sometimes at the end."""

    def chatter(*_: object) -> None:
        print("(raylet) Task ServerActor.hello failed. There are infinite retries remaining")
        raise ServerError("No server is left.")

    monkeypatch.setattr(cli, "run_cluster", chatter)
    out = ["--out", str(tmp_path / "out"), "--ray", "local", "--base", str(tmp_path / "base")]
    assert cli.main(["queue", workflow, "--comfyui", str(host), *out]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.endswith("No server is left.\n")


def test_without_ray_the_client_works_and_the_option_says_what_to_install(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import pose_transfer.client.cli as cli\n"
        "sys.exit(cli.main(['queue', sys.argv[1], '--out', sys.argv[2], '--ray', 'local', "
        "'--comfyui', '.']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SHIPPED), str(tmp_path)],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "pip install 'ray" in done.stderr


@dataclass(eq=False)
class Ref:
    """A reference of Ray's; None: it never comes."""

    answer: Any


class LossyRay:
    """Ray and an actor of its in one. `answers` come to the actor's tries, those that are errors
    are raised; after `starts` starts it is not started again."""

    exceptions = ray.exceptions

    def __init__(self, answers: list[Any], starts: int = 99):
        self.attempt = SimpleNamespace(remote=lambda _: Ref(answers.pop(0)))
        started = iter(["http://server"] * starts)
        starting = SimpleNamespace(remote=lambda: Ref(next(started, None)))
        self.hello = SimpleNamespace(options=lambda **_: starting)

    def wait(self, refs: list[Ref], **_: Any) -> tuple[list[Ref], list[Ref]]:
        time.sleep(0.01)
        return [ref for ref in refs if ref.answer is not None][:1], []

    def get(self, ref: Ref) -> Any:
        if isinstance(ref.answer, Exception):
            raise ref.answer
        return ref.answer

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}


def drive(lossy: LossyRay, start_timeout: float = 5.0) -> list[tuple[Outcome, int]]:
    """What came of one job, and after how many tries."""
    kept: list[tuple[Outcome, int]] = []
    driver = _Driver(
        lossy, [lossy], Order({}), lambda _, outcome, attempts: kept.append((outcome, attempts)),
        ClusterPlan(in_flight=1, start_timeout=start_timeout), Backoff(retries=2, first=0.01),
    )  # fmt: skip
    driver.run(iter([Job("id", "name", ())]))
    return kept


LOSSES = [
    ray.exceptions.ObjectLostError("ab" * 28, None, ""),
    ray.exceptions.OwnerDiedError("ab" * 28, None, ""),
    ray.exceptions.OutOfMemoryError("the node is full"),
    ray.exceptions.NodeDiedError("gone"),
    ray.exceptions.ActorDiedError(),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_an_answer_that_is_lost_with_its_machine_is_asked_for_again(loss: Exception) -> None:
    done = Outcome("t", 1.0)
    assert drive(LossyRay([loss, done])) == [(done, 2)]
    ((outcome, attempts),) = drive(LossyRay([loss] * 3))
    assert attempts == 3 and outcome.failure
    assert re.search(f"server died|lost .{type(loss).__name__}", outcome.failure.text)


def test_a_run_does_not_wait_for_ever_when_its_last_server_is_not_replaced() -> None:
    lossy = LossyRay([ray.exceptions.ActorDiedError()], starts=1)
    with pytest.raises(ServerError, match=r"No server started within 0\.3 s"):
        drive(lossy, start_timeout=0.3)
