# SPDX-License-Identifier: GPL-3.0-or-later
import copy
import json

import numpy as np
import pytest

from pose_transfer.errors import PoseError
from pose_transfer.pose import BODY_NAMES, read_keypoints, write_keypoints
from pose_transfer.types import Person, Pose

COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

RNG = np.random.default_rng(0)


def points(count: int, width: int = 640, height: int = 480) -> np.ndarray:
    rows = RNG.random((count, 3)) * [width, height, 1]
    rows[:, 2] = 0.2 + 0.7 * rows[:, 2]
    return rows.astype(np.float32)


def flat(rows: np.ndarray) -> list[float]:
    return rows.ravel().tolist()


def frame(**person: object) -> dict:
    return {"canvas_width": 640, "canvas_height": 480, "people": [person]}


def body_of(obj: object) -> np.ndarray:
    (pose,) = read_keypoints(obj)
    (person,) = pose.people
    return person.body


def part(points: np.ndarray | None) -> np.ndarray:
    assert points is not None
    return points


def whole_person() -> Person:
    body = points(18)
    body[5] = 0
    return Person(body, points(21), points(21), points(70), points(6))


def test_write_then_read_gives_the_same_poses():
    poses = [
        Pose(640, 480, (whole_person(), Person(points(18)))),
        Pose(100, 200, ()),
        Pose(640, 480, (Person(points(18), right_hand=points(21)),)),
    ]
    assert read_keypoints(write_keypoints(poses)) == poses
    assert read_keypoints(json.dumps(write_keypoints(poses))) == poses


