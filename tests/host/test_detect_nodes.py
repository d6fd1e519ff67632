# SPDX-License-Identifier: GPL-3.0-or-later
"""Detect Pose in the real host, on networks of DWPose's layout that compute a known function."""

from __future__ import annotations

import io
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pose_transfer.client import ComfyServer, WorkflowError
from pose_transfer.pose import draw, read_keypoints

networks = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "dwpose_networks.py")))

HEIGHT, WIDTH = 200, 180
FIRST, SECOND = (10, 30, 70, 140), (105, 40, 65, 120)  # x, y, width, height
SETTINGS = {
    "detector": "DWPose",
    "hands": True,
    "face": True,
    "feet": True,
    "resolution": 512,
    "people": "all",
    "index": 0,
    "order": "left to right",
    "on_missing": "error",
    "style": "openpose",
}


@pytest.fixture
def points() -> np.ndarray:
    """133 points that lie within both people's surroundings."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(85, 105, 133), rng.uniform(60, 140, 133)
    return np.stack([x, y, np.full(133, 0.9)], axis=1).astype(np.float32)


@pytest.fixture
def dwpose_files(server: ComfyServer, points: np.ndarray) -> Iterator[Path]:
    folder = server.base_directory / "models" / "pose_transfer" / "pose"
    files = (
        networks.write_finder(folder / "yolox_l.onnx"),
        networks.write_estimator(folder / "dw-ll_ucoco_384.onnx", points),
    )
    yield folder
    for file in files:
        file.unlink()


class Detection:
    """A graph that detects in uploaded pictures and shows all that comes out."""

    def __init__(self, comfy: Any) -> None:
        self.comfy = comfy
        self.pictures = 0
        self.nodes: dict[str, Any] = {
            "detect": {"class_type": "PoseTransferDetectPose", "inputs": dict(SETTINGS)},
            "map": {
                "class_type": "SaveImage",
                "inputs": {"images": ["detect", 1], "filename_prefix": "detected"},
                "_meta": {"title": "map"},
            },
        }
        for output, title in ((0, "pose"), (2, "boxes"), (3, "report")):
            self.nodes[title] = {
                "class_type": "PreviewAny",
                "inputs": {"source": ["detect", output]},
                "_meta": {"title": title},
            }

    def show(self, *people: tuple[int, int, int, int]) -> None:
        """One picture more in the batch."""
        data = io.BytesIO()
        Image.fromarray(networks.telling_picture(HEIGHT, WIDTH, list(people))).save(data, "PNG")
        name = self.comfy.upload_image(f"telling_{self.pictures}.png", data.getvalue())
        load = f"picture {self.pictures}"
        self.nodes[load] = {"class_type": "LoadImage", "inputs": {"image": name}}
        link = [load, 0]
        if self.pictures:
            self.nodes[f"batch {self.pictures}"] = {
                "class_type": "ImageBatch",
                "inputs": {"image1": self.nodes["detect"]["inputs"]["image"], "image2": link},
            }
            link = [f"batch {self.pictures}", 0]
        self.nodes["detect"]["inputs"]["image"] = link
        self.pictures += 1

    def run(self, **settings: Any) -> SimpleNamespace:
        self.nodes["detect"]["inputs"] |= settings
        result = self.comfy.run(self.nodes)
        return SimpleNamespace(
            poses=read_keypoints(json.loads(result.texts["pose"][0])),
            boxes=json.loads(result.texts["boxes"][0]),
            report=result.texts["report"][0].splitlines(),
            maps=[np.asarray(Image.open(io.BytesIO(m))) for m in result.images["map"]],
            pictures=result.images,
        )

    def error(self, **settings: Any) -> str:
        self.nodes["detect"]["inputs"] |= settings
        with pytest.raises(WorkflowError) as caught:
            self.comfy.run(self.nodes)
        return str(caught.value)


@pytest.fixture
def detection(comfy: Any) -> Detection:
    return Detection(comfy)


def corners(box: dict[str, Any]) -> tuple[int, ...]:
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def test_without_its_files_it_says_which_where_and_how(
    detection: Detection, server: ComfyServer
) -> None:
    detection.show(FIRST)
    folder = server.base_directory / "models" / "pose_transfer" / "pose"
    message = detection.error()
    for part in ("yolox_l.onnx", "dw-ll_ucoco_384.onnx", str(folder), "https://", "download"):
        assert part in message
    assert "body_pose_model.pth" in detection.error(detector="OpenPose")


@pytest.mark.usefixtures("dwpose_files")
def test_a_batch_gives_keypoints_maps_boxes_and_a_report(
    detection: Detection, points: np.ndarray
) -> None:
    detection.show(FIRST, SECOND)
    detection.show(SECOND)
    found = detection.run()

    assert [len(pose.people) for pose in found.poses] == [2, 1]
    for pose in found.poses:
        assert (pose.width, pose.height) == (WIDTH, HEIGHT)
        for person in pose.people:
            for part, truth in ((person.face[:68], points[23:91]), (person.feet, points[17:23])):
                assert np.abs(part[:, :2] - truth[:, :2]).max() <= 1.5
    for pose, picture in zip(found.poses, found.maps, strict=True):
        assert np.array_equal(picture, draw(pose, HEIGHT, WIDTH, "openpose"))
    assert [len(boxes) for boxes in found.boxes] == [2, 1]
    x, y, w, h = FIRST
    assert corners(found.boxes[0][0]) == pytest.approx((x, y, x + w, y + h), abs=1)
    assert found.report[0].startswith("DWPose on ")
    assert "ExecutionProvider" in found.report[0]
    assert found.report[1:] == [
        "picture 0: 2 people",
        "picture 1: 1 person",
        "hands: on 3 of 3 people",
        "face: on 3 of 3 people",
        "feet: on 3 of 3 people",
    ]


@pytest.mark.usefixtures("dwpose_files")
def test_parts_people_order_and_boxes_are_as_chosen(detection: Detection) -> None:
    detection.show(FIRST, SECOND)

    bodies = detection.run(hands=False, face=False, feet=False).poses[0].people
    assert all(p.left_hand is p.right_hand is p.face is p.feet is None for p in bodies)
    (largest,) = detection.run(people="largest").boxes[0]
    assert largest["x"] == pytest.approx(FIRST[0], abs=1)
    (second,) = detection.run(people="by index", index=1).boxes[0]
    assert second["x"] == pytest.approx(SECOND[0], abs=1)
    surest, _ = detection.run(people="all", order="confidence").boxes[0]
    assert surest["score"] == pytest.approx(0.95 * 0.9)

    detection.nodes["box"] = {
        "class_type": "PrimitiveBoundingBox",
        "inputs": {"x": 95, "y": 30, "width": 80, "height": 150},
    }
    (inside,) = detection.run(boxes=["box", 0]).boxes[0]
    assert inside["x"] == pytest.approx(SECOND[0], abs=1)


@pytest.mark.usefixtures("dwpose_files")
def test_pictures_without_anybody_are_handled_as_chosen(detection: Detection) -> None:
    detection.show(FIRST)
    detection.show()

    assert "Nobody was found in picture 1" in detection.error()
    skipped = detection.run(on_missing="skip")
    assert [len(pose.people) for pose in skipped.poses] == [1, 0]
    assert not skipped.maps[1].any()
    repeated = detection.run(on_missing="previous")
    assert repeated.poses[0] == repeated.poses[1]
    assert "picture 1: nobody; as in picture 0" in repeated.report


@pytest.mark.usefixtures("dwpose_files")
def test_the_host_s_own_nodes_take_what_comes_out(detection: Detection) -> None:
    detection.show(FIRST, SECOND)
    detection.show()
    link = detection.nodes["detect"]["inputs"]["image"]
    detection.nodes |= {
        "draw": {
            "class_type": "SDPoseDrawKeypoints",
            "inputs": {
                "keypoints": ["detect", 0],
                **dict.fromkeys(
                    ("draw_body", "draw_hands", "draw_face", "draw_feet", "draw_head"), True
                ),
                "stick_width": 4,
                "face_point_size": 3,
                "score_threshold": 0.3,
            },
        },
        "boxed": {
            "class_type": "DrawBBoxes",
            "inputs": {"image": link, "bboxes": ["detect", 2]},
        },
        "again": {
            "class_type": "PoseTransferDetectPose",
            "inputs": {**SETTINGS, "image": link, "boxes": ["detect", 2], "on_missing": "skip"},
        },
    }
    for name, output in (("draw", 0), ("boxed", 0), ("again", 1)):
        detection.nodes[f"save {name}"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [name, output], "filename_prefix": name},
            "_meta": {"title": name},
        }
    pictures = detection.run(on_missing="skip").pictures
    sizes = {n: [Image.open(io.BytesIO(p)).size for p in pictures[n]] for n in ("draw", "boxed")}
    assert sizes == {"draw": [(WIDTH, HEIGHT)] * 2, "boxed": [(WIDTH, HEIGHT)] * 2}
    assert pictures["again"][1] == pictures["map"][1]
    assert np.asarray(Image.open(io.BytesIO(pictures["draw"][0]))).any()


def test_openpose_runs_where_the_host_puts_it(detection: Detection, server: ComfyServer) -> None:
    """Flat filters of the released layout: they see nobody, but everything on the way is real."""
    from controlnet_aux.open_pose.model import bodypose_model

    with torch.device("meta"):
        shapes = {key: x.shape for key, x in bodypose_model().state_dict().items()}
    file = server.base_directory / "models" / "pose_transfer" / "pose" / "body_pose_model.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {key.split(".", 1)[1]: torch.tensor(1e-6).expand(shape) for key, shape in shapes.items()},
        file,
    )
    try:
        detection.show(FIRST)
        settings = {"hands": False, "face": False, "on_missing": "skip", "resolution": 64}
        found = detection.run(detector="OpenPose", **settings)
        assert "hand_pose_model.pth" in detection.error(hands=True)
    finally:
        file.unlink()
    assert found.report[0].startswith(("OpenPose on cpu", "OpenPose on cuda"))
    assert found.report[1:] == ["picture 0: nobody", "feet: on 0 of 0 people"]


def test_a_long_batch_can_be_stopped_and_tells_how_far_it_is(in_host: Callable[[str], str]) -> None:
    printed = in_host(
        """
