# SPDX-License-Identifier: GPL-3.0-or-later
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from controlnet_aux.open_pose import util
from controlnet_aux.open_pose.body import Keypoint
from PIL import Image

from pose_transfer.errors import PoseError
from pose_transfer.pose import COLOURS, LIMBS, STYLES, draw, require_person
from pose_transfer.pose.raster import circle, circles, ellipses, strokes
from pose_transfer.types import Person, Pose

# Maps that the released FPDM code drew (commit 7d90524, OpenCV 4.9), with their keypoints.
RELEASED = np.load(Path(__file__).parents[1] / "data" / "fpdm_pose_maps.npz")


def person(body: np.ndarray, **parts: np.ndarray) -> Person:
    return Person(body, **parts)


def pose_from(points: np.ndarray, width: int, height: int) -> Pose:
    """A pose from (18, 2) points where -1 is missing."""
    present = (points != -1).all(axis=1, keepdims=True)
    body = np.where(present, np.concatenate([points, np.ones((18, 1))], axis=1), 0)
    return Pose(width, height, (person(body),))


def standing(width: int = 352, height: int = 512) -> Pose:
    body = pose_from(RELEASED["keypoints_512x352_0"], 352, 512).people[0].body
    return Pose(width, height, (person(body * [width / 352, height / 512, 1]),))


@pytest.mark.parametrize("case", range(4))
def test_fpdm_map_is_the_released_one_bit_for_bit(case):
    pose = pose_from(RELEASED[f"keypoints_512x352_{case}"], 352, 512)
    assert np.array_equal(draw(pose, 512, 352, "fpdm"), RELEASED[f"map_512x352_{case}"])


@pytest.mark.parametrize("case", range(4))
def test_fpdm_map_on_the_training_canvas_is_the_released_one(case):
    # The released training drew at 550x375 and resized; fractions of a pixel matter there.
    pose = pose_from(RELEASED[f"keypoints_550x375_{case}"], 375, 550)
    drawn = Image.fromarray(draw(pose, 550, 375, "fpdm"))
    resized = np.asarray(drawn.resize((352, 512), Image.Resampling.BICUBIC))
    assert np.array_equal(resized, RELEASED[f"map_550x375_resized_512x352_{case}"])


def test_coordinates_scale_from_the_canvas_of_the_pose():
    drawn = draw(standing(176, 256), 512, 352, "fpdm")
    assert np.array_equal(drawn, RELEASED["map_512x352_0"])


