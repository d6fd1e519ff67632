# SPDX-License-Identifier: GPL-3.0-or-later
"""What other programs write, written here as they do, is read back as it was meant."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pose_transfer.errors import PoseError
from pose_transfer.pose import BODY_NAMES, read_keypoints, write_keypoints
from pose_transfer.types import PART_POINTS, Person, Pose

WIDTH, HEIGHT = 640, 480
COCO_17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
MEDIAPIPE = {
    "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8,
    "left_shoulder": 11, "right_shoulder": 12, "left_elbow": 13, "right_elbow": 14,
    "left_wrist": 15, "right_wrist": 16, "left_hip": 23, "right_hip": 24, "left_knee": 25,
    "right_knee": 26, "left_ankle": 27, "right_ankle": 28,
}  # fmt: skip
NECK = BODY_NAMES.index("neck")
SHOULDERS = [BODY_NAMES.index("left_shoulder"), BODY_NAMES.index("right_shoulder")]

SHORT = settings(max_examples=40, deadline=None)


def arrays(count: int, width: int = WIDTH, height: int = HEIGHT) -> st.SearchStrategy[np.ndarray]:
    """(count, 3) points in px: on and off the canvas, whole, fractional, at its edges, absent."""

    def make(seed: int, absent: set[int], rounded: bool) -> np.ndarray:
        rng = np.random.default_rng(seed)
        points = rng.uniform((-60, -60, 0.1), (width + 60, height + 60, 1), (count, 3))
        if rounded:
            points[:, :2] = points[:, :2].round()
            # A point at exactly (-1, -1) is absent in every dialect.
            points[:, :2][points[:, :2] == -1] = 0
        points[rng.random(count) < 0.2, 0] = rng.choice([0, width, 0.5])
        points[list(absent)] = 0
        return points.astype(np.float32)

    seeds = st.integers(0, 2**32 - 1)
    everything, nothing = st.just(set(range(count))), st.just(set())
    some = st.sets(st.integers(0, count - 1), max_size=6)
    return st.builds(make, seeds, some | nothing | everything, st.booleans())


@st.composite
def people(draw: Any) -> Person:
    """A person with any parts; a hand that is seen begins at its wrist."""
    body = draw(arrays(18))
    parts = {
        part: draw(st.none() | arrays(count))
        for part, count in PART_POINTS.items()
        if part != "body"
    }
    for side in ("left", "right"):
        hand = parts[f"{side}_hand"]
        if hand is not None:
            hand[0] = body[BODY_NAMES.index(f"{side}_wrist")]
    parts = {part: points for part, points in parts.items() if points is not None and points.any()}
    assume(body.any() or parts)
    return Person(body, **parts)


def in_pixels(pose: Pose) -> bool:
    """Whether any coordinate is too large for a fraction of the canvas."""
    parts = [getattr(person, part) for person in pose.people for part in PART_POINTS]
    return any(points is not None and np.abs(points[:, :2]).max() > 2 for points in parts)


poses = st.builds(
    Pose,
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.lists(people(), max_size=2).map(tuple),
).filter(lambda pose: not pose.people or in_pixels(pose))


@SHORT
@given(st.lists(poses, min_size=1, max_size=3))
def test_what_is_written_is_read_back_exactly(frames: list[Pose]):
    written = write_keypoints(frames)
    assert read_keypoints(written) == frames
    assert read_keypoints(json.dumps(written)) == frames
    assert write_keypoints(read_keypoints(written)) == written


@SHORT
@given(poses)
def test_a_single_frame_and_bytes_are_read_back_exactly(pose: Pose):
    (frame,) = write_keypoints([pose])
    assert read_keypoints(frame) == [pose]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert read_keypoints(json.dumps(frame).encode(encoding)) == [pose]


def as_controlnet_aux_reads(frame: dict[str, Any]) -> list[dict[str, Any]]:
    """comfyui_controlnet_aux 1.0: points of a confidence below 1 are dropped, empty parts None."""
    assert type(frame["canvas_width"]) is int and type(frame["canvas_height"]) is int

    def read(numbers: list[float] | None) -> list[tuple[float, float] | None] | None:
        if not numbers:
            return None
        assert len(numbers) % 3 == 0
        rows = zip(*[iter(numbers)] * 3, strict=True)
        return [None if c < 1.0 else (x, y) for x, y, c in rows]

    keys = ("pose", "hand_left", "hand_right", "face")
    return [
        {key: read(person.get(f"{key}_keypoints_2d")) for key in keys} for person in frame["people"]
    ]


@SHORT
@given(poses)
def test_binary_confidence_keeps_every_point_for_controlnet_aux(pose: Pose):
    (frame,) = write_keypoints([pose], binary_confidence=True)
    for person, read in zip(pose.people, as_controlnet_aux_reads(frame), strict=True):
        assert len(read["pose"]) == 18 and len(read["face"]) == 70
        seen = [point is not None for point in read["pose"]]
        assert seen == (person.body[:, 2] > 0).tolist()


def body_with_neck(body: np.ndarray) -> np.ndarray:
    """The body as it comes out of a set of points that has no neck."""
    expected = body.copy()
    shoulders = body[SHOULDERS].astype(np.float64)
    seen = (shoulders[:, 2] > 0).all()
    expected[NECK] = (*shoulders[:, :2].mean(axis=0), shoulders[:, 2].min()) if seen else 0
    return expected


def without_neck(body: np.ndarray) -> np.ndarray:
    return np.stack([body[BODY_NAMES.index(name)] for name in COCO_17])


def only(poses: list[Pose]) -> Person:
    (pose,) = poses
    assert (pose.width, pose.height) == (WIDTH, HEIGHT)
    (person,) = pose.people
    return person


def assert_is(person: Person, body: np.ndarray, **parts: np.ndarray | None) -> None:
    assert np.allclose(person.body, body, atol=1e-3)
    for part in PART_POINTS:
        if part == "body":
            continue
        expected, found = parts.get(part), getattr(person, part)
        if expected is None or not expected.any():
            assert found is None, part
        else:
            assert np.allclose(found, expected, atol=1e-3), part


visible_bodies = arrays(18).filter(lambda body: np.abs(without_neck(body)[:, :2]).max() > 2)


@SHORT
@given(visible_bodies)
def test_openpose_files_with_25_points(body: np.ndarray):
    rows = np.zeros((25, 3), dtype=np.float32)
    order = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    rows[order] = body
    rows[8] = (1, 2, 1)  # the hip centre, which we do not have
    rows[19:] = np.arange(18).reshape(6, 3) + 1
    text = json.dumps(
        {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": flat(rows)}]}
    )
    person = only(read_keypoints(text, canvas=(WIDTH, HEIGHT)))
    feet = np.minimum(rows[19:], [np.inf, np.inf, 1])
    assert_is(person, body, feet=feet)


@SHORT
@given(visible_bodies)
def test_coco_17_annotations(body: np.ndarray):
    rows = without_neck(body)
    rows[:, 2] = np.ceil(rows[:, 2]) * 2
    data = {
        "images": [{"id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 1, "keypoints": flat(rows)}],
    }
    body[:, 2] = np.ceil(body[:, 2])
    assert_is(only(read_keypoints(data)), body_with_neck(body))


@SHORT
@given(visible_bodies, arrays(6), arrays(68), arrays(21), arrays(21))
def test_coco_wholebody_in_all_its_forms(
    body: np.ndarray, feet: np.ndarray, face: np.ndarray, left: np.ndarray, right: np.ndarray
):
    left[0], right[0] = (body[BODY_NAMES.index(f"{side}_wrist")] for side in ("left", "right"))
    rows = without_neck(body)
    annotation = {
        "image_id": 5,
        "keypoints": flat(rows),
        "foot_kpts": flat(feet),
        "face_kpts": flat(face),
        "lefthand_kpts": flat(left),
        "righthand_kpts": flat(right),
        "face_valid": True,
    }
    complete_face = np.concatenate([face, np.zeros((2, 3))])
    parts = {"feet": feet, "left_hand": left, "right_hand": right}
    images = [{"id": 5, "width": WIDTH, "height": HEIGHT}]
    separate = only(read_keypoints({"images": images, "annotations": [annotation]}))
    assert_is(separate, body_with_neck(body), face=complete_face, **parts)

    whole = np.concatenate([rows, feet, face, left, right])
    eyes = body[[BODY_NAMES.index("right_eye"), BODY_NAMES.index("left_eye")]]
    face_with_eyes = np.concatenate([face, eyes]) if face.any() else complete_face
    canvas = {"canvas_width": WIDTH, "canvas_height": HEIGHT}
    for form in (
        {**canvas, "people": [{"keypoints": flat(whole)}]},
        {**canvas, "people": [{"pose_keypoints_2d": whole.tolist()}]},
        {**canvas, "keypoints": [whole.tolist()]},
    ):
        assert_is(only(read_keypoints(form)), body_with_neck(body), face=face_with_eyes, **parts)
    for bare in (whole, whole.tolist(), flat(whole), whole[None], json.dumps(flat(whole))):
        person = only(read_keypoints(bare, canvas=(WIDTH, HEIGHT)))
        assert_is(person, body_with_neck(body), face=face_with_eyes, **parts)


@SHORT
@given(visible_bodies)
def test_mmpose_results_have_their_scores_apart(body: np.ndarray):
    rows = without_neck(body)
    instance = {
        "keypoints": rows[:, :2].tolist(),
        "keypoint_scores": rows[:, 2].tolist(),
        "bbox": [[0, 0, 10, 10]],
    }
    forms = (
        [instance],
        [[instance]],
        {"meta_info": {}, "instance_info": [instance]},
        {"instance_info": [{"frame_id": 1, "instances": [instance]}]},
    )
    for form in forms:
        person = only(read_keypoints(form, canvas=(WIDTH, HEIGHT)))
        assert_is(person, body_with_neck(body))


def landmarks(body: np.ndarray) -> list[dict[str, float]]:
    """MediaPipe's 33 landmarks: fractions of the picture, hidden points too, guessed far below."""
    found = [{"x": 0.5, "y": 0.5, "z": -0.1, "visibility": 0.9} for _ in range(33)]
    for name, i in MEDIAPIPE.items():
        x, y, confidence = body[BODY_NAMES.index(name)].tolist()
        found[i] = {"x": x / WIDTH, "y": y / HEIGHT, "z": 0.1, "visibility": confidence}
    for i in (29, 30, 31, 32):
        found[i] = {"x": 0.5, "y": 3.4, "z": 0.0, "visibility": 0.0}
    return found


