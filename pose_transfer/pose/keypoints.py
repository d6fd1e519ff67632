# SPDX-License-Identifier: GPL-3.0-or-later
"""POSE_KEYPOINT and its dialects <-> `Pose`.

The ecosystem agrees on a list of frames `{canvas_width, canvas_height, people: [{part: [x, y,
confidence, ...]}]}` and on little else. Read are:

- parts that are None or left out, coordinates in pixels or as fractions of the canvas, a single
  frame or person without its list, JSON text (controlnet_aux, the host's SDPose, editors);
- OpenPose's own files (18 or 25 body points, no canvas); the 25's centre of the hips is dropped;
- COCO and COCO-WholeBody annotations and results, MMPose's and TensorFlow.js's results;
- MediaPipe's landmarks: 33 for the body, 21 for each hand;
- DeepFashion's annotations as text;
- arrays of 17, 18, 25, 33 or 133 points without any key.

Written are always full arrays in pixels, absent points as zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PoseError
from ..types import PART_POINTS, Person, Pose
from .dialects import EXPECTED, KEYS, Canvas, Frame, read_frames
from .layouts import Points
from .skeleton import BODY_NAMES

# A figure whose every coordinate is this small is given in fractions of its canvas: in pixels it
# would be a dot. Above 1 since an estimate may lie a little outside of the picture.
_LARGEST_FRACTION = 2.0

# A hand whose wrist is this much nearer to the other arm's is the other arm's.
_MUCH_NEARER = 0.25


def read_keypoints(
    obj: Any, canvas: Canvas | None = None, min_confidence: float = 0.0
) -> list[Pose]:
    """Any dialect of POSE_KEYPOINT -> one `Pose` for each frame, in pixels.

    `canvas` is the (width, height) in px of frames that do not tell their own, as OpenPose's
    files; without it they share the smallest canvas on which all their points have equal
    margins left and right, top and bottom. Points below `min_confidence` (0..1) count as absent,
    as does one that is no number, has no confidence, is at (-1, -1), or is more than a million px
    away; a part other than the body without any point is None, and a person without any is left
    out. Left and right hand are exchanged where each lies at the other's wrist (the host's SDPose
    writes them so). The input stays unmodified.

    Raises PoseError for what is no pose, and only that.
    """
    frames = list(read_frames(obj, canvas))
    if not frames:
        raise PoseError(
            f"Got a pose without any frame, {EXPECTED}. Connect the keypoints of a picture."
        )
    if canvas is None:
        canvas = _guess_canvas([frame for frame in frames if frame.canvas is None])
    return [_to_pose(frame, frame.canvas or canvas, min_confidence) for frame in frames]


def write_keypoints(poses: Iterable[Pose], binary_confidence: bool = False) -> list[dict[str, Any]]:
    """Poses -> POSE_KEYPOINT that every known reader takes: all parts, full, in pixels.

    Absent points and parts are zeros, as are points that are no numbers, which JSON does not have.
    `binary_confidence` writes each present point's confidence as 1, for readers that drop whatever
    lies below (controlnet_aux).

    `read_keypoints` gives the same poses back, but for people without any point, and for a frame
    none of whose coordinates exceeds 2 px, which it takes for fractions of the canvas.
    """
    frames = []
    for pose in poses:
        people = []
        for person in pose.people:
            entry = {}
            for part, key in KEYS.items():
                points = getattr(person, part)
                if points is None:
                    points = np.zeros((PART_POINTS[part], 3), dtype=np.float32)
                present = (points[:, 2:] > 0) & np.isfinite(points).all(axis=1, keepdims=True)
                points = np.where(present, points, 0)
                if binary_confidence:
                    points[:, 2] = np.ceil(points[:, 2])
                entry[key] = points.ravel().tolist()
            people.append(entry)
        frames.append({"canvas_width": pose.width, "canvas_height": pose.height, "people": people})
    return frames


def _located(frames: Iterable[Frame]) -> Points:
    """(N, 2) coordinates of all present points."""
    parts = [points for frame in frames for person in frame.people for points in person.values()]
    rows = np.concatenate([np.zeros((0, 3)), *parts])
    return rows[rows[:, 2] > 0, :2]


def _in_fractions(frame: Frame) -> bool:
    if frame.fractions is not None:
        return frame.fractions
    coordinates = _located([frame])
    return coordinates.size > 0 and bool(np.abs(coordinates).max() <= _LARGEST_FRACTION)


def _guess_canvas(frames: Sequence[Frame]) -> Canvas | None:
    if not frames:
        return None
    coordinates = _located(frames)
    if coordinates.size == 0 or any(map(_in_fractions, frames)):
        raise PoseError(
            "The pose says neither how large its canvas is nor where its points lie in pixels. "
            "Give the canvas' width and height."
        )
    margin = np.maximum(coordinates.min(axis=0), 0)
    width, height = np.maximum(coordinates.max(axis=0) + margin, 1).tolist()
    return math.ceil(width), math.ceil(height)


def _to_pose(frame: Frame, canvas: Canvas | None, min_confidence: float) -> Pose:
    assert canvas is not None, "frames without a canvas were given one"
    in_fractions = _in_fractions(frame)
    people = []
    for parts in frame.people:
        known: dict[str, NDArray[np.float32]] = {}
        for part, points in parts.items():
            if in_fractions:
                points = points * (*canvas, 1)
                # OpenPose for Python divides its -1 for "absent" by the canvas, too.
                points[np.isclose(points[:, :2], -1).all(axis=1)] = 0
            found = np.where(points[:, 2:] >= min_confidence, points, 0).astype(np.float32)
            if part == "body" or found.any():
                known[part] = found
        known = _hands_at_their_wrists(known)
        if len(known) > 1 or known["body"].any():
            people.append(Person(**known))
    return Pose(*canvas, tuple(people))


def _hands_at_their_wrists(
    parts: dict[str, NDArray[np.float32]],
) -> dict[str, NDArray[np.float32]]:
    """The parts, with the hands exchanged if each lies at the other arm's wrist."""
    as_named = as_exchanged = 0.0
    for side, other in (("left", "right"), ("right", "left")):
        hand = parts.get(f"{side}_hand")
        wrists = [parts["body"][BODY_NAMES.index(f"{name}_wrist")] for name in (side, other)]
        if hand is None or hand[0, 2] <= 0 or any(wrist[2] <= 0 for wrist in wrists):
            continue
        own, others = (float(np.hypot(*(hand[0, :2] - wrist[:2]))) for wrist in wrists)
        as_named, as_exchanged = as_named + own, as_exchanged + others
    if as_exchanged >= _MUCH_NEARER * as_named:
        return parts
    exchanged = {"left_hand": "right_hand", "right_hand": "left_hand"}
    return {exchanged.get(part, part): points for part, points in parts.items()}
