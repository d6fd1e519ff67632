# SPDX-License-Identifier: GPL-3.0-or-later
"""Which face is taken, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from pose_transfer.detectors import Face
from pose_transfer.detectors.face_choice import (
    NEAREST,
    ChosenFace,
    FaceOrder,
    as_embedding,
    choose_faces,
    describe_faces,
    face_keypoints,
    order_faces,
)
from pose_transfer.errors import NoFaceError, PoseError
from pose_transfer.pose.skeleton import BODY_NAMES
from pose_transfer.types import Box, Person, Pose


def face(x: float, y: float, size: float, number: float = 1.0) -> Face:
    """A square face around x, y whose nose is there and whose embedding is one number."""
    points = np.array([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]]) * size / 5 + (x, y)
    box = Box(x - size / 2, y - size / 2, size, size)
    return Face(box, points.astype(np.float32), np.full(512, number, np.float32))


SMALL_LEFT, LARGE_MIDDLE, MEDIUM_RIGHT = face(20, 50, 10), face(60, 40, 30), face(95, 52, 20)
FACES = [MEDIUM_RIGHT, SMALL_LEFT, LARGE_MIDDLE]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("largest", [LARGE_MIDDLE, MEDIUM_RIGHT, SMALL_LEFT]),
        ("left to right", [SMALL_LEFT, LARGE_MIDDLE, MEDIUM_RIGHT]),
    ],
)
def test_faces_are_ordered_whatever_the_encoder_s_order(
    order: FaceOrder, expected: list[Face]
) -> None:
    for faces in (FACES, FACES[::-1]):
        assert order_faces(faces, order) == expected


def test_the_index_counts_in_that_order() -> None:
    (one,) = choose_faces([FACES], "left to right", 2, "error")
    assert one == ChosenFace(MEDIUM_RIGHT, 3)


def test_the_face_at_the_keypoint_is_taken() -> None:
    chosen = choose_faces([FACES, FACES], NEAREST, 0, "error", [(22, 48), (92, 55)])
    assert [one.face for one in chosen] == [SMALL_LEFT, MEDIUM_RIGHT]


def test_of_faces_that_overlap_the_one_with_the_nearer_nose_is_taken() -> None:
    a, b = face(50, 50, 30), face(58, 50, 30)
    assert order_faces([a, b], NEAREST, (56, 50)) == [b, a]


def test_a_face_far_from_the_keypoint_is_somebody_else_s() -> None:
    (one,) = choose_faces([FACES], NEAREST, 0, "skip", [(60, 120)])
    assert one == ChosenFace(None, 3)


@pytest.mark.parametrize(
    ("faces", "order", "index", "keypoint", "sentence"),
    [
        ([], "largest", 0, None, "No face was found in picture 1 of the batch"),
        (FACES, "largest", 3, None, "3 faces found, so none at index 3, in picture 1"),
        (FACES, NEAREST, 2, None, "The pose shows no nose, eye or ear of a person at index 2"),
        (FACES[:1], NEAREST, 0, (5, 5), "1 face found, but none at the nose"),
    ],
)
def test_a_missing_face_is_an_error_that_says_what_to_do(
    faces: list[Face], order: FaceOrder, index: int, keypoint: object, sentence: str
) -> None:
    keypoints = [(60.0, 40.0), keypoint]
    plenty = [FACES[-1]] * 4
    with pytest.raises(NoFaceError) as caught:
        choose_faces([plenty, faces], order, index, "error", keypoints)
    assert sentence in str(caught.value)
    assert "set on_missing to 'skip'" in str(caught.value)


def test_after_an_error_no_further_picture_is_looked_at() -> None:
    looked = []

    def pictures():
        for number in range(3):
            looked.append(number)
            yield []

    with pytest.raises(NoFaceError):
        choose_faces(pictures(), "largest", 0, "error")
    assert looked == [0]


def test_an_embedding_is_raw_and_of_length_one_and_zeros_where_there_is_no_face() -> None:
    chosen = choose_faces([[face(10, 20, 8, 3.0)], []], "largest", 0, "skip")
    embedding = as_embedding(chosen, "insightface antelopev2")
    assert embedding.found.tolist() == [True, False]
    assert embedding.encoder == "insightface antelopev2"
    np.testing.assert_array_equal(embedding.raw[0], 3.0)
    np.testing.assert_allclose(embedding.normalised[0], 1 / np.sqrt(512), rtol=1e-6)
    assert embedding.boxes[0].tolist() == [6, 16, 8, 8]
    assert embedding.points[0, 2].tolist() == [10, 20]
    for part in (embedding.raw, embedding.normalised, embedding.boxes, embedding.points):
        assert not part[1].any()
        assert part.dtype == np.float32


def test_the_report_gathers_pictures_alike() -> None:
    one = ChosenFace(face(10, 20, 8), 1)
    chosen = [one, one, ChosenFace(one.face, 3), ChosenFace(None, 0), ChosenFace(None, 2)]
    assert describe_faces(chosen).splitlines() == [
        "pictures 0 to 1: face of 8x8 px",
        "picture 2: face of 8x8 px, 1 of 3",
        "picture 3: no face",
        "picture 4: 2 faces, none taken",
    ]


def person(**points: tuple[float, float]) -> Person:
    body = np.zeros((18, 3), np.float32)
    for name, (x, y) in points.items():
        body[BODY_NAMES.index(name)] = x, y, 0.9
    return Person(body)


def test_the_nose_tells_where_a_face_is_in_px_of_the_picture() -> None:
    pose = Pose(100, 200, (person(nose=(9, 9)), person(nose=(50, 40), left_eye=(0, 0))))
    assert face_keypoints([pose], 1, 2, height=400, width=300) == [(150, 80), (150, 80)]


def test_without_a_nose_eyes_and_ears_tell() -> None:
    pose = Pose(100, 100, (person(left_eye=(40, 20), left_ear=(50, 30), neck=(90, 90)),))
    assert face_keypoints([pose], 0, 1, 100, 100) == [(45, 25)]


def test_nobody_and_a_back_of_a_head_have_no_place() -> None:
    poses = [Pose(100, 100), Pose(100, 100, (person(neck=(5, 5)),))]
    assert face_keypoints(poses, 0, 2, 100, 100) == [None, None]


def test_a_pose_of_another_number_of_frames_is_refused() -> None:
    with pytest.raises(PoseError, match="2 frames and 3 pictures"):
        face_keypoints([Pose(10, 10)] * 2, 0, 3, 10, 10)