@SHORT
@given(arrays(18))
def test_mediapipe_landmarks_in_all_their_forms(body: np.ndarray):
    body[BODY_NAMES.index("left_ankle")] = (300, 3.2 * HEIGHT, 0.25)
    marks = landmarks(body)
    flat_marks = [mark[key] for mark in marks for key in ("x", "y", "z", "visibility")]
    with_presence = [[*mark.values(), 0.99] for mark in marks]
    forms = (
        marks,
        [marks],
        {"poseLandmarks": marks, "poseWorldLandmarks": marks[:3]},
        {"landmarks": [marks], "worldLandmarks": []},
        {"pose_landmarks": {"landmark": marks}},
        {"pose_landmarks": [marks], "image_width": WIDTH, "image_height": HEIGHT},
        {"landmark": marks},
        flat_marks,
        np.array(flat_marks).reshape(33, 4),
        with_presence,
        [with_presence],
        json.dumps(flat_marks),
    )
    for form in forms:
        person = only(read_keypoints(form, canvas=(WIDTH, HEIGHT)))
        assert_is(person, body_with_neck(body))


def test_mediapipe_feet_and_hands_are_ours():
    marks = landmarks(np.full((18, 3), (300, 200, 1.0)))
    at = {29: (0.3, 0.9), 31: (0.35, 0.95), 30: (0.6, 0.9), 32: (0.65, 0.95)}
    for i, (x, y) in at.items():
        marks[i] = {"x": x, "y": y, "visibility": 0.5}
    hand = [{"x": 0.4 + i / 100, "y": 0.5, "visibility": 0.0} for i in range(21)]
    result = {"poseLandmarks": marks, "leftHandLandmarks": hand, "rightHandLandmarks": None}
    person = only(read_keypoints(result, canvas=(WIDTH, HEIGHT)))
    assert person.feet is not None and person.left_hand is not None and person.right_hand is None
    assert np.allclose(person.feet[0], (0.35 * WIDTH, 0.95 * HEIGHT, 0.5))  # left big toe
    assert np.allclose(person.feet[2], (0.3 * WIDTH, 0.9 * HEIGHT, 0.5))  # left heel
    assert np.allclose(person.feet[5], (0.6 * WIDTH, 0.9 * HEIGHT, 0.5))  # right heel
    assert not person.feet[[1, 4]].any()  # no small toes
    assert np.allclose(person.left_hand[20], (0.6 * WIDTH, 0.5 * HEIGHT, 1))


