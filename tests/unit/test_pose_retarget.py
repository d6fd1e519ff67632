# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_transfer.errors import PoseError
from pose_transfer.pose import BODY_NAMES, HANDS, LIMBS, POSITIONS, SCALES, retarget
from pose_transfer.pose.skeleton import HAND_LIMBS
from pose_transfer.types import PART_POINTS, Person, Pose

WIDTH, HEIGHT = 400, 600
SHORT = settings(max_examples=60, deadline=None)


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


options = st.fixed_dictionaries(
    {
        "scale": st.sampled_from(SCALES),
        "position": st.sampled_from(POSITIONS),
        "ground": st.sampled_from([None, "target", 550.0]),
        "hands": st.sampled_from(HANDS),
    }
)


@st.composite
def whole_poses(draw: Any) -> Pose:
    """A person with all parts, of whom any points may be missing."""
    seed = draw(st.integers(0, 2**32 - 1))
    share = draw(st.sampled_from([0.0, 0.1, 0.4]))
    rng = np.random.default_rng(seed)
    parts = {}
    for part, count in PART_POINTS.items():
        points = rng.uniform((20, 20, 0.2), (WIDTH - 20, HEIGHT - 20, 1), (count, 3))
        points[rng.random(count) < share] = 0
        parts[part] = points
    parts["body"][1] = (200, 150, 1)  # whoever lacks everything is nobody
    return Pose(WIDTH, HEIGHT, (Person(**parts),))


def both_shown(pose: Pose, limbs: tuple[tuple[int, int], ...], part: str = "body") -> np.ndarray:
    points = getattr(pose.people[0], part)
    return np.array([min(points[a, 2], points[b, 2]) > 0 for a, b in limbs])


def mirror_side(name: str) -> str:
    return _other_side(name) if name.startswith(("left", "right")) else name


@SHORT
@given(whole_poses(), whole_poses(), options)
def test_angles_are_kept_exactly_whatever_is_missing(source, target, chosen):
    result = retarget(source, target, **chosen)
    shown = both_shown(target, LIMBS)
    before, after = bones(target)[shown], bones(result)[shown]
    assert np.array_equal(both_shown(result, LIMBS), shown)
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    sizes = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    assert np.allclose(cross / sizes, 0, atol=1e-4)
    assert ((before * after).sum(axis=1) > 0).all()


@SHORT
@given(whole_poses(), whole_poses(), options)
def test_bone_ratios_are_the_source_s_exactly_whatever_is_missing(source, target, chosen):
    result = retarget(source, target, **chosen)
    shown = both_shown(target, LIMBS) & both_shown(source, LIMBS)
    if shown.any():
        ratios = lengths(result)[shown] / lengths(source)[shown]
        # Places are float32: half a ten-thousandth of a px at most, on bones of a few px or more.
        assert np.allclose(ratios, np.median(ratios), rtol=1e-4, atol=3e-4 / lengths(source)[shown])


@SHORT
@given(whole_poses(), whole_poses(), options)
def test_retarget_commutes_with_mirroring(source, target, chosen):
    swap = [BODY_NAMES.index(mirror_side(name)) for name in BODY_NAMES]

    def mirror(pose: Pose) -> Pose:
        (person,) = pose.people
        parts = {part: getattr(person, part) for part in PART_POINTS}
        parts = {mirror_side(part): points for part, points in parts.items()}
        parts["body"] = parts["body"][swap]
        parts["feet"] = np.roll(parts["feet"], 3, axis=0)
        flipped = {}
        for part, points in parts.items():
            if points is not None:
                flipped[part] = np.where(points[:, 2:] > 0, points * (-1, 1, 1) + (WIDTH, 0, 0), 0)
        return replace(pose, people=(Person(**flipped),))

    once = mirror(retarget(source, target, **chosen)).people[0]
    other = retarget(mirror(source), mirror(target), **chosen).people[0]
    for part in PART_POINTS:
        a, b = getattr(once, part), getattr(other, part)
        assert (a is None) == (b is None)
        assert a is None or np.allclose(a, b, atol=2e-2), part


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


def standing(x: float, neck: float, size: float, height: int = HEIGHT) -> Pose:
    """Somebody upright on a canvas; the torso is `size` px, a leg twice that."""
    body = np.zeros((18, 3), dtype=np.float32)
    shoulder, hip = 0.5 * size, 0.3 * size
    for side, sign in (("right", -1), ("left", 1)):
        column = {"shoulder": (shoulder, 0), "elbow": (shoulder, 0.6), "wrist": (shoulder, 1.1)}
        column |= {"hip": (hip, 1), "knee": (hip, 2), "ankle": (hip, 3)}
        for name, (across, down) in column.items():
            i = BODY_NAMES.index(f"{side}_{name}")
            body[i] = (x + sign * across, neck + down * size, 1)
    body[BODY_NAMES.index("neck")] = (x, neck, 1)
    body[BODY_NAMES.index("nose")] = (x, neck - 0.4 * size, 1)
    return Pose(WIDTH, height, (Person(body),))


