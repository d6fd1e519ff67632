# SPDX-License-Identifier: GPL-3.0-or-later
"""DWPose on networks of the released layout that compute a function which can be foreseen."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from pose_transfer.detectors.dwpose import DWPose, load_dwpose
from pose_transfer.detectors.views import detect_at
from pose_transfer.errors import CheckpointError
from pose_transfer.pose.skeleton import BODY_NAMES
from pose_transfer.types import Box, Person

networks = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "dwpose_networks.py")))

# COCO-WholeBody's first 17, as published with the data set.
COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip


def wholebody(seed: int = 0) -> NDArray[np.float32]:
    """133 points within x 60..120, y 50..170, all of them sure."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(60, 120, 133), rng.uniform(50, 170, 133)
    return np.stack([x, y, rng.uniform(0.5, 0.9, 133)], axis=1).astype(np.float32)


@pytest.fixture
def make_dwpose(tmp_path: Path) -> Callable[[NDArray[np.float32]], DWPose]:
    def make(points: NDArray[np.float32]) -> DWPose:
        return load_dwpose(
            networks.write_finder(tmp_path / "yolox_l.onnx"),
            networks.write_estimator(tmp_path / "dw-ll_ucoco_384.onnx", points),
        )

    return make


def assert_box(box: Box, x: float, y: float, width: float, height: float) -> None:
    found = box.x, box.y, box.x + box.width, box.y + box.height
    assert found == pytest.approx((x, y, x + width, y + height), abs=1)


def face_of(person: Person) -> NDArray[np.float32]:
    assert person.face is not None
    return person.face


def assert_points(person: Person, expected: NDArray[np.float32], within: float = 1.0) -> None:
    for part, points in (
        (person.feet, expected[17:23]),
        (face_of(person)[:68], expected[23:91]),
        (person.left_hand, expected[91:112]),
        (person.right_hand, expected[112:]),
        (person.body, np.stack([body_point(name, expected) for name in BODY_NAMES])),
    ):
        assert part is not None
        assert np.abs(part[:, :2] - points[:, :2]).max() <= within
        # The stand-in loses 0.05 of its score for each px that it is off.
        assert np.abs(part[:, 2] - points[:, 2]).max() <= 0.05 * (within + 0.5)


def body_point(name: str, expected: NDArray[np.float32]) -> NDArray[np.float32]:
    if name == "neck":
        left, right = (expected[COCO.index(f"{side}_shoulder")] for side in ("left", "right"))
        return np.array([*(left + right)[:2] / 2, min(left[2], right[2])])
    return expected[COCO.index(name)]


@pytest.mark.parametrize(("height", "width"), [(200, 180), (180, 256), (256, 140)])
def test_keypoints_are_where_the_networks_saw_them(
    make_dwpose: Callable[..., DWPose], height: int, width: int
) -> None:
    picture = networks.telling_picture(height, width, [(50, 40, 80, 136)])
    ((person, box),) = make_dwpose(wholebody()).detect(picture)

    assert_points(person, wholebody())
    assert_box(box, 50, 40, 80, 136)
    assert box.score == pytest.approx(0.95 * 0.9)


def test_pupils_are_the_eyes_right_one_first(make_dwpose: Callable[..., DWPose]) -> None:
    picture = networks.telling_picture(200, 180, [(50, 40, 80, 140)])
    ((person, _),) = make_dwpose(wholebody()).detect(picture)

    right, left = BODY_NAMES.index("right_eye"), BODY_NAMES.index("left_eye")
    assert np.array_equal(face_of(person)[68:], person.body[[right, left]])


def test_a_large_picture_is_seen_whole(make_dwpose: Callable[..., DWPose]) -> None:
    picture = networks.telling_picture(800, 720, [(200, 160, 320, 560)], px_per_level=4)
    ((person, box),) = make_dwpose(wholebody()).detect(picture)

    expected = wholebody() * np.array([4, 4, 1]) + np.array([1.5, 1.5, 0])
    off = (face_of(person)[:68] - expected[23:91])[:, :2]
    assert np.abs(off).max() <= 4
    assert np.abs(off.mean(axis=0)).max() < 1, "a drift"
    assert_box(box, 200, 160, 320, 560)


def test_a_smaller_copy_gives_the_picture_s_own_coordinates(
    make_dwpose: Callable[..., DWPose],
) -> None:
    picture = networks.telling_picture(200, 180, [(50, 40, 80, 140)])
    detector = make_dwpose(wholebody())
    for boxes in (None, [Box(50, 40, 80, 140)]):
        ((person, box),) = detect_at(detector, picture, 90, boxes)

        assert_points(person, wholebody(), within=1.5)
        found = box.x, box.y, box.width, box.height
        assert found == pytest.approx((50, 40, 80, 140), abs=2)


