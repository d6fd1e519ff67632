# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.client queue` on one server that answers as ComfyUI does."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from pose_transfer.client import cli
from pose_transfer.client import retry as retry_module

fake = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "fake_comfyui.py")))
Run = Callable[..., int]


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_module.Backoff, "pause", lambda *_: 0.01)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run(server, *options)`: the command with results in `out`; its exit status."""
    workflow = tmp_path / "workflow.json"
    workflow.write_text(json.dumps(fake.WORKFLOW))

    def main(server: Any, *options: str) -> int:
        async def session() -> int:
            async with server as address:
                command = ["queue", str(workflow), "--out", str(tmp_path / "out")]
                command += ["--server", address, *options]
                return await asyncio.to_thread(cli.main, command)

        return asyncio.run(session())

    return main


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]


def sources(tmp_path: Path, count: int) -> str:
    (tmp_path / "sources").mkdir(exist_ok=True)
    for number in range(count):
        (tmp_path / "sources" / f"person {number}.png").write_bytes(b"photo %d" % number)
    return str(tmp_path / "sources")


def test_sources_times_seeds_are_uploaded_run_and_named(run: Run, tmp_path: Path) -> None:
    server = fake.FakeComfyUI()
    assert run(server, "--source", sources(tmp_path, 2), "--vary", "Draw.seed=5,7") == 0
    assert sorted(server.uploads.values()) == [b"photo 0", b"photo 1"]  # each once
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in tmp_path.glob("out/*/*.png"))
    assert names == [f"person_{n}/seed-{s}--Keep_it.png" for n in (0, 1) for s in (5, 7)]
    line = next(x for x in lines(tmp_path) if x["name"] == "person_1/seed-7")
    content = (tmp_path / "out" / line["files"][0]["path"]).read_text()
    sha256 = line["inputs"]["Draw.image"]["sha256"]
    assert content == f"picture: seed 7 of pose_transfer_queue|{sha256[:24]}.png.png"
    assert server.uploads[f"pose_transfer_queue/{sha256[:24]}.png"] == b"photo 1"


def test_a_second_run_asks_nothing_of_the_server(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert run(fake.FakeComfyUI(), "--vary", "Draw.seed=5,7") == 0
    server = fake.FakeComfyUI()
    assert run(server, "--vary", "Draw.seed=5,7,9") == 0
    assert len(server.history) == 1
    assert "1 made, 2 were there, 0 failed" in capsys.readouterr().out


def test_a_failed_job_is_named_with_its_node_and_the_others_go_on(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(fake.FakeComfyUI(), "--vary", "Draw.seed=1,-1,2") == 1
    captured = capsys.readouterr()
    assert "FAILED seed--1: 'Draw' (Draw): no such seed" in captured.err
    assert "2 made, 0 were there, 1 failed" in captured.out
    (failed,) = (x for x in lines(tmp_path) if x["status"] == "failed")
    assert failed["error"] == {"node": "Draw", "type": "Draw", "text": "no such seed"}
    assert failed["attempts"] == 1  # no use in trying again


def test_the_server_s_queue_stays_short(run: Run) -> None:
    server = fake.FakeComfyUI()
    values = ",".join(map(str, range(12)))
    options = ("--vary", f"Draw.seed={values}", "--set", "Draw.seconds=0.01")
    assert run(server, *options, "--in-flight", "3") == 0
    assert server.most_queued == 3 and len(server.history) == 12


def test_trouble_that_passes_is_waited_out(run: Run, tmp_path: Path) -> None:
    asked = 0

    async def trouble(request: web.Request) -> web.StreamResponse | None:
        nonlocal asked
        asked += request.path == "/prompt"
        return web.Response(status=500) if request.path == "/prompt" and asked % 2 else None

    options = ("--vary", "Draw.seed=1,2,3", "--in-flight", "1")
    assert run(fake.FakeComfyUI(trouble), *options) == 0
    assert [line["attempts"] for line in lines(tmp_path)] == [2, 2, 2]


def test_a_job_that_always_takes_too_long_fails_alone(run: Run, tmp_path: Path) -> None:
    async def trouble(request: web.Request) -> web.StreamResponse | None:
        if (
            request.path == "/prompt"
            and (await request.json())["prompt"]["3"]["inputs"]["seed"] == 2
        ):
            await asyncio.sleep(60)
        return None

    options = ("--vary", "Draw.seed=1,2,3", "--timeout", "0.4", "--retries", "1")
    assert run(fake.FakeComfyUI(trouble), *options) == 1
    status = {line["name"]: (line["status"], line["attempts"]) for line in lines(tmp_path)}
    assert status == {"seed-1": ("done", 1), "seed-2": ("failed", 2), "seed-3": ("done", 1)}


@pytest.mark.parametrize("path", ["/system_stats", "/upload/image", "/ws"])
def test_nothing_that_hangs_holds_the_command(run: Run, tmp_path: Path, path: str) -> None:
    async def trouble(request: web.Request) -> web.StreamResponse | None:
        await asyncio.sleep(60 if request.path == path else 0)
        return None

    options = ("--source", sources(tmp_path, 1), "--timeout", "0.5", "--retries", "1")
    started = time.monotonic()
    assert run(fake.FakeComfyUI(trouble), *options) == (0 if path == "/ws" else 1)
    assert time.monotonic() - started < 6


def test_a_server_that_is_gone_ends_the_run_and_leaves_its_jobs_for_the_next(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    async def trouble(request: web.Request) -> web.StreamResponse | None:
        if server.history:
            assert request.transport
            request.transport.close()
        return None

    server = fake.FakeComfyUI(trouble)
    values = "Draw.seed=1,2,3,4,5"
    assert run(server, "--vary", values, "--in-flight", "1", "--retries", "2") == 1
    assert "does not come back (3 tries" in capsys.readouterr().err
    assert not [line for line in lines(tmp_path) if line["status"] == "failed"]
    assert run(fake.FakeComfyUI(), "--vary", values) == 0
    assert len({line["job"] for line in lines(tmp_path)}) == 5 == len(lines(tmp_path))


def test_a_source_that_changes_under_the_run_is_not_passed_off(run: Run, tmp_path: Path) -> None:
    folder = sources(tmp_path, 1)

    async def trouble(request: web.Request) -> web.StreamResponse | None:
        (Path(folder) / "person 0.png").write_bytes(b"another")
        return None

    assert run(fake.FakeComfyUI(trouble), "--source", folder) == 1
    assert "was changed while the run" in lines(tmp_path)[0]["error"]["text"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--poses", "/nowhere"), "no file for"),
        (("--keep", "Nobody"), "no node with the title 'Nobody'"),
        (("--vary", "Draw.seed=x"), "a whole number"),
        (("--source", "/nowhere"), "no file for 'Draw'"),
    ],
)
def test_mistakes_are_one_line(
    run: Run, capsys: pytest.CaptureFixture, options: tuple[str, ...], text: str
) -> None:
    assert run(fake.FakeComfyUI(), *options) == 1
    error = capsys.readouterr().err
    assert re.search(text, error) and "Traceback" not in error