def test_mediapipe_without_visibility_is_x_y_z():
    marks = landmarks(np.full((18, 3), (320, 120, 1.0)))
    plain = [[mark["x"], mark["y"], mark["z"]] for mark in marks]
    for form in (plain, np.array(plain).ravel()):
        person = only(read_keypoints(form, canvas=(WIDTH, HEIGHT)))
        assert np.allclose(person.body, (320, 120, 1))


def test_mediapipe_people_and_frames():
    marks = landmarks(np.full((18, 3), (320, 120, 1.0)))
    (two,) = read_keypoints({"landmarks": [marks, marks]}, canvas=(WIDTH, HEIGHT))
    assert len(two.people) == 2
    (nobody,) = read_keypoints({"landmarks": []}, canvas=(WIDTH, HEIGHT))
    assert nobody.people == ()
    video = [{"poseLandmarks": marks}, {"poseLandmarks": None}]
    assert [len(p.people) for p in read_keypoints(video, canvas=(WIDTH, HEIGHT))] == [1, 0]


def test_tensorflow_js_keypoints_are_objects_in_pixels():
    found = [
        {"x": 10.0 * i + 5, "y": 7.0 * i, "score": 0.5, "name": n} for i, n in enumerate(COCO_17)
    ]
    person = only(read_keypoints([{"score": 0.9, "keypoints": found}], canvas=(WIDTH, HEIGHT)))
    assert np.allclose(person.body[BODY_NAMES.index("right_ankle")], (165, 112, 0.5))


