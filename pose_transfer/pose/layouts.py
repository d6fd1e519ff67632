# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of points, told apart by their number -> the parts of a `Person`.

| points | set | source of the order |
| --- | --- | --- |
| 17 | COCO: no neck, which becomes the middle of the shoulders | Lin et al., 2014 |
| 18 | COCO as OpenPose has it, ours | OpenPose, `02_output.md` |
| 25 | OpenPose's BODY_25: hip centre at 8, which is left out, feet from 19 on | the same |
| 33 | MediaPipe Pose (BlazePose) | MediaPipe, Pose Landmarker |
| 133 | COCO-WholeBody: 17 body, 6 feet, 68 face, 21 left hand, 21 right hand | Jin et al., 2020 |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import PoseError
from ..types import PART_POINTS
from .skeleton import BODY_NAMES, NECK

Points = NDArray[np.float64]  # (N, 3): x, y, confidence; absent points are zeros
Parts = dict[str, Points]  # by the names of `PART_POINTS`

BODY_COUNTS = (17, 18, 25, 33, 133)

_COCO_17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
_MEDIAPIPE_33 = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer",
    "right_eye_inner", "right_eye", "right_eye_outer", "left_ear", "right_ear",
    "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
    "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle", "left_heel", "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
_BODY_25 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
_FEET_25, _FEET_133 = slice(19, 25), slice(17, 23)
_FACE_133, _LEFT_HAND_133, _RIGHT_HAND_133 = slice(23, 91), slice(91, 112), slice(112, 133)
# Big toe, small toe, heel; left, then right. MediaPipe's "foot index" is the big toe.
_FEET_33 = {
    0: "left_foot_index", 2: "left_heel", 3: "right_foot_index", 5: "right_heel",
}  # fmt: skip


def split(points: Points) -> Parts:
    """(N, 3) points of a whole person, N as in the table above -> their parts.

    `body` is always there, as the 18 points that all methods here are made for: BODY_25's hip
    centre, which none of them looks at, is dropped. Raises PoseError for another N.
    """
    match len(points):
        case 18:
            return {"body": points}
        case 25:
            return {"body": points[_BODY_25], "feet": points[_FEET_25]}
        case 17:
            return {"body": _without_neck(points, _COCO_17)}
        case 33:
            feet = np.zeros((6, 3))
            for at, name in _FEET_33.items():
                feet[at] = points[_MEDIAPIPE_33.index(name)]
            return {"body": _without_neck(points, _MEDIAPIPE_33), "feet": feet}
        case 133:
            body = _without_neck(points[:17], _COCO_17)
            eyes = body[[BODY_NAMES.index("right_eye"), BODY_NAMES.index("left_eye")]]
            return {
                "body": body,
                "feet": points[_FEET_133],
                # A face without any point would be eyes only, which the body has anyway.
                "face": np.concatenate(
                    [points[_FACE_133], eyes if points[_FACE_133].any() else np.zeros((2, 3))]
                ),
                "left_hand": points[_LEFT_HAND_133],
                "right_hand": points[_RIGHT_HAND_133],
            }
    raise wrong_count("body", len(points))


def complete_face(face: Points) -> Points:
    """A face of 68 points gets two absent pupils; any other stays as it is."""
    return np.concatenate([face, np.zeros((2, 3))]) if len(face) == 68 else face


def wrong_count(part: str, count: int) -> PoseError:
    """The error for a part that has `count` points."""
    also = {"body": " (or 25, COCO's 17 or 133, MediaPipe's 33)", "face": " (or 68)"}
    return PoseError(
        f"Got {count} points for a person's {part.replace('_', ' ')}, expected "
        f"{PART_POINTS[part]}{also.get(part, '')}. Choose the OpenPose format where the pose was "
        "made."
    )


def _without_neck(points: Points, names: tuple[str, ...]) -> Points:
    """Our body of points in another order, with the neck between the shoulders."""
    body = np.zeros((len(BODY_NAMES), 3))
    for i, name in enumerate(BODY_NAMES):
        if i != NECK:
            body[i] = points[names.index(name)]
    shoulders = points[[names.index("left_shoulder"), names.index("right_shoulder")]]
    if shoulders[:, 2].all():
        body[NECK] = (*shoulders[:, :2].mean(axis=0), shoulders[:, 2].min())
    return body
