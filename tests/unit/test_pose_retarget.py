# SPDX-License-Identifier: GPL-3.0-or-later
import numpy as np
import pytest

from pose_transfer.errors import PoseError
from pose_transfer.pose import BODY_NAMES, LIMBS, retarget
from pose_transfer.types import Person, Pose

WIDTH, HEIGHT = 400, 600


def random_body(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    body = np.ones((18, 3))
    body[:, :2] = rng.uniform(20, 380, (18, 2))
    return body


def as_pose(body: np.ndarray, **parts: np.ndarray) -> Pose:
    return Pose(WIDTH, HEIGHT, (Person(body, **parts),))


def bones(pose: Pose) -> np.ndarray:
    body = pose.people[0].body.astype(float)
    return np.array([body[child, :2] - body[parent, :2] for parent, child in LIMBS])


def lengths(pose: Pose) -> np.ndarray:
    return np.linalg.norm(bones(pose), axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_retarget_keeps_angles_and_bone_ratios(seed):
    source, target = as_pose(random_body(seed)), as_pose(random_body(seed + 100))
    result = retarget(source, target)
    directions = bones(target) / lengths(target)[:, None]
    assert np.allclose(bones(result) / lengths(result)[:, None], directions, atol=1e-4)
    ratios = lengths(result) / lengths(source)
    assert np.allclose(ratios, ratios[0], rtol=1e-4)


def test_retarget_keeps_canvas_neck_and_torso_size_of_the_target():
    source, target = as_pose(random_body(1)), as_pose(random_body(2))
    result = retarget(source, target)
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    assert np.array_equal(result.people[0].body[1], target.people[0].body[1])
    torso = [LIMBS.index((1, 8)), LIMBS.index((1, 11))]
    assert np.isclose(lengths(result)[torso].sum(), lengths(target)[torso].sum(), rtol=1e-4)


def test_retarget_to_oneself_changes_nothing():
    pose = as_pose(random_body(3))
    assert np.allclose(retarget(pose, pose).people[0].body, pose.people[0].body, atol=1e-3)


def test_retarget_commutes_with_mirroring():
    swap = [BODY_NAMES.index(_other_side(name)) for name in BODY_NAMES]

    def mirror(pose: Pose) -> Pose:
        body = pose.people[0].body[swap].copy()
        body[:, 0] = np.where(body[:, 2] > 0, WIDTH - body[:, 0], 0)
        return as_pose(body)

    source_body, target_body = random_body(4), random_body(5)
    source_body[3] = 0
    target_body[9] = 0
    source, target = as_pose(source_body), as_pose(target_body)
    once = mirror(retarget(source, target)).people[0].body
    other = retarget(mirror(source), mirror(target)).people[0].body
    assert np.allclose(once, other, atol=1e-3)


def _other_side(name: str) -> str:
    if name.startswith("right"):
        return name.replace("right", "left")
    return name.replace("left", "right")


def test_missing_source_bone_is_measured_on_the_other_side():
    source_body = random_body(6)
    source_body[4] = 0  # right wrist
    source, target = as_pose(source_body), as_pose(random_body(7))
    result = retarget(source, target)
    right, left = LIMBS.index((3, 4)), LIMBS.index((6, 7))
    assert np.isclose(lengths(result)[right], lengths(result)[left], rtol=1e-4)


def test_points_absent_in_the_target_stay_absent_and_break_no_chain():
    target_body = random_body(8)
    target_body[3] = 0  # right elbow, its wrist is seen
    target = as_pose(target_body)
    result = retarget(as_pose(random_body(9)), target).people[0].body
    assert not result[3].any()
    moved = result[2, :2] - target_body[2, :2]
    assert np.allclose(result[4, :2] - target_body[4, :2], moved, atol=1e-3)


def test_target_without_neck_keeps_its_roots_in_place():
    target_body = random_body(10)
    target_body[1] = 0
    result = retarget(as_pose(random_body(11)), as_pose(target_body)).people[0].body
    for root in ("nose", "right_shoulder", "left_hip"):
        point = BODY_NAMES.index(root)
        assert np.array_equal(result[point], target_body[point].astype(np.float32))


def test_hands_face_and_feet_follow_their_joints():
    target_body = random_body(12)
    hand = np.ones((21, 3)) * (*target_body[7, :2], 1)
    hand[5] = 0
    face = np.ones((70, 3)) * (*target_body[0, :2], 1)
    feet = np.ones((6, 3)) * (*target_body[13, :2], 1)
    feet[3:, :2] = target_body[10, :2]
    target = as_pose(target_body, left_hand=hand, face=face, feet=feet)
    person = retarget(as_pose(random_body(13)), target).people[0]
    assert person.left_hand is not None and person.face is not None and person.feet is not None
    assert person.right_hand is None
    assert np.allclose(person.left_hand[0], person.body[7], atol=1e-3)
    assert not person.left_hand[5].any()
    assert np.allclose(person.face[68], person.body[0], atol=1e-3)
    assert np.allclose(person.feet[0], person.body[13], atol=1e-3)
    assert np.allclose(person.feet[5], person.body[10], atol=1e-3)


def test_further_people_and_the_inputs_stay_as_they_are():
    first, second = Person(random_body(14)), Person(random_body(15))
    target = Pose(WIDTH, HEIGHT, (first, second))
    before = first.body.copy()
    result = retarget(as_pose(random_body(16)), target)
    assert result.people[1] is second
    assert np.array_equal(first.body, before)
    assert result.people[0] != first


def test_retarget_needs_a_person_on_both_sides():
    empty = Pose(WIDTH, HEIGHT)
    for source, target in ((empty, as_pose(random_body(0))), (as_pose(random_body(0)), empty)):
        with pytest.raises(PoseError, match="found none"):
            retarget(source, target)