def neck_of(pose: Pose) -> np.ndarray:
    return pose.people[0].body[BODY_NAMES.index("neck"), :2]


def feet_of(pose: Pose) -> float:
    ankles = [BODY_NAMES.index(f"{side}_ankle") for side in ("left", "right")]
    return pose.people[0].body[ankles, 1].max()


def test_scale_source_is_the_source_person_s_size_relative_to_the_canvas():
    source, target = standing(100, 100, 60, height=300), standing(200, 150, 100)
    result = retarget(source, target, scale="source")
    shown = both_shown(target, LIMBS)
    expected = lengths(source)[shown] * HEIGHT / 300
    assert np.allclose(lengths(result)[shown], expected, rtol=1e-5)
    assert np.allclose(neck_of(result), neck_of(target))


def test_position_source_puts_the_neck_where_the_source_has_it():
    source, target = standing(100, 100, 60, height=300), standing(200, 150, 100)
    result = retarget(source, target, position="source")
    assert np.allclose(neck_of(result), (100, 200))
    assert np.allclose(lengths(result)[:2].sum(), lengths(target)[:2].sum(), rtol=1e-5)


def test_position_source_without_a_neck_goes_by_the_next_joint():
    source, target = standing(100, 100, 60), standing(200, 150, 100)
    headless = source.people[0].body.copy()
    headless[BODY_NAMES.index("neck")] = 0
    result = retarget(as_pose(headless), target, position="source")
    shoulder = BODY_NAMES.index("right_shoulder")
    assert np.allclose(result.people[0].body[shoulder], headless[shoulder])


def test_feet_come_to_the_ground():
    source, target = standing(100, 100, 60), standing(200, 150, 100)
    long_legs = source.people[0].body.copy()
    for side in ("right", "left"):
        long_legs[BODY_NAMES.index(f"{side}_ankle"), 1] += 40
    source = as_pose(long_legs)
    assert feet_of(retarget(source, target)) > feet_of(target) + 20
    assert np.isclose(feet_of(retarget(source, target, ground="target")), feet_of(target))
    assert np.isclose(feet_of(retarget(source, target, ground=590.0)), 590)
    free, grounded = retarget(source, target), retarget(source, target, ground=590.0)
    shown = both_shown(target, LIMBS)
    assert np.allclose(bones(free)[shown], bones(grounded)[shown], atol=1e-3)


def test_toes_touch_the_ground_before_ankles_do():
    target = standing(200, 150, 100)
    feet = np.zeros((6, 3))
    feet[0] = (230, feet_of(target) + 25, 1)
    target = as_pose(target.people[0].body, feet=feet)
    result = retarget(standing(100, 100, 60), target, ground=500.0)
    assert result.people[0].feet is not None
    assert np.isclose(result.people[0].feet[0, 1], 500)


def test_nobody_is_moved_to_the_ground_whose_feet_are_not_seen():
    target_body = standing(200, 150, 100).people[0].body.copy()
    for name in ("right_ankle", "left_ankle"):
        target_body[BODY_NAMES.index(name)] = 0
    target = as_pose(target_body)
    source = standing(100, 100, 60)
    assert retarget(source, target, ground=590.0) == retarget(source, target)


def hand_at(wrist: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hand = np.ones((21, 3))
    hand[:, :2] = wrist[:2] + rng.uniform(-30, 30, (21, 2))
    hand[0, :2] = wrist[:2]
    return hand


def hand_bones(person: Person) -> np.ndarray:
    hand = person.left_hand
    assert hand is not None
    return np.array([hand[child, :2] - hand[parent, :2] for parent, child in HAND_LIMBS])


def test_hands_are_left_out_or_get_the_source_s_finger_lengths():
    source_body, target_body = random_body(20), random_body(21)
    wrist = BODY_NAMES.index("left_wrist")
    # The source shows its right hand only, which measures the left one as well.
    source = as_pose(source_body, right_hand=hand_at(source_body[4], 1))
    target = as_pose(target_body, left_hand=hand_at(target_body[wrist], 2))
    result = retarget(source, target, hands="retarget").people[0]
    assert result.left_hand is not None
    assert np.allclose(result.left_hand[0, :2], result.body[wrist, :2], atol=1e-3)
    measured = hand_bones(Person(source_body, left_hand=source.people[0].right_hand))
    ratios = np.linalg.norm(hand_bones(result), axis=1) / np.linalg.norm(measured, axis=1)
    assert np.allclose(ratios, ratios[0], rtol=1e-3)
    body_ratio = lengths(retarget(source, target))[0] / lengths(source)[0]
    assert np.isclose(ratios[0], body_ratio, rtol=1e-3)
    before, after = hand_bones(target.people[0]), hand_bones(result)
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    sizes = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    assert np.allclose(cross / sizes, 0, atol=1e-3)

    assert retarget(source, target, hands="leave out").people[0].left_hand is None
    untouched = as_pose(source_body)
    assert retarget(untouched, target, hands="retarget") == retarget(untouched, target)
