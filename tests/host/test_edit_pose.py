# SPDX-License-Identifier: GPL-3.0-or-later
"""Edit Pose without a browser: what a workflow or a script gives the node, and what comes out."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pose_transfer.client import WorkflowError
from pose_transfer.mannequin import render
from pose_transfer.pose import draw, read_keypoints, write_keypoints

POSES = [render(9, 19).pose, render(19, 29).pose]
EDITED = json.dumps(write_keypoints(POSES[:1]))
WIRED = json.dumps(write_keypoints(POSES[1:]))


def workflow(pose: str, wired: str | None = None, image: bool = False) -> dict[str, Any]:
    """Edit Pose; its map and what Draw Pose makes of its keypoints are saved."""
    links: dict[str, Any] = {}
    nodes: dict[str, Any] = {}
    if wired is not None:
        inputs = {"file": "none (use the text)", "text": wired, "width": 0, "height": 0}
        inputs |= {"first_frame": 0, "frames": 0, "min_confidence": 0.1}
        nodes["1"] = {"class_type": "PoseTransferLoadPose", "inputs": inputs}
        links["detected_pose"] = ["1", 0]
    if image:
        inputs = {"width": 96, "height": 64, "batch_size": 2, "color": 0xFF8000}
        nodes["2"] = {"class_type": "EmptyImage", "inputs": inputs}
        links["image"] = ["2", 0]
    nodes["3"] = {"class_type": "PoseTransferEditPose", "inputs": {"pose": pose, **links}}
    inputs = {"pose": ["3", 0], "width": 0, "height": 0, "style": "dwpose", "min_confidence": 0.1}
    nodes["4"] = {"class_type": "PoseTransferDrawPose", "inputs": inputs}
    for number, (title, link) in enumerate({"map": ["3", 1], "drawn": ["4", 0]}.items(), start=5):
        nodes[str(number)] = {
            "class_type": "SaveImage",
            "inputs": {"images": link, "filename_prefix": "edit_pose"},
            "_meta": {"title": title},
        }
    return nodes


def pictures(comfy: Any, *args: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """The node's own map, and its keypoints drawn by Draw Pose."""
    images = comfy.run(workflow(*args, **options)).images
    shown = [Image.open(io.BytesIO(images[title][0])) for title in ("map", "drawn")]
    return np.asarray(shown[0].convert("RGB")), np.asarray(shown[1].convert("RGB"))


def test_what_was_edited_comes_out(comfy: Any) -> None:
    for found in pictures(comfy, EDITED):
        assert np.array_equal(found, draw(POSES[0], 256, 192, "dwpose"))


def test_the_edit_wins_over_the_wired_pose(comfy: Any) -> None:
    found, _ = pictures(comfy, EDITED, wired=WIRED, image=True)
    assert np.array_equal(found, draw(POSES[0], 256, 192, "dwpose"))


def test_an_untouched_node_passes_the_wired_pose_on(comfy: Any) -> None:
    for found in pictures(comfy, "", wired=WIRED):
        assert np.array_equal(found, draw(POSES[1], 256, 192, "dwpose"))


def test_an_untouched_node_without_a_wire_stands_in_the_a_pose(comfy: Any) -> None:
    found, drawn = pictures(comfy, " ")
    assert found.shape == (768, 512, 3)
    assert np.array_equal(found, drawn)
    mirrored = found[:, ::-1].any(axis=2)
    assert (mirrored == found.any(axis=2)).mean() > 0.98, "an A-pose is symmetric"


def test_the_editor_s_own_notes_and_hidden_joints_are_no_part_of_the_pose(comfy: Any) -> None:
    (frame,) = json.loads(EDITED)
    body = frame["people"][0]["pose_keypoints_2d"]
    body[4 * 3 + 2] = 0  # the right wrist, hidden: it keeps its place and loses its confidence
    frame["pose_transfer_editor"] = {
        "locked": [["body.4"]], "underlay": {"name": "a.png", "opacity": 0.5},
    }  # fmt: skip
    text = json.dumps([frame])
    found, _ = pictures(comfy, text)
    (pose,) = read_keypoints(text)
    assert np.array_equal(found, draw(pose, 256, 192, "dwpose"))
    assert not np.array_equal(found, draw(POSES[0], 256, 192, "dwpose"))


def test_nobody_is_a_black_map(comfy: Any) -> None:
    nodes = workflow('{"canvas_width": 40, "canvas_height": 30, "people": []}')
    del nodes["4"], nodes["6"]
    (picture,) = comfy.run(nodes).images["map"]
    found = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    assert found.shape == (30, 40, 3)
    assert not found.any()


@pytest.mark.parametrize(
    ("pose", "sentence"),
    [
        ("walk to the left", "not JSON"),
        ('{"people": [{"pose_keypoints_2d": [0.5, 0.5, 1]}]}', "Got 1 points"),
        ('{"canvas_width": 20000, "canvas_height": 10, "people": []}', "at most 16384 px"),
        (
            '{"canvas_width": 16384, "canvas_height": 16384, "people": []}',
            r"1 pose map\(s\) of 16384x16384 px.*at most 134 megapixels",
        ),
        (
            json.dumps([{"canvas_width": 4096, "canvas_height": 4096, "people": []}] * 9),
            r"9 pose map\(s\) of 4096x4096 px.*take fewer frames",
        ),
    ],
)
def test_what_is_no_pose_is_refused_before_anything_runs(
    comfy: Any, pose: str, sentence: str
) -> None:
    with pytest.raises(WorkflowError, match=sentence):
        comfy.run(workflow(pose))
    assert pictures(comfy, EDITED)[0].any()
