# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand SSIM and hand pose error, and where the keypoints come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy import ndimage

from pose_transfer.errors import PoseError
from pose_transfer.evaluation.hands import (
    MIDDLE_KNUCKLE,
    hand_patch,
    hand_pose_error,
    hand_ssim,
    hands_found,
)
from pose_transfer.evaluation.metrics import ssim_released
from pose_transfer.evaluation.pairing import FilePair
from pose_transfer.evaluation.posing import poses_of_detector, poses_of_files
from pose_transfer.pose import write_keypoints
from pose_transfer.types import Box, Person, Pose


def hand(x: float, y: float) -> np.ndarray:
    points = np.ones((21, 3), np.float32)
    points[:, 0] = x + np.arange(21) - MIDDLE_KNUCKLE
    points[:, 1] = y
    return points


def person(
    left: np.ndarray | None = None, right: np.ndarray | None = None, size: float = 50
) -> Person:
    body = np.zeros((18, 3), np.float32)
    body[0], body[1] = (10, 10, 1), (10 + size, 10 + size, 1)
    return Person(body, left, right)


def picture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (260, 210, 3))
    return ndimage.gaussian_filter(noise, (3, 3, 0)).round().astype(np.uint8)


def test_patch_surrounds_the_middle_knuckle_and_stays_in_the_picture() -> None:
    image = picture(0)
    patch = hand_patch(image, hand(100, 150))
    assert patch is not None and np.array_equal(patch, image[120:180, 70:130])
    corner = hand_patch(image, hand(205, 3))
    assert corner is not None and np.array_equal(corner, image[:60, 150:])
    assert hand_patch(image, hand(300, 3)) is None
    assert hand_patch(image[:50], hand(100, 20)) is None


def test_hand_ssim_looks_at_the_hands_only() -> None:
    truth = picture(0)
    both = person(hand(60, 60), hand(150, 200))
    wrong_elsewhere, wrong_hand = truth.copy(), truth.copy()
    wrong_elsewhere[100:160] = 0
    wrong_hand[30:90, 30:90] = picture(1)[30:90, 30:90]
    assert hand_ssim(wrong_elsewhere, truth, both) == pytest.approx(1)
    one = ssim_released(wrong_hand[30:90, 30:90], truth[30:90, 30:90])
    assert one < 0.5
    assert hand_ssim(wrong_hand, truth, both) == pytest.approx((one + 1) / 2)
    assert np.isnan(hand_ssim(truth, truth, person())) and np.isnan(hand_ssim(truth, truth, None))


def test_pose_error_is_the_mean_l1_distance_of_points_that_both_show() -> None:
    truth = person(hand(60, 60), hand(150, 200))
    moved = hand(63, 56)  # 3 and 4 px: 7
    assert hand_pose_error(person(moved, hand(150, 200)), truth) == pytest.approx(3.5)
    moved[:20, 2] = 0
    moved[20, :2] += 5
    assert hand_pose_error(person(moved), truth) == pytest.approx(8 + 1)
    assert hands_found(person(moved), truth) == 0.5
    assert np.isnan(hand_pose_error(None, truth)) and hands_found(None, truth) == 0
    assert np.isnan(hand_pose_error(truth, person())) and np.isnan(hands_found(truth, person()))


def pair(name: str) -> FilePair:
    return FilePair(name, Path(f"{name}.png"), Path(f"{name}.png"))


def test_keypoint_files_are_scaled_to_the_picture_and_the_largest_person_counts(
    tmp_path: Path,
) -> None:
    people = (person(hand(1, 2), size=5), person(hand(50, 30), size=60))
    (tmp_path / "sub").mkdir()
    pose = Pose(105, 130, people)
    (tmp_path / "sub" / "a.json").write_text(json.dumps(write_keypoints([pose])))
    found = poses_of_files(tmp_path, (pair("sub/a"),))(pair("sub/a"), picture(0))
    assert found is not None and found.left_hand is not None and found.right_hand is None
    assert found.left_hand[MIDDLE_KNUCKLE].tolist() == [100, 60, 1]
    assert found.body[1, :2].tolist() == [140, 140]


def test_missing_and_unreadable_keypoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(PoseError, match="2 pictures: a, b"):
        poses_of_files(tmp_path, (pair("a"), pair("b")))
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(PoseError, match=r"a\.json"):
        poses_of_files(tmp_path, (pair("a"),))(pair("a"), picture(0))


def test_a_detector_is_asked_about_the_picture() -> None:
    class Detector:
        def detect(self, image: np.ndarray) -> list[tuple[Person, Box]]:
            box = Box(0, 0, 1, 1)
            return [(person(size=5), box), (person(hand(3, 3)), box)] if image.any() else []

    posing = poses_of_detector(cast(Any, Detector()))
    found = posing(pair("a"), picture(0))
    assert found is not None and found.left_hand is not None
    assert posing(pair("a"), np.zeros((8, 8, 3), np.uint8)) is None
