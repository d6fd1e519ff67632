# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten thousand broken poses of every dialect: the reader raises its own error or reads them."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np

from pose_transfer.errors import PoseError
from pose_transfer.pose import draw, read_keypoints, write_keypoints
from pose_transfer.types import PART_POINTS, Person, Pose

INPUTS = 10_000
KEYS = [
    "people", "canvas_width", "canvas_height", "width", "height", "pose_keypoints_2d",
    "face_keypoints_2d", "hand_left_keypoints_2d", "keypoints", "keypoint_scores", "foot_kpts",
    "annotations", "images", "image_id", "id", "instance_info", "instances", "landmarks",
    "poseLandmarks", "leftHandLandmarks", "landmark", "x", "y", "visibility",
]  # fmt: skip
LEAVES: list[Any] = [
    None, True, 0, -1, 1, 2.5, 512, 1e308, -1e-320, float("nan"), float("inf"), 10**400,
    10**5000, "", "x", "[1, 2]", "{}", '"', "1 2\n" * 18, "a: [1]: [2]", b"\xff", b"\xfe\xff[",
    "\ud800", 1j, object(), {1, 2}, [1.0, 2.0, 1.0] * 18, [0.5] * 51, [None] * 75, [[1, 2, 3]] * 17,
    [{"x": 0.5, "y": 0.5}] * 33, [{"x": "a", "y": None}] * 33, np.ones(54), np.ones((2, 133, 3)),
    np.ones((33, 4), dtype=np.float16), np.array("text"), np.array([]), np.array([{}, []], object),
    np.zeros((0, 3)), np.zeros((0, 18, 3)), np.ones((1, 1, 1, 18, 3)),
]  # fmt: skip

NUMBERS = [None, -1, 0, 1e9, -3.5, 0.5, 700, 10**400, float("nan"), float("-inf")]
SNIPPETS = ["", "[", "}", ":", "\n", " ", "-1", "e9", "\x00", "é"]


def whole_person(rng: np.random.Generator) -> Person:
    parts: dict[str, Any] = {
        part: rng.random((count, 3)) * [640, 480, 1] for part, count in PART_POINTS.items()
    }
    return Person(**parts)


def sound_poses() -> list[Any]:
    """One of each dialect."""
    rng = np.random.default_rng(0)
    ours = write_keypoints([Pose(640, 480, (whole_person(rng), whole_person(rng)))] * 2)
    row = (rng.random((133, 3)) * [640, 480, 1]).round(3).tolist()
    marks = [{"x": x / 640, "y": y / 480, "z": 0.0, "visibility": v} for x, y, v in row[:33]]
    numbers = [[value for point in row[:count] for value in point] for count in (133, 25, 17)]
    x, y = ([round(value[axis] / 4) for value in row[:18]] for axis in (0, 1))
    return [
        ours,
        ours[0],
        {"people": [{"pose_keypoints_2d": numbers[1]}]},
        {
            "images": [{"id": 1, "width": 64, "height": 48}],
            "annotations": [
                {"image_id": 1, "keypoints": numbers[2], "lefthand_kpts": numbers[0][:63]}
            ],
        },
        {"canvas_width": 9, "canvas_height": 9, "people": [{"keypoints": numbers[0]}]},
        {"instance_info": [{"keypoints": row[:17], "keypoint_scores": [0.5] * 17}]},
        {"poseLandmarks": marks, "leftHandLandmarks": marks[:21], "width": 64, "height": 48},
        {"width": 64, "height": 48, "keypoints": [[value[:2] for value in row[:18]]] * 2},
        row[:18],
        f"name:keypoints_y:keypoints_x\na.jpg: {y}: {x}\nb.jpg: {x}: {y}\n",
        "\n".join(f"{a} {b}" for a, b in zip(x, y, strict=True)),
    ]


class Vandal:
    """Breaks poses, each time in another way."""

    def __init__(self) -> None:
        self.dice = random.Random(0)

    def grow(self, depth: int) -> Any:
        kind = self.dice.random()
        if depth == 0 or kind < 0.3:
            return self.dice.choice(LEAVES)
        if kind < 0.6:
            return [self.grow(depth - 1) for _ in range(self.dice.randrange(4))]
        return {self.dice.choice(KEYS): self.grow(depth - 1) for _ in range(self.dice.randrange(6))}

    def damage(self, obj: Any) -> Any:
        """A copy with something in it replaced, added or removed."""
        if isinstance(obj, str):
            return self.damage_text(obj)
        if isinstance(obj, dict) and obj and self.dice.random() < 0.9:
            key = self.dice.choice(list(obj))
            change = self.dice.random()
            if change < 0.1:
                return {name: value for name, value in obj.items() if name != key}
            if change < 0.2:
                return obj | {self.dice.choice(KEYS): self.grow(2)}
            return {**obj, key: self.damage(obj[key])}
        if isinstance(obj, list) and obj and self.dice.random() < 0.9:
            i = self.dice.randrange(len(obj))
            if self.dice.random() < 0.15:
                return obj[:i] + obj[i + 1 :]
            return [*obj[:i], self.damage(obj[i]), *obj[i + 1 :]]
        if isinstance(obj, float) and self.dice.random() < 0.6:
            return self.dice.choice(NUMBERS)
        return self.grow(3)

    def damage_text(self, text: str) -> Any:
        """The text with characters lost, doubled or replaced, or as bytes."""
        for _ in range(self.dice.randrange(1, 4)):
            i = self.dice.randrange(len(text) + 1)
            extra = self.dice.choice(
                ["", "[", "}", ":", "\n", " ", "-1", "e9", "\x00", "é", text[:i]]
            )
            text = text[:i] + extra + text[i + self.dice.randrange(3) :]
        return text.encode() if self.dice.random() < 0.2 else text


def test_ten_thousand_broken_poses_raise_only_our_error():
    vandal, sound = Vandal(), sound_poses()
    assert all(read_keypoints(pose) for pose in sound)
    read = 0
    for number in range(INPUTS):
        whole = vandal.dice.choice(sound)
        if not isinstance(whole, str) and number % 4 == 0:
            broken = vandal.damage_text(json.dumps(whole))
        else:
            broken = vandal.damage(whole)
        try:
            poses = read_keypoints(broken, canvas=vandal.dice.choice([None, (64, 48)]))
        except PoseError as error:
            assert 20 < len(str(error)) < 1000
            continue
        read += 1
        for pose in poses:
            for person in pose.people:
                parts = [getattr(person, part) for part in PART_POINTS]
                assert all(np.isfinite(part).all() for part in parts if part is not None)
        json.dumps(write_keypoints(poses), allow_nan=False)
        if read % 50 == 0:
            draw(poses[0], 48, 64, "dwpose")
    assert INPUTS * 0.2 < read < INPUTS * 0.9
