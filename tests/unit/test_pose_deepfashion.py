# SPDX-License-Identifier: GPL-3.0-or-later
"""DeepFashion's annotations in, the released drawing out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pose_transfer.errors import PoseError
from pose_transfer.pose import draw, read_keypoints
from pose_transfer.pose.deepfashion import is_annotation

# Annotations in the 256x256 frame and the maps that the released FPDM code drew of them (commit
# 7d90524, OpenCV 4.9).
RELEASED = np.load(Path(__file__).parents[1] / "data" / "fpdm_pose_maps.npz")
HEADER = "name:keypoints_y:keypoints_x"


def rows_text(raw: np.ndarray) -> str:
    return "".join(f"{x:.0f} {y:.0f}\n" for x, y in raw)


def savetxt(raw: np.ndarray) -> str:
    file = io.StringIO()
    np.savetxt(file, raw)
    return file.getvalue()


def table_line(raw: np.ndarray, name: str = "fashionWOMENTees_Tanksid0000000901_1front.jpg") -> str:
    x = np.where(raw[:, 0] == -1, -1, raw[:, 0] - 40).astype(int).tolist()
    return f"{name}: {raw[:, 1].astype(int).tolist()}: {x}"


def table(raw: np.ndarray) -> str:
    return f"{HEADER}\n{table_line(raw)}\n"


@pytest.mark.parametrize("form", [rows_text, savetxt, table])
@pytest.mark.parametrize("case", range(4))
def test_files_are_drawn_as_the_released_code_draws_them(form, case):
    (pose,) = read_keypoints(form(RELEASED[f"keypoints_raw_{case}"]))
    assert (pose.width, pose.height) == (176, 256)
    assert np.array_equal(draw(pose, 512, 352, "fpdm"), RELEASED[f"map_512x352_{case}"])
    training = Image.fromarray(draw(pose, 550, 375, "fpdm"))
    resized = np.asarray(training.resize((352, 512), Image.Resampling.BICUBIC))
    assert np.array_equal(resized, RELEASED[f"map_550x375_resized_512x352_{case}"])


def test_every_line_of_a_table_is_a_frame():
    raws = [RELEASED[f"keypoints_raw_{case}"] for case in range(4)]
    text = "\r\n".join(
        [HEADER, *(table_line(raw, f"C:/photos/{i}.jpg") for i, raw in enumerate(raws))]
    )
    poses = read_keypoints(text.encode())
    assert len(poses) == 4
    for raw, pose in zip(raws, poses, strict=True):
        (person,) = pose.people
        seen = raw[:, 0] != -1
        assert np.array_equal(person.body[:, 2] > 0, seen)
        assert np.array_equal(person.body[seen, :2], raw[seen] - [40, 0])


def test_a_picture_without_anybody_is_an_empty_frame():
    nothing = [-1] * 18
    shown, empty = read_keypoints(
        f"{HEADER}\n{table_line(RELEASED['keypoints_raw_0'])}\nb.jpg: {nothing}: {nothing}\n"
    )
    assert len(shown.people) == 1
    assert (empty.width, empty.height, empty.people) == (176, 256, ())


points = st.tuples(st.integers(0, 175), st.integers(0, 255)) | st.just((-1, -1))


@settings(max_examples=40, deadline=None)
@given(st.lists(points, min_size=18, max_size=18))
def test_both_forms_say_the_same(pixels: list[tuple[int, int]]):
    raw = np.array([(x if x == -1 else x + 40, y) for x, y in pixels], dtype=float)
    (from_rows,), (from_table,) = read_keypoints(rows_text(raw)), read_keypoints(table(raw))
    assert from_rows == from_table
    expected = np.array([(0, 0, 0) if x == -1 else (x, y, 1) for x, y in pixels])
    if expected.any():
        assert np.array_equal(from_rows.people[0].body, expected)


def test_half_a_missing_point_is_missing():
    raw = RELEASED["keypoints_raw_0"].copy()
    raw[3, 1] = -1
    (pose,) = read_keypoints(rows_text(raw))
    assert not pose.people[0].body[3].any()


def test_with_a_canvas_numbers_are_pixels_of_it():
    # Market-1501's tables have the same form, on pictures of 64x128.
    raw = RELEASED["keypoints_raw_0"]
    (pose,) = read_keypoints(rows_text(raw), canvas=(300, 300))
    assert (pose.width, pose.height) == (300, 300)
    assert np.array_equal(pose.people[0].body[0, :2], raw[0])
    (pose,) = read_keypoints(table(raw), canvas=(64, 128))
    assert (pose.width, pose.height) == (64, 128)


def test_numbers_outside_of_the_picture_are_no_deepfashion():
    raw = RELEASED["keypoints_raw_0"] * 3
    raw[raw < 0] = -1
    (pose,) = read_keypoints(rows_text(raw))
    assert (pose.width, pose.height) != (176, 256)
    assert np.array_equal(pose.people[0].body[0, :2], raw[0])


def test_rows_of_other_sets_of_points_are_read():
    rows = "\n".join(f"{10 * i + 3}, {5 * i + 9}, 0.5  # point {i}" for i in range(17))
    (pose,) = read_keypoints(rows, canvas=(640, 480))
    assert np.allclose(pose.people[0].body[0], (3, 9, 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n3 4\n", "Got 2 rows"),
        ("1 2\n" * 17 + "1\n", "Got 18 rows"),
        ("1 2 3 4 5 6\n" * 18, "rows of 6 numbers"),
        (f"{HEADER}\na.jpg: [1, 2]: [3, 4]", r"Got the line 'a.jpg: \[1, 2\]"),
        (f"{HEADER}\nsomething else", "Got the line 'something else'"),
        (HEADER, "without any frame"),
        ("name,x,y\na,1,2", "not JSON"),
        ("1 2\nx y\n" * 9, "Got 18 rows"),
        ("", "not JSON"),
    ],
)
def test_broken_annotations_are_refused_with_a_sentence(text, message):
    with pytest.raises(PoseError, match=message):
        read_keypoints(text)


@pytest.mark.parametrize("text", ['{"people": []}', "[[1, 2], [3, 4]]", "12", '"a: [1]: [2]"', ""])
def test_json_is_no_annotation(text):
    assert not is_annotation(text)