def test_two_people_are_told_apart_and_repeats_left_out(
    make_dwpose: Callable[..., DWPose],
) -> None:
    picture = networks.telling_picture(250, 250, [(20, 40, 80, 160), (140, 60, 90, 150)])
    first, second = make_dwpose(wholebody()).detect(picture)

    assert_box(first[1], 20, 40, 80, 160)
    assert_box(second[1], 140, 60, 90, 150)
    assert second[1].score == pytest.approx(0.8 * 0.7)


def test_boxes_restrict(make_dwpose: Callable[..., DWPose]) -> None:
    picture = networks.telling_picture(250, 250, [(20, 40, 80, 160), (140, 60, 90, 150)])
    detector = make_dwpose(wholebody())

    ((person, box),) = detector.detect(picture, [Box(10, 30, 110, 190)])
    assert_box(box, 20, 40, 80, 160)
    assert_points(person, wholebody())
    ((_, box),) = detector.detect(picture, [Box(130, 20, 300, 300)])
    assert_box(box, 140, 60, 90, 150)
    assert len(detector.detect(picture, [Box(0, 0, 250, 250)])) == 2
    assert detector.detect(picture, []) == []
    assert detector.detect(picture, [Box(400, 400, 50, 50)]) == []


def test_a_box_that_the_finder_overlooks_is_taken_as_a_person(
    make_dwpose: Callable[..., DWPose],
) -> None:
    """The estimator decides: it finds the points where they are, and nothing where they are not."""
    nobody = networks.telling_picture(250, 250, [])
    detector = make_dwpose(wholebody())

    assert detector.detect(nobody) == []
    ((person, box),) = detector.detect(nobody, [Box(50, 40, 80, 140, 0.5)])
    assert box == Box(50, 40, 80, 140, 0.5)
    assert_points(person, wholebody())
    assert detector.detect(nobody, [Box(200, 200, 40, 40)]) == []


def test_a_quarter_of_room_is_seen_around_a_person(make_dwpose: Callable[..., DWPose]) -> None:
    box = Box(80, 80, 90, 120)  # of the network's own aspect, so that only the room is added
    points = wholebody()
    points[91:95, :2] = [(80 - 9, 140), (170 + 9, 140), (125, 80 - 13), (125, 200 + 13)]
    points[95:99, :2] = [(80 - 20, 140), (170 + 20, 140), (125, 80 - 24), (125, 200 + 24)]
    ((person, _),) = make_dwpose(points).detect(networks.telling_picture(250, 250, []), [box])

    assert person.left_hand is not None
    assert (person.left_hand[:4, 2] > 0.3).all()
    assert not person.left_hand[4:8].any()


def test_unsure_points_are_left_out(make_dwpose: Callable[..., DWPose]) -> None:
    points = wholebody()
    points[[COCO.index("left_shoulder"), *range(91, 112), 23], 2] = 0.2
    points[COCO.index("nose"), 2] = 3.0
    picture = networks.telling_picture(200, 180, [(50, 40, 80, 140)])
    ((person, _),) = make_dwpose(points).detect(picture)

    at = BODY_NAMES.index
    assert not person.body[[at("left_shoulder"), at("neck")]].any(), "no neck without shoulders"
    assert person.body[at("right_shoulder"), 2] > 0
    assert person.left_hand is None
    assert person.right_hand is not None
    assert not face_of(person)[0].any()
    assert person.body[at("nose"), 2] == 1, "confidences end at 1"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 500), (500, 2)])
def test_a_picture_too_small_for_anybody_is_no_failure(
    make_dwpose: Callable[..., DWPose], height: int, width: int
) -> None:
    picture = np.full((height, width, 3), 255, dtype=np.uint8)
    detector = make_dwpose(wholebody())
    detector.detect(picture)
    detector.detect(picture, [Box(0, 0, width, height)])


def test_other_networks_are_refused(tmp_path: Path, make_dwpose: Callable[..., DWPose]) -> None:
    make_dwpose(wholebody())
    finder, estimator = tmp_path / "yolox_l.onnx", tmp_path / "dw-ll_ucoco_384.onnx"
    with pytest.raises(CheckpointError, match="expected simcc_x and simcc_y"):
        load_dwpose(finder, finder)
    mistaken = load_dwpose(estimator, estimator)
    with pytest.raises(CheckpointError, match=r"\(1, 8400, 85\)|expected \(1, 2268, 85\)"):
        mistaken.detect(np.zeros((64, 64, 3), dtype=np.uint8))

    shallow = onnx.load(estimator)
    shallow.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(shallow, tmp_path / "grey.onnx")
    with pytest.raises(CheckpointError):
        load_dwpose(finder, tmp_path / "grey.onnx")