@pytest.mark.parametrize(("height", "width", "radius"), [(512, 352, 4), (256, 192, 2), (64, 48, 1)])
def test_fpdm_points_scale_with_the_height(height, width, radius):
    body = np.zeros((18, 3))
    body[0] = (width // 2, height // 2, 1)
    drawn = draw(Pose(width, height, (person(body),)), height, width, "fpdm")
    columns = np.nonzero(drawn.any(axis=(0, 2)))[0]
    assert len(columns) == 2 * radius + 1
    assert tuple(drawn[height // 2, width // 2]) == COLOURS[0][::-1]


def test_openpose_draws_dark_limbs_under_bright_points():
    drawn = draw(standing(), 512, 512, "openpose")
    colours = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()}
    bright = {COLOURS[i] for i in range(18) if RELEASED["keypoints_512x352_0"][i, 0] != -1}
    dark = {
        tuple(int(c * 0.6) for c in COLOURS[limb])
        for limb, ends in enumerate(LIMBS)
        if all(RELEASED["keypoints_512x352_0"][end, 0] != -1 for end in ends)
    }
    assert colours == bright | dark | {(0, 0, 0)}


def test_openpose_and_fpdm_have_red_and_blue_swapped():
    body = np.zeros((18, 3))
    body[0] = (20, 20, 1)
    pose = Pose(40, 40, (person(body),))
    openpose = draw(pose, 40, 40, "openpose")
    assert tuple(openpose[20, 20]) == (255, 0, 0)
    assert np.array_equal(openpose, draw(pose, 40, 40, "fpdm")[..., ::-1])


def test_dwpose_adds_hands_and_face_to_openpose():
    body = standing(512, 512).people[0].body
    hand = np.stack([400 + 4 * np.arange(21), np.full(21, 40), np.ones(21)], axis=1)
    face = np.zeros((70, 3))
    face[3] = (30, 480, 0.4)
    whole = Pose(512, 512, (person(body, left_hand=hand, face=face),))
    plain = draw(whole, 512, 512, "openpose")
    assert np.array_equal(plain, draw(standing(512, 512), 512, 512, "openpose"))
    added = draw(whole, 512, 512, "dwpose")
    assert tuple(added[480, 30]) == (255, 255, 255)
    assert tuple(added[40, 400]) == (0, 0, 255)
    assert (added != plain).any(axis=2).sum() > 400


@pytest.mark.parametrize("style", STYLES)
def test_absent_points_take_their_limbs_along(style):
    body = np.array(standing().people[0].body)
    complete = draw(Pose(352, 512, (person(body),)), 512, 352, style)
    body[3] = 0  # an elbow: both its limbs go, the wrist stays as a point
    without = draw(Pose(352, 512, (person(body),)), 512, 352, style)
    assert without.any(axis=2).sum() < complete.any(axis=2).sum()
    x, y = body[4, :2].astype(int)
    assert without[y, x].any()


@pytest.mark.parametrize("style", STYLES)
def test_any_coordinate_can_be_drawn(style):
    rng = np.random.default_rng(0)
    for scale in (1, 100, 1e5, 1e30):
        points = rng.normal(0, scale, (18, 3))
        points[:, 2] = rng.random(18) > 0.2
        points[rng.integers(18)] = (np.nan, np.inf, 1)
        hand = rng.normal(0, scale, (21, 3))
        pose = Pose(64, 48, (person(points, left_hand=hand), person(points)))
        assert draw(pose, 48, 64, style).shape == (48, 64, 3)


@pytest.mark.parametrize("style", STYLES)
def test_empty_pose_gives_a_black_map(style):
    assert not draw(Pose(64, 64), 32, 24, style).any()


def test_unknown_style_and_impossible_size_are_named():
    with pytest.raises(ValueError, match=r"'stick'.*openpose, dwpose, fpdm"):
        draw(Pose(8, 8), 8, 8, "stick")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0x8 px"):
        draw(Pose(8, 8), 8, 0, "fpdm")


def test_require_person_says_what_to_do():
    shown = standing().people[0]
    assert require_person(Pose(352, 512, (person(np.zeros((18, 3))), shown))) is shown
    with pytest.raises(PoseError, match="found none"):
        require_person(Pose(64, 64))
    with pytest.raises(PoseError, match="check that the keypoints"):
        require_person(Pose(5, 5, (shown,)))


def test_ellipse_is_the_polygon_of_whole_degrees():
    # Axis-aligned, so that the shape is known without another drawing program.
    (patch,) = ellipses(np.array([[20, 10]]), np.array([8]), 3, np.array([0]), 24, 40)
    assert patch is not None
    assert (patch.rows, patch.columns) == (slice(7, 14), slice(12, 29))
    assert patch.mask[3].all()
    assert np.array_equal(patch.mask, patch.mask[::-1]) and np.array_equal(
        patch.mask, patch.mask[:, ::-1]
    )
    angles = np.array([0, 90, -270, 450])
    same = ellipses(np.tile([[20, 20]], (4, 1)), np.full(4, 8), 3, angles, 40, 40)
    assert same[1] is not None and np.array_equal(patch.mask.T, same[1].mask)
    assert all(np.array_equal(same[1].mask, other.mask) for other in same[2:] if other)


def test_shapes_are_cut_at_the_canvas_and_none_outside():
    assert circle(-9, 5, 4, 20, 20) is None
    assert strokes(np.array([[-9, 30, -5, 40]]), 2, 20, 20) == [None]
    assert ellipses(np.array([[60, 60]]), np.array([5]), 2, np.array([30]), 20, 20) == [None]
    cut = circle(0, 0, 4, 20, 20)
    whole = circle(10, 10, 4, 20, 20)
    assert cut is not None and whole is not None
    assert np.array_equal(cut.mask, whole.mask[4:, 4:])


def test_a_stroke_of_thickness_two_is_three_pixels_wide_with_round_ends():
    (patch,) = strokes(np.array([[5, 5, 9, 5]]), 2, 20, 20)
    assert patch is not None
    expected = np.ones((3, 7), dtype=bool)
    expected[[0, 0, 2, 2], [0, 6, 0, 6]] = False
    assert np.array_equal(patch.mask, expected)
    (thin,) = strokes(np.array([[5, 5, 9, 5]]), 1, 20, 20)
    assert thin is not None and thin.mask.shape == (1, 5) and thin.mask.all()


@pytest.mark.parametrize("seed", range(12))
def test_body_hands_and_face_are_drawn_as_controlnet_aux_draws_them(seed):
    rng = np.random.default_rng(seed)

    def scattered(count: int, low: int, high: int) -> np.ndarray:
        points = np.append(rng.integers(low, high, (count, 2)), np.ones((count, 1)), axis=1)
        points[rng.random(count) < 0.1] = 0
        return points

    body = scattered(18, 100, 412)
    corners = rng.integers(20, 400, 3)
    reach = (90, 90, 40)  # short bones and long ones
    parts = {
        name: scattered(count, corner, corner + size)
        for name, count, corner, size in zip(
            ("left_hand", "right_hand", "face"), (21, 21, 70), corners, reach, strict=True
        )
    }
    theirs = np.zeros((512, 512, 3), np.uint8)
    util.draw_bodypose(theirs, controlnet_aux_points(body))
    pose = Pose(512, 512, (person(body, **parts),))
    assert np.array_equal(draw(pose, 512, 512, "openpose"), theirs)
    for name in ("left_hand", "right_hand"):
        # It takes no hand of which a point is absent.
        parts[name][parts[name][:, 2] == 0] = (30, 30, 1)
        util.draw_handpose(theirs, controlnet_aux_points(parts[name]))
    parts["face"][parts["face"][:, 2] == 0] = (30, 30, 1)
    util.draw_facepose(theirs, controlnet_aux_points(parts["face"]))
    pose = Pose(512, 512, (person(body, **parts),))
    assert np.array_equal(draw(pose, 512, 512, "dwpose"), theirs)


def controlnet_aux_points(points: np.ndarray) -> list[Any]:
    """Its keypoints count in fractions of the canvas, here of 512 px, so exactly."""
    return [Keypoint(x / 512, y / 512) if seen else None for x, y, seen in points.tolist()]


def test_pixels_of_strokes_are_opencv_s():
    ends = np.random.default_rng(0).integers(10, 190, (400, 4))
    for thickness in (2, 3):
        for (x0, y0, x1, y1), patch in zip(
            ends.tolist(), strokes(ends, thickness, 200, 200), strict=True
        ):
            theirs, ours = np.zeros((200, 200), np.uint8), np.zeros((200, 200), bool)
            cv2.line(theirs, (x0, y0), (x1, y1), 1, thickness)
            assert patch is not None
            ours[patch.rows, patch.columns] = patch.mask
            assert np.array_equal(ours, theirs > 0), (x0, y0, x1, y1)


def test_many_circles_are_the_same_as_each():
    centres = np.array([(0, 0), (5, 7), (19, 3), (-2, 10), (40, 40), (6, 7)])
    together = np.zeros((20, 18), dtype=bool)
    together[circles(centres, 3, 20, 18)] = True
    apart = np.zeros_like(together)
    for x, y in centres.tolist():
        patch = circle(x, y, 3, 20, 18)
        if patch is not None:
            apart[patch.rows, patch.columns] |= patch.mask
    assert np.array_equal(together, apart)


@pytest.mark.parametrize("style", STYLES)
def test_a_hundred_maps_of_a_whole_person_take_at_most_a_second_of_one_core(style):
    rng = np.random.default_rng(0)

    def around(point: np.ndarray, count: int, reach: float) -> np.ndarray:
        offsets = rng.uniform(-reach, reach, (count, 3)) * (1, 1, 0)
        return np.append(point[:2], 1) + offsets

    body = standing(512, 512).people[0].body.copy()
    body[body[:, 2] == 0] = (250, 300, 1)
    hands = {f"{side}_hand": around(body[4], 21, 30) for side in ("left", "right")}
    pose = Pose(512, 512, (person(body, **hands, face=around(body[0], 70, 40)),))
    rates = []
    for _ in range(5):  # the best of five, for the machine has other things to do
        start = time.process_time()
        for _ in range(10):
            draw(pose, 512, 512, style)
        rates.append(10 / (time.process_time() - start))
    assert max(rates) >= 100