import comfy.model_management as management
import comfy.utils
from pose_transfer_pack.nodes import host

done = []
comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **_: done.append(value))
try:
    for picture in host.each("abcdef", 6):
        print(picture)
        if picture == "c":
            management.interrupt_current_processing()
except management.InterruptProcessingException:
    print("stopped at", done[0], done[-1] <= 3)
"""
    )
    assert printed.splitlines()[-4:] == ["a", "b", "c", "stopped at 1 True"]


def test_files_of_the_pack_comfyui_controlnet_aux_are_found(
    in_host: Callable[[str], str], tmp_path: Path
) -> None:
    kept = tmp_path / "custom_nodes" / "comfyui_controlnet_aux" / "ckpts" / "yzd-v" / "DWPose"
    kept.mkdir(parents=True)
    (kept / "yolox_l.onnx").write_bytes(b"")
    printed = in_host(
        """
from pose_transfer_pack.nodes import host

host.register_model_folders()
print(host.model_files(host.POSE_FOLDER, "dwpose", ["yolox_l.onnx"])[0])
"""
    )
    assert Path(printed.splitlines()[-1]) == kept / "yolox_l.onnx"


def test_what_was_found_is_shown_on_the_node(in_host: Callable[[str], str]) -> None:
    printed = in_host(
        """
import server
from pose_transfer_pack.nodes import host

class Server:
    def send_progress_text(self, text, node_id):
        print(node_id, text)

server.PromptServer.instance = Server()
host.say("7", "2 people")
host.say(None, "nobody listens")
"""
    )
    assert printed.splitlines()[-1] == "7 2 people"
