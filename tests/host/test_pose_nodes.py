# SPDX-License-Identifier: GPL-3.0-or-later
"""Poses in the real host: from files and text, retargeted, drawn by us and by the host, saved."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pose_transfer.client import ComfyServer, WorkflowError
from pose_transfer.mannequin import render
from pose_transfer.pose import draw, overlay, read_keypoints, retarget, write_keypoints
from pose_transfer.types import PART_POINTS, Person, Pose

NO_FILE = "none (use the text)"
SAMPLES = [render(9, 19), render(19, 29)]
POSES = [sample.pose for sample in SAMPLES]
LOAD = {
    "file": NO_FILE, "text": "", "width": 0, "height": 0, "first_frame": 0, "frames": 0,
}  # fmt: skip
RETARGET = {
    "scale": "target", "position": "target", "feet": "anywhere", "ground_line": 0.95,
    "hands": "follow",
}  # fmt: skip


class Graph:
    """A workflow that grows node by node."""

    def __init__(self, comfy: Any) -> None:
        self.comfy = comfy
        self.nodes: dict[str, Any] = {}

    def add(self, class_type: str, **inputs: Any) -> list[Any]:
        """Adds a node; returns its first output as a link."""
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {
            "class_type": class_type, "inputs": inputs, "_meta": {"title": f"node {number}"},
        }  # fmt: skip
        return [number, 0]

    def load(self, **inputs: Any) -> list[Any]:
        return self.add("PoseTransferLoadPose", **(LOAD | inputs))

    def paste(self, poses: Any, **inputs: Any) -> list[Any]:
        return self.load(text=json.dumps(poses), **inputs)

    def keep(self, link: list[Any]) -> str:
        """Saves pictures; returns the title of the node."""
        number, _ = self.add("SaveImage", images=link, filename_prefix="pose_test")
        return f"node {number}"

    def draw(self, pose: list[Any], style: str = "openpose", **inputs: Any) -> list[Any]:
        size = {"width": 0, "height": 0}
        return self.add("PoseTransferDrawPose", pose=pose, style=style, **(size | inputs))

    def run(self) -> Any:
        return self.comfy.run(self.nodes)

    def pictures(self, link: list[Any]) -> list[np.ndarray]:
        title = self.keep(link)
        return [np.asarray(Image.open(io.BytesIO(data))) for data in self.run().images[title]]

    def error(self) -> str:
        with pytest.raises(WorkflowError) as caught:
            self.run()
        return str(caught.value)


@pytest.fixture
def graph(comfy: Any) -> Graph:
    return Graph(comfy)


@pytest.fixture
def inputs(server: ComfyServer) -> Path:
    return server.base_directory / "input"


@pytest.fixture
def outputs(server: ComfyServer) -> Path:
    return server.base_directory / "output"


def whole_person(width: int, height: int) -> Person:
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in PART_POINTS.items():
        points = rng.uniform((30, 30, 0.5), (width - 30, height - 30, 1), (count, 3))
        points[rng.random(count) < 0.2] = 0
        parts[part] = points
    return Person(**parts)


def test_pasted_text_is_drawn_as_the_library_draws_it(graph: Graph) -> None:
    written = write_keypoints(POSES)
    pictures = graph.pictures(graph.draw(graph.paste(written), "dwpose"))
    for pose, picture in zip(POSES, pictures, strict=True):
        assert np.array_equal(picture, draw(pose, 256, 192, "dwpose"))


def test_frames_are_chosen(graph: Graph) -> None:
    written = write_keypoints([POSES[0], POSES[1], POSES[0]])
    link = graph.paste(written, first_frame=1, frames=1)
    (picture,) = graph.pictures(graph.draw(link))
    assert np.array_equal(picture, draw(POSES[1], 256, 192, "openpose"))


def test_a_frame_that_is_not_there_is_named(graph: Graph) -> None:
    graph.keep(graph.draw(graph.paste(write_keypoints(POSES), first_frame=2)))
    assert "has 2 frames" in graph.error()


def test_a_canvas_is_given_to_poses_without_one(graph: Graph) -> None:
    body = POSES[0].people[0].body / [192, 256, 1]
    marks = {"people": [{"pose_keypoints_2d": body.ravel().tolist()}]}
    link = graph.paste(marks, width=192, height=256)
    (picture,) = graph.pictures(graph.draw(link))
    assert np.array_equal(picture, draw(POSES[0], 256, 192, "openpose"))


@pytest.mark.parametrize(
    ("inputs_", "sentence"),
    [
        ({}, "neither a file nor text"),
        ({"text": "walk to the left"}, "not JSON"),
        ({"text": "{}", "file": "gone.json"}, "both the file 'gone.json' and text"),
        ({"file": "gone.json"}, "no file 'gone.json'"),
        ({"file": "../../secret.json"}, "no file '../../secret.json'"),
        ({"text": '{"people": []}', "width": 64}, "64x0 px"),
        ({"text": '{"people": [{"pose_keypoints_2d": [0.5, 0.5, 1]}]}'}, "Got 1 points"),
    ],
)
def test_what_is_no_pose_is_refused(graph: Graph, inputs_: dict, sentence: str) -> None:
    graph.keep(graph.draw(graph.load(**inputs_)))
    assert sentence in graph.error()
    ok = Graph(graph.comfy)
    assert len(ok.pictures(ok.draw(ok.paste(write_keypoints(POSES))))) == 2


def test_files_of_the_input_folder_are_offered_and_read(graph: Graph, inputs: Path) -> None:
    (inputs / "walk.json").write_text(json.dumps(write_keypoints(POSES[:1])))
    (inputs / "notes.md").write_text("no pose")
    node = graph.comfy.object_info()["PoseTransferLoadPose"]
    offered = node["input"]["required"]["file"][1]["options"]
    assert offered[0] == NO_FILE and "walk.json" in offered and "notes.md" not in offered
    (picture,) = graph.pictures(graph.draw(graph.load(file="walk.json")))
    assert np.array_equal(picture, draw(POSES[0], 256, 192, "openpose"))


def test_an_uploaded_file_is_read(graph: Graph) -> None:
    data = json.dumps(write_keypoints(POSES[1:])).encode()
    name = graph.comfy.upload_image("uploaded pose.json", data)
    (picture,) = graph.pictures(graph.draw(graph.load(file=name)))
    assert np.array_equal(picture, draw(POSES[1], 256, 192, "openpose"))


def test_a_changed_file_is_read_again(graph: Graph, inputs: Path) -> None:
    file = inputs / "changing.json"
    for pose in POSES:
        file.write_text(json.dumps(write_keypoints([pose])))
        again = Graph(graph.comfy)
        (picture,) = again.pictures(again.draw(again.load(file=file.name)))
        assert np.array_equal(picture, draw(pose, 256, 192, "openpose"))


def test_the_released_drawing_comes_from_a_deepfashion_file(graph: Graph, inputs: Path) -> None:
    released = np.load(Path(__file__).parents[1] / "data" / "fpdm_pose_maps.npz")
    np.savetxt(inputs / "03_1_front.txt", released["keypoints_raw_0"])
    pose = graph.load(file="03_1_front.txt")
    (picture,) = graph.pictures(graph.draw(pose, "fpdm", width=352, height=512))
    assert np.array_equal(picture, released["map_512x352_0"])


def drawn_by_the_host(graph: Graph, pose: list[Any], **inputs: Any) -> list[Any]:
    return graph.add(
        "SDPoseDrawKeypoints", keypoints=pose, draw_body=True, draw_hands=True, draw_face=True,
        draw_feet=True, stick_width=4, face_point_size=3, score_threshold=0.3, draw_head=True,
        **inputs,
    )  # fmt: skip


def test_the_host_draws_what_we_write(graph: Graph) -> None:
    person = whole_person(512, 384)
    bare = Person(person.body)  # the host stops at parts that are None
    written = write_keypoints([Pose(512, 384, (person, bare)), Pose(512, 384)])
    pictures = graph.pictures(drawn_by_the_host(graph, graph.paste(written)))
    assert [picture.shape for picture in pictures] == [(384, 512, 3)] * 2
    assert not pictures[1].any()
    for part in PART_POINTS:
        points = getattr(person, part)
        for x, y, _ in points[points[:, 2] > 0][:6].astype(int).tolist():
            assert pictures[0][y - 3 : y + 4, x - 3 : x + 4].any(), part


def test_the_host_draws_a_saved_file(graph: Graph, outputs: Path) -> None:
    pose = Pose(512, 384, (whole_person(512, 384),))
    graph.add(
        "PoseTransferSavePose", pose=graph.paste(write_keypoints([pose])),
        filename_prefix="for_the_host", files="one file for all frames", binary_confidence=False,
    )  # fmt: skip
    graph.run()
    saved = json.loads((outputs / "for_the_host_00001_.json").read_text())
    again = Graph(graph.comfy)
    # As any node would hand it on: the file's content itself, unread by us.
    (picture,) = again.pictures(drawn_by_the_host(again, {"__value__": saved}))  # type: ignore[arg-type]
    assert picture.any()


def save(graph: Graph, pose: list[Any], prefix: str, **inputs: Any) -> list[Any]:
    chosen = {"files": "one file for each frame", "binary_confidence": False} | inputs
    return graph.add("PoseTransferSavePose", pose=pose, filename_prefix=prefix, **chosen)


def test_saved_poses_are_numbered_and_read_back(graph: Graph, outputs: Path) -> None:
    save(graph, graph.paste(write_keypoints(POSES)), "poses/walk %width%x%height%")
    graph.run()
    names = [f"walk 192x256_0000{i}_.json" for i in (1, 2, 3)]
    assert sorted(path.name for path in (outputs / "poses").iterdir()) == names[:2]
    for pose, name in zip(POSES, names, strict=False):
        assert read_keypoints((outputs / "poses" / name).read_bytes()) == [pose]

    more = Graph(graph.comfy)
    link = more.load(file=f"poses/{names[0]} [output]")
    save(more, link, "poses/walk 192x256", files="one file for all frames", binary_confidence=True)
    more.run()
    assert sorted(path.name for path in (outputs / "poses").iterdir()) == names
    (written,) = json.loads((outputs / "poses" / names[2]).read_text())
    assert set(written["people"][0]["pose_keypoints_2d"][2::3]) <= {0.0, 1.0}


@pytest.mark.parametrize("prefix", ["../escaped", "{elsewhere}/pose", "a/../../escaped", "a\0b"])
def test_nothing_is_written_outside_of_the_output_folder(
    graph: Graph, server: ComfyServer, tmp_path: Path, prefix: str
) -> None:
    def files() -> set[Path]:
        return {p for folder in (server.base_directory, tmp_path) for p in folder.rglob("*.*")}

    before = files()
    save(graph, graph.paste(write_keypoints(POSES)), prefix.format(elsewhere=tmp_path))
    assert "filename prefix" in (error := graph.error()) or "cannot be written" in error
    assert not {
        p for p in files() - before if "escaped" in p.name or p.suffix in (".json", ".part")
    }


def test_an_empty_prefix_is_refused(graph: Graph) -> None:
    save(graph, graph.paste(write_keypoints(POSES)), "  ")
    assert "filename_prefix is empty" in graph.error()


def test_retarget_is_the_library_s_with_its_overlay(graph: Graph) -> None:
    source, target = (graph.paste(write_keypoints([pose])) for pose in POSES)
    node = graph.add(
        "PoseTransferRetargetPose", source_pose=source, target_pose=target,
        source_image=graph.add(
            "PoseTransferDemoPerson", identity=9, source_pose=19, target_pose=29
        ),
        **RETARGET | {"feet": "on the ground line", "scale": "source"},
    )  # fmt: skip
    title = graph.keep([node[0], 1])
    (drawn,) = graph.pictures(graph.draw(node))
    expected = retarget(*POSES, scale="source", ground=0.95 * 256)
    assert np.array_equal(drawn, draw(expected, 256, 192, "openpose"))
    (shown,) = (Image.open(io.BytesIO(data)) for data in graph.run().images[title])
    assert np.array_equal(np.asarray(shown), overlay(SAMPLES[0].image, POSES[1], expected))


def test_a_video_is_retargeted_frame_by_frame(graph: Graph) -> None:
    video = [POSES[1], Pose(192, 256), POSES[0]]
    source = graph.paste(write_keypoints(POSES[:1]))
    node = graph.add(
        "PoseTransferRetargetPose", source_pose=source,
        target_pose=graph.paste(write_keypoints(video)), **RETARGET,
    )  # fmt: skip
    pictures = graph.pictures(graph.draw(node))
    assert np.array_equal(pictures[0], draw(retarget(*POSES), 256, 192, "openpose"))
    assert not pictures[1].any()
    overlays = graph.pictures([node[0], 1])
    assert len(overlays) == 3


def test_frames_with_hands_only_or_a_body_off_the_canvas_do_not_stop_a_film(graph: Graph) -> None:
    hand = np.tile(np.array([90, 120, 1], dtype=np.float32), (21, 1))
    hands = Person(np.zeros((18, 3), np.float32), left_hand=hand)
    gone = POSES[0].people[0].body.copy()
    gone[:, 0] += 1000 * (gone[:, 2] > 0)
    people = (hands, Person(gone), POSES[1].people[0])
    video = [Pose(192, 256, (person,)) for person in people]
    node = graph.add(
        "PoseTransferRetargetPose", source_pose=graph.paste(write_keypoints(POSES[:1])),
        target_pose=graph.paste(write_keypoints(video)), **RETARGET,
    )  # fmt: skip
    given = graph.draw(graph.paste(write_keypoints(video)), "dwpose")
    wanted, pictures = graph.pictures(given), graph.pictures(graph.draw(node, "dwpose"))
    assert wanted[0].any() and not wanted[1].any()
    assert all(np.array_equal(pictures[i], wanted[i]) for i in range(2))
    assert np.array_equal(pictures[2], draw(retarget(*POSES), 256, 192, "dwpose"))


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        ([Pose(64, 64)], POSES, "found none"),
        (POSES, [Pose(64, 64)] * 2, "shows nobody in any of its 2 frames"),
        (POSES, POSES[:1], "source pose has 2 frames"),
    ],
)
def test_retarget_says_what_lacks(
    graph: Graph, source: list[Pose], target: list[Pose], sentence: str
) -> None:
    links = {
        "source_pose": graph.paste(write_keypoints(source)),
        "target_pose": graph.paste(write_keypoints(target)),
    }
    node = graph.add("PoseTransferRetargetPose", **links, **RETARGET)
    graph.keep(graph.draw(node))
    assert sentence in graph.error()


def test_draw_leaves_doubtful_points_out(graph: Graph) -> None:
    body = POSES[0].people[0].body.copy()
    body[4:8, 2] = 0.2
    doubtful = write_keypoints([Pose(192, 256, (Person(body),))])
    body[4:8] = 0
    link = graph.paste(doubtful)
    (picture,) = graph.pictures(graph.draw(link, min_confidence=0.3))
    expected = draw(Pose(192, 256, (Person(body),)), 256, 192, "openpose")
    assert np.array_equal(picture, expected)
