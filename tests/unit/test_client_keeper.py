# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of results: names, whole files, a manifest that survives kills."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pose_transfer.client import Failure, Keeper, Outcome, Picture, Plan, value_axis
from pose_transfer.client.manifest import Manifest
from pose_transfer.errors import PoseTransferError

fake = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "fake_comfyui.py")))


def plan(*values: int, **inputs: Any) -> Plan:
    workflow = {**fake.WORKFLOW, "3": {**fake.WORKFLOW["3"]}}
    workflow["3"]["inputs"] = {**workflow["3"]["inputs"], **inputs}
    return Plan(workflow, (value_axis("Draw", "seed", values or (1, 2)),))


def made(*titles_and_names: tuple[str, str]) -> Outcome:
    pictures = tuple((title, Picture(name, name.encode())) for title, name in titles_and_names)
    return Outcome("2026-01-01T00:00:00+00:00", 1.5, "http://s", "0.30.0", pictures)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def fill(folder: Path, wanted: Plan) -> int:
    """Does what is missing; how much that was."""
    with Keeper(folder, wanted) as keeper:
        count, jobs = keeper.missing()
        for job in jobs:
            keeper.keep(job, made(("Keep it", "a.png")), 1)
    return count


def test_a_line_tells_how_a_picture_was_made(tmp_path: Path) -> None:
    fill(tmp_path, plan(7))
    (line,) = lines(tmp_path)
    assert line["name"] == "seed-7" and line["status"] == "done" and line["attempts"] == 1
    assert line["inputs"] == {"Draw.seed": 7} and line["seeds"] == {"Draw.seed": 7}
    assert line["versions"]["host"] == "0.30.0" and line["versions"]["pack"].count(".") == 2
    assert line["seconds"] == 1.5 and line["started"].startswith("2026")
    assert len(line["workflow"]) == len(line["files"][0]["sha256"]) == 64
    (file,) = line["files"]
    assert file["path"] == "seed-7--Keep_it.png" and file["bytes"] == 5
    assert (tmp_path / file["path"]).read_bytes() == b"a.png"


def test_several_pictures_of_a_job_have_names_of_their_own(tmp_path: Path) -> None:
    with Keeper(tmp_path, plan(1)) as keeper:
        (job,) = keeper.missing()[1]
        pictures = [("A-b", "1.png"), ("A-b", "2.webp"), ("../x", "../../etc/passwd"), ("A b", "3")]
        keeper.keep(job, made(*pictures), 1)
    found = {p.name for p in tmp_path.iterdir() if not p.name.startswith((".", "manifest"))}
    assert found == {
        "seed-1--A_b.png", "seed-1--A_b-2.webp", "seed-1--x.bin", "seed-1--A_b-3.bin",
    }  # fmt: skip


def test_a_second_run_does_what_is_missing_and_no_more(tmp_path: Path) -> None:
    assert fill(tmp_path, plan(1, 2)) == 2
    assert fill(tmp_path, plan(1, 2)) == 0
    assert fill(tmp_path, plan(1, 2, 3)) == 1
    (tmp_path / "seed-2--Keep_it.png").unlink()
    (tmp_path / "seed-3--Keep_it.png").write_text("cut")
    assert fill(tmp_path, plan(1, 2, 3)) == 2
    assert len(lines(tmp_path)) == 5


def test_failed_jobs_are_told_with_their_node_and_tried_again(tmp_path: Path) -> None:
    with Keeper(tmp_path, plan(1)) as keeper:
        (job,) = keeper.missing()[1]
        failure = Failure("no paint", "Draw", "LoadImage")
        keeper.keep(job, Outcome("t", 0.1, failure=failure), 3)
    (line,) = lines(tmp_path)
    assert line["error"] == {"node": "Draw", "type": "LoadImage", "text": "no paint"}
    assert (line["status"], line["files"], line["attempts"]) == ("failed", [], 3)
    assert fill(tmp_path, plan(1)) == 1


@pytest.mark.parametrize("torn", [b'{"job": "abc", "na', b'{"job": "abc"}\n', b"\x00\x00\n", b"\n"])
def test_a_torn_last_line_is_taken_away(tmp_path: Path, torn: bytes) -> None:
    fill(tmp_path, plan(1, 2))
    path = tmp_path / "manifest.jsonl"
    sound = path.read_bytes()
    path.write_bytes(sound + torn)
    assert fill(tmp_path, plan(1, 2, 3)) == 1
    assert path.read_bytes().startswith(sound) and len(lines(tmp_path)) == 3


def test_a_job_whose_line_was_torn_is_done_again(tmp_path: Path) -> None:
    fill(tmp_path, plan(1, 2))
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert fill(tmp_path, plan(1, 2)) == 1
    assert [line["name"] for line in lines(tmp_path)] == ["seed-1", "seed-2"]


def test_damage_before_the_last_line_is_not_hidden(tmp_path: Path) -> None:
    fill(tmp_path, plan(1, 2))
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(PoseTransferError, match="line 1 is damaged"):
        fill(tmp_path, plan(1, 2))
    path.write_bytes(path.read_bytes()[1:])
    assert fill(tmp_path, plan(1, 2)) == 0


def test_results_of_another_workflow_are_not_overwritten(tmp_path: Path) -> None:
    fill(tmp_path, plan(1, 2))
    with pytest.raises(PoseTransferError, match=r"same names.*seed-1, seed-2\. Give another --out"):
        fill(tmp_path, plan(1, 2, seconds=9.0))
    for path in tmp_path.glob("*.png"):
        path.unlink()
    assert fill(tmp_path, plan(1, 2, seconds=9.0)) == 2


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with Manifest(tmp_path), pytest.raises(PoseTransferError, match="Another run"):
        Manifest(tmp_path).__enter__()
    with Manifest(tmp_path):
        pass


def test_pictures_and_their_names_are_on_the_disk_before_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves what is on the disk; the order decides what that is."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle: int) -> None:
        calls.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def spy_replace(draft: Path, path: Path) -> None:
        calls.append(f"{draft} becomes {path}")
        replace(draft, path)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    wanted = Plan(
        fake.WORKFLOW, (value_axis("Draw", "image", ["a"]), value_axis("Draw", "seed", [1]))
    )
    fill(tmp_path, wanted)
    draft, renamed, *folders, manifest = calls
    (picture,) = tmp_path.rglob("*.png")
    assert renamed == f"{draft} becomes {picture}"
    assert folders == [str(picture.parent), str(tmp_path)] and picture.parent != tmp_path
    assert manifest == str(tmp_path / "manifest.jsonl")


def test_a_killed_run_s_half_written_pictures_go(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    draft = tmp_path / "a" / ".seed-1--Keep_it.png.abc.part"
    draft.write_text("half")
    fill(tmp_path, plan(1))
    assert not draft.exists()