inside = arrays(18).map(lambda body: np.abs(body)).filter(lambda body: body.any())


@SHORT
@given(inside)
def test_controlnet_aux_in_fractions_with_parts_that_are_none(body: np.ndarray):
    rows = body / [WIDTH, HEIGHT, 1]
    rows[:, 2] = np.ceil(rows[:, 2])
    hand = np.full((21, 3), (-1 / WIDTH, -1 / HEIGHT, 1.0))  # its way to say that there is none
    frame = {
        "people": [
            {
                "pose_keypoints_2d": flat(rows),
                "face_keypoints_2d": None,
                "hand_left_keypoints_2d": flat(hand),
                "hand_right_keypoints_2d": None,
            }
        ],
        "canvas_height": HEIGHT,
        "canvas_width": WIDTH,
    }
    body[:, 2] = np.ceil(body[:, 2])
    for form in ([frame], frame, json.dumps(frame), json.dumps([frame])):
        assert_is(only(read_keypoints(form)), body)


@SHORT
@given(visible_bodies)
def test_an_editor_s_object_of_rows(body: np.ndarray):
    everywhere = body[:, 2] > 0
    rows = np.where(everywhere[:, None], body[:, :2], 0)
    editor = {"width": WIDTH, "height": HEIGHT, "keypoints": [rows.tolist(), rows.tolist()]}
    (pose,) = read_keypoints(json.dumps(editor))
    assert (pose.width, pose.height, len(pose.people)) in ((WIDTH, HEIGHT, 2), (WIDTH, HEIGHT, 0))
    for person in pose.people:
        expected = np.concatenate([rows, rows.any(axis=1, keepdims=True)], axis=1)
        assert_is(person, expected)


def test_people_without_a_frame_are_one_frame():
    body = np.full((18, 3), (30, 40, 1.0))
    persons = [{"pose_keypoints_2d": flat(body)}, {"pose_keypoints_2d": flat(body)}]
    (pose,) = read_keypoints(persons, canvas=(WIDTH, HEIGHT))
    assert len(pose.people) == 2


def test_hands_of_the_host_s_sdpose_go_to_their_own_wrists():
    body = np.full((18, 3), (300, 100, 1.0))
    left, right = BODY_NAMES.index("left_wrist"), BODY_NAMES.index("right_wrist")
    body[left, :2], body[right, :2] = (400, 200), (200, 200)
    at_left, at_right = np.full((21, 3), (403, 204, 0.8)), np.full((21, 3), (198, 205, 0.7))
    person = {
        "pose_keypoints_2d": flat(body),
        "hand_left_keypoints_2d": flat(at_right),
        "hand_right_keypoints_2d": flat(at_left),
    }
    frame = {"canvas_width": WIDTH, "canvas_height": HEIGHT, "people": [person]}
    assert_is(only(read_keypoints(frame)), body, left_hand=at_left, right_hand=at_right)
    del person["hand_right_keypoints_2d"]
    assert_is(only(read_keypoints(frame)), body, right_hand=at_right)


def test_points_below_the_wanted_confidence_are_absent():
    body = np.full((18, 3), (300, 100, 0.9))
    body[4, 2], body[5, 2] = 0.29, 0.3
    (frame,) = write_keypoints([Pose(WIDTH, HEIGHT, (Person(body),))])
    kept = only(read_keypoints(frame, min_confidence=0.3))
    assert [i for i in range(18) if not kept.body[i].any()] == [4]
    (pose,) = read_keypoints(frame, min_confidence=0.95)
    assert pose.people == ()


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        ({"keypoints": [[1, 2]] * 17, "keypoint_scores": [1] * 16}, "Got 16 scores for the 17"),
        ({"landmarks": [{"x": 0.1, "y": 0.2}] * 32}, "Got 32 points"),
        ({"landmarks": "many"}, "MediaPipe's landmarks"),
        ({"poseLandmarks": [{"x": 0.1, "y": 0.2}] * 33}, "Give the canvas"),
        ({"instance_info": 3}, "MMPose"),
        ({"version": "ap10k", "animals": []}, "the keys 'version', 'animals'"),
        ([[1.0, 2.0]] * 19, "Got 1.0 as a pose"),
        ({"people": [{"pose_keypoints_2d": [[1, 2, 3, 4, 5, 6]] * 18}]}, "Got 36 points"),
    ],
)
def test_broken_dialects_are_refused_with_a_sentence(obj: Any, text: str):
    with pytest.raises(PoseError, match=text):
        read_keypoints(obj)


def flat(rows: np.ndarray) -> list[float]:
    return rows.ravel().tolist()
