# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.client queue` on real servers: one, and two under Ray."""

from __future__ import annotations

import io
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pose_transfer.client import ComfyServer, cli
from pose_transfer.mannequin import render
from pose_transfer.pose import write_keypoints

PACK = Path(__file__).parents[2]
API = PACK / "workflows" / "api"
storm = SimpleNamespace(**runpy.run_path(str(PACK / "tests" / "storm.py")))

# The workflow for photos, on the demo's detector and models.
ON_THE_DEMO = (
    *("--set", "Person at 352 x 512.width=192", "--set", "Person at 352 x 512.height=256"),
    *("--set", "Pose at 352 x 512.width=192", "--set", "Pose at 352 x 512.height=256"),
    *("--set", "Draw target pose.width=192", "--set", "Draw target pose.height=256"),
    *("--set", "Detect person.detector=mannequin (demo)"),
    *("--set", "Detect pose to take.detector=mannequin (demo)"),
    *("--set", "Load FPDM.checkpoint=mannequin demo (comes with the pack)"),
    *("--set", "Steps.steps=2", "--keep", "Save result"),
)


def write_person(path: Path, identity: int, pose: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(render(identity, pose).image).save(path)


def test_every_source_meets_the_pose_once_and_a_source_without_person_is_told(
    server: ComfyServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_person(tmp_path / "source" / "anna.png", 19, 29)
    write_person(tmp_path / "source" / "bert.png", 49, 29)
    Image.new("RGB", (192, 256), (90, 90, 90)).save(tmp_path / "source" / "nobody.png")
    write_person(tmp_path / "poses" / "walk.png", 9, 9)
    command = ["queue", str(API / "fpdm_photo.json"), "--server", server.address, *ON_THE_DEMO]
    command += ["--source", str(tmp_path / "source"), "--poses", str(tmp_path / "poses")]
    command += ["--out", str(tmp_path / "out")]
    assert cli.main(command) == 1
    said = capsys.readouterr()
    assert "2 made, 0 were there, 1 failed" in said.out
    assert "FAILED nobody/walk: 'Detect person' (PoseTransferDetectPose): " in said.err
    pictures = sorted(tmp_path.glob("out/*/*.png"))
    names = [path.relative_to(tmp_path / "out").as_posix() for path in pictures]
    assert names == ["anna/walk--Save_result.png", "bert/walk--Save_result.png"]
    anna, bert = (np.asarray(Image.open(path), float) for path in pictures)
    assert anna.shape == bert.shape == (256, 192, 3) and np.abs(anna - bert).mean() > 2
    text = (tmp_path / "out" / "manifest.jsonl").read_text()
    lines = {line["name"]: line for line in map(json.loads, text.splitlines())}
    assert lines["anna/walk"]["seeds"] == {"Noise.noise_seed": 7}
    assert lines["anna/walk"]["versions"]["host"].startswith("0.")
    assert "person" in lines["nobody/walk"]["error"]["text"].lower()

    (tmp_path / "source" / "nobody.png").unlink()
    assert cli.main(command) == 0
    assert "0 made, 2 were there, 0 failed" in capsys.readouterr().out
    assert (tmp_path / "out" / "manifest.jsonl").read_text() == text


def test_keypoint_files_reach_load_pose(server: ComfyServer, tmp_path: Path) -> None:
    (tmp_path / "poses").mkdir()
    for pose in (9, 39):
        keypoints = json.dumps(write_keypoints([render(19, pose).pose]))
        (tmp_path / "poses" / f"pose {pose}.json").write_text(keypoints)
    load = {
        "file": "none (use the text)", "text": "", "width": 0, "height": 0,
        "first_frame": 0, "frames": 0, "min_confidence": 0.1,
    }  # fmt: skip
    draw = {"pose": ["1", 0], "width": 0, "height": 0, "style": "fpdm", "min_confidence": 0.1}
    save = {"images": ["2", 0], "filename_prefix": "queue_pose"}
    nodes = {"PoseTransferLoadPose": load, "PoseTransferDrawPose": draw, "SaveImage": save}
    workflow = {
        str(number): {"class_type": name, "inputs": inputs, "_meta": {"title": name}}
        for number, (name, inputs) in enumerate(nodes.items(), 1)
    }
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    command = ["queue", str(tmp_path / "workflow.json"), "--server", server.address]
    command += ["--poses", str(tmp_path / "poses"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    drawn = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("out/*.png"))]
    assert len(drawn) == 2 and not np.array_equal(drawn[0], drawn[1])


def test_a_killed_server_and_a_killed_driver_cost_nothing(comfyui: Path, tmp_path: Path) -> None:
    """The small form of `make test-scale`."""
    arguments = [str(API / "fpdm_demo.json"), "--comfyui", str(comfyui), "--keep", "Save result"]
    arguments += ["--vary", "Person.identity=9,19,29", "--vary", "Person.target_pose=9,39"]
    arguments += ["--set", "Steps.steps=2"]
    report = storm.storm(arguments, tmp_path / "out", tmp_path / "base", 6)
    for line in report.lines:
        (file,) = line["files"]
        with Image.open(io.BytesIO((tmp_path / "out" / file["path"]).read_bytes())) as picture:
            picture.load()
            assert picture.size == (192, 256)