def test_writer_fills_all_parts_with_zeros():
    (written,) = write_keypoints([Pose(64, 48, (Person(points(18)),))])
    assert (written["canvas_width"], written["canvas_height"]) == (64, 48)
    (person,) = written["people"]
    counts = {key: len(values) // 3 for key, values in person.items()}
    assert counts == {
        "pose_keypoints_2d": 18,
        "hand_left_keypoints_2d": 21,
        "hand_right_keypoints_2d": 21,
        "face_keypoints_2d": 70,
        "foot_keypoints_2d": 6,
    }
    assert not any(person["face_keypoints_2d"])
    assert all(type(value) is float for value in person["pose_keypoints_2d"])


def test_binary_confidence_is_one_where_present_and_zero_elsewhere():
    person = whole_person()
    (written,) = write_keypoints([Pose(640, 480, (person,))], binary_confidence=True)
    confidence = written["people"][0]["pose_keypoints_2d"][2::3]
    assert confidence == [0.0 if i == 5 else 1.0 for i in range(18)]
    assert person.body[0, 2] < 1  # the pose itself is untouched


def test_parts_that_are_none_empty_zero_or_left_out_are_none():
    body = points(18)
    (pose,) = read_keypoints(
        [
            frame(
                pose_keypoints_2d=flat(body),
                face_keypoints_2d=None,
                hand_left_keypoints_2d=[],
                hand_right_keypoints_2d=[0.0] * 63,
            )
        ]
    )
    assert pose == Pose(640, 480, (Person(body),))


def test_person_without_any_point_is_left_out():
    person = Person(points(18))
    written = write_keypoints(
        [Pose(640, 480, (Person(np.zeros((18, 3), dtype=np.float32)), person))]
    )
    assert len(written[0]["people"]) == 2
    assert read_keypoints(written) == [Pose(640, 480, (person,))]


def test_body_that_is_none_beside_a_hand_is_absent():
    hand = points(21)
    (pose,) = read_keypoints([frame(pose_keypoints_2d=None, hand_left_keypoints_2d=flat(hand))])
    assert not pose.people[0].body.any()
    assert np.array_equal(part(pose.people[0].left_hand), hand)


def test_fractions_of_the_canvas_become_pixels():
    body = points(18)
    fractions = body / np.array([640, 480, 1])
    hand = points(21)
    fractions[0, :2] = (1.05, -0.02)  # estimates leave the picture a little
    body[0, :2] = (1.05 * 640, -0.02 * 480)
    (pose,) = read_keypoints(
        [
            frame(
                pose_keypoints_2d=flat(fractions),
                hand_right_keypoints_2d=flat(hand / np.array([640, 480, 1])),
            )
        ]
    )
    assert np.allclose(pose.people[0].body, body, atol=1e-3)
    assert np.allclose(part(pose.people[0].right_hand), hand, atol=1e-3)


def test_frame_person_and_text_are_read_without_their_lists():
    body = points(18)
    single = frame(pose_keypoints_2d=flat(body))
    bare = {**single, "people": single["people"][0]}
    flattened = {"canvas_width": 640, "canvas_height": 480, "pose_keypoints_2d": flat(body)}
    nested = [[single]]
    for dialect in (single, bare, flattened, nested, json.dumps(single), [json.dumps([single])]):
        assert np.array_equal(body_of(dialect), body), dialect


def test_body_25_gives_body_and_feet():
    rows = points(25)
    (pose,) = read_keypoints([frame(pose_keypoints_2d=flat(rows))])
    (person,) = pose.people
    at = BODY_NAMES.index
    # BODY_25: 1 neck, 8 hip centre, 9 right hip, 14 left ankle, 18 left ear, 19 left big toe.
    assert np.array_equal(person.body[at("neck")], rows[1])
    assert np.array_equal(person.body[at("right_hip")], rows[9])
    assert np.array_equal(person.body[at("left_ankle")], rows[14])
    assert np.array_equal(person.body[at("left_ear")], rows[18])
    assert np.array_equal(part(person.feet), rows[19:])


def test_openpose_file_without_canvas_gets_equal_margins_or_the_given_one():
    rows = np.zeros((25, 3))
    rows[:3] = [(100, 20, 0.9), (300, 40, 0.9), (200, 440, 0.9)]
    text = json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": flat(rows)}]})
    (guessed,) = read_keypoints(text)
    assert (guessed.width, guessed.height) == (400, 460)
    (given,) = read_keypoints(text, canvas=(512, 512))
    assert (given.width, given.height) == (512, 512)


def test_frames_without_canvas_share_one():
    def openpose(x: float) -> dict:
        return {"people": [{"pose_keypoints_2d": [x, 50, 1] + [0] * 51}]}

    poses = read_keypoints([openpose(40), {"people": []}, openpose(90)])
    assert {(pose.width, pose.height) for pose in poses} == {(130, 100)}
    assert [len(pose.people) for pose in poses] == [1, 0, 1]


def test_coco_17_gets_a_neck_between_the_shoulders():
    rows = points(17)
    rows[:, 2] = 2  # COCO's visibility
    data = {
        "images": [{"id": 7, "width": 640, "height": 480}, {"id": 8, "width": 64, "height": 48}],
        "annotations": [{"image_id": 7, "keypoints": flat(rows)}],
    }
    first, second = read_keypoints(data)
    assert (second.width, second.people) == (64, ())
    body = first.people[0].body
    at = BODY_NAMES.index
    for i, name in enumerate(COCO_NAMES):
        assert np.array_equal(body[at(name), :2], rows[i, :2]), name
    assert np.allclose(body[at("neck"), :2], (rows[5, :2] + rows[6, :2]) / 2)
    assert (body[:, 2] == 1).all()


def test_coco_results_are_grouped_by_picture():
    results = [
        {"image_id": image, "score": 0.9, "keypoints": flat(points(17))} for image in (3, 4, 3)
    ]
    assert [len(pose.people) for pose in read_keypoints(results)] == [2, 1]


def test_coco_without_a_shoulder_has_no_neck():
    rows = points(17)
    rows[5] = 0
    body = body_of({**frame(), "people": [{"keypoints": flat(rows)}]})
    assert not body[BODY_NAMES.index("neck")].any()


def test_points_without_confidence_number_or_place_are_absent():
    rows = points(18).tolist()
    rows[0] = [10, 10, 0]
    rows[1] = [None, None, None]
    rows[2] = [float("nan"), 5, 1]
    rows[3] = [5, float("inf"), 1]
    rows[4] = [-1, -1, 1]
    rows[5] = [5, 5, -0.5]
    rows[6] = [1e9, 5, 1]
    body = body_of([frame(pose_keypoints_2d=flat(np.array(rows, dtype=float)))])
    assert not body[:7].any()
    assert (body[7:, 2] > 0).all()


def test_face_of_68_points_gets_absent_pupils():
    face = points(68)
    (pose,) = read_keypoints([frame(face_keypoints_2d=flat(face))])
    assert np.array_equal(part(pose.people[0].face), np.concatenate([face, np.zeros((2, 3))]))


def test_input_stays_as_it_was():
    rows = (points(18) / [640, 480, 1]).tolist()
    rows[2] = [-1, -1, 1]
    obj = [frame(pose_keypoints_2d=flat(np.array(rows, dtype=float)), face_keypoints_2d=None)]
    before = copy.deepcopy(obj)
    read_keypoints(obj)
    assert obj == before
    array = np.array(rows).ravel()
    kept = array.copy()
    read_keypoints([frame(pose_keypoints_2d=array)])
    assert np.array_equal(array, kept)


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        ([], "without any frame"),
        (None, "Got None"),
        (3.5, "Got 3.5"),
        ("{broken", "not JSON"),
        ({"width": 3}, "the keys 'width'"),
        ([[[[[[[]]]]]]], "nested"),
        (frame(pose_keypoints_2d=[1, 2, 1] * 19), "Got 19 points"),
        (frame(pose_keypoints_2d=[1, 2, 1, 4]), "Got 4 numbers"),
        (frame(pose_keypoints_2d="nose"), "'nose' as 'pose_keypoints_2d'"),
        (frame(hand_left_keypoints_2d=[1, 2, 1]), "left hand"),
        (frame(body=[1, 2, 3]), "a person with the keys 'body'"),
        ({**frame(), "people": 3}, "Got 3 as the 'people'"),
        ({**frame(), "canvas_width": 0}, "canvas"),
        ({**frame(), "canvas_height": None}, "canvas"),
        ({"people": []}, "Give the canvas"),
        ({"people": [{"pose_keypoints_2d": [0.5, 0.5, 1] * 18}]}, "Give the canvas"),
        ({"annotations": 3}, "COCO"),
    ],
)
def test_what_is_no_pose_is_refused_with_a_sentence(obj, text):
    with pytest.raises(PoseError, match=text):
        read_keypoints(obj)
