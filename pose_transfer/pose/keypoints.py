# SPDX-License-Identifier: GPL-3.0-or-later
"""POSE_KEYPOINT and its dialects <-> `Pose`.

The ecosystem agrees on a list of frames `{canvas_width, canvas_height, people: [{part: [x, y,
confidence, ...]}]}` and on little else. Read here: parts that are None or left out, coordinates
in pixels or as fractions of the canvas, a single frame or person without its list, JSON text,
OpenPose's own files (18 or 25 body points, no canvas), COCO-17 annotations and results. Written:
always full arrays in pixels, absent points as zeros.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PoseError
from ..types import PART_POINTS, Person, Pose

_KEYS = {
    "body": "pose_keypoints_2d",
    "left_hand": "hand_left_keypoints_2d",
    "right_hand": "hand_right_keypoints_2d",
    "face": "face_keypoints_2d",
    "feet": "foot_keypoints_2d",
}
_COCO_KEY = "keypoints"

# Where each point of the COCO-18 body is found. BODY_25 has a hip centre at 8 and feet from 19
# on; COCO-17 has no neck, its place here is overwritten by the middle of the shoulders.
_FROM_BODY_25 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
_FROM_COCO_17 = [0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
_COCO_SHOULDERS = [5, 6]

# A figure whose every coordinate is this small is given in fractions of its canvas: in pixels it
# would be a dot. Above 1 since an estimate may lie a little outside of the picture.
_LARGEST_FRACTION = 2.0

_FAR = 1e6  # px; no canvas is larger and no point further away

_EXPECTED = (
    "expected POSE_KEYPOINT: a list of frames, each with 'canvas_width', 'canvas_height' and "
    "'people', or OpenPose or COCO JSON"
)

Points = NDArray[np.float64]
Parts = dict[str, Points]
Canvas = tuple[int, int]


@dataclass(frozen=True)
class _Frame:
    """One frame as read: parts are (N, 3) in whatever unit the file has."""

    canvas: Canvas | None
    people: list[Parts]


def read_keypoints(obj: Any, canvas: Canvas | None = None) -> list[Pose]:
    """Any dialect of POSE_KEYPOINT -> one `Pose` for each frame, in pixels.

    `canvas` is the (width, height) in px of frames that do not tell their own, as OpenPose's
    files; without it they share the smallest canvas on which all their points have equal
    margins left and right, top and bottom. A point counts as absent that is no number, has no
    confidence, is at (-1, -1), or is more than a million px away; a part other than the body
    without any point is None, and a person without any is left out. The input stays unmodified.

    Raises PoseError for what is no pose, and only that.
    """
    frames = [_read_frame(frame) for frame in _frames(obj)]
    if not frames:
        raise PoseError(
            f"Got a pose without any frame, {_EXPECTED}. Connect the keypoints of a picture."
        )
    if canvas is None:
        canvas = _guess_canvas([frame for frame in frames if frame.canvas is None])
    return [_to_pose(frame, frame.canvas or canvas) for frame in frames]


def write_keypoints(poses: Iterable[Pose], binary_confidence: bool = False) -> list[dict[str, Any]]:
    """Poses -> POSE_KEYPOINT that every known reader takes: all parts, full, in pixels.

    Absent points and parts are zeros. `binary_confidence` writes each present point's confidence
    as 1, for readers that drop whatever lies below (controlnet_aux).
    """
    frames = []
    for pose in poses:
        people = []
        for person in pose.people:
            entry = {}
            for part, key in _KEYS.items():
                points = getattr(person, part)
                if points is None:
                    points = np.zeros((PART_POINTS[part], 3), dtype=np.float32)
                points = np.where(points[:, 2:] > 0, points, 0)
                if binary_confidence:
                    points[:, 2] = np.ceil(points[:, 2])
                entry[key] = points.ravel().tolist()
            people.append(entry)
        frames.append({"canvas_width": pose.width, "canvas_height": pose.height, "people": people})
    return frames


def _frames(obj: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The frames in whatever wraps them: JSON text, lists, a COCO data set or result list."""
    if depth > 4:
        raise PoseError(f"Got lists nested {depth} deep, {_EXPECTED}.")
    if isinstance(obj, (str, bytes)):
        try:
            obj = json.loads(obj)
        except (ValueError, RecursionError) as error:
            raise PoseError(
                f"The pose is text but not JSON ({error}), {_EXPECTED}. Check that the whole "
                "file or text was copied."
            ) from error
        yield from _frames(obj, depth + 1)
    elif isinstance(obj, Mapping):
        if "annotations" in obj:
            yield from _coco_frames(obj["annotations"], obj.get("images", []))
        else:
            yield obj
    elif isinstance(obj, (list, tuple)):
        if obj and all(isinstance(item, Mapping) and "image_id" in item for item in obj):
            yield from _coco_frames(obj, [])
        else:
            for item in obj:
                yield from _frames(item, depth + 1)
    else:
        raise PoseError(f"Got {_describe(obj)} as a pose, {_EXPECTED}.")


def _coco_frames(annotations: Any, images: Any) -> Iterator[Mapping[str, Any]]:
    """One frame per picture that has an entry; annotations belong to pictures by `image_id`."""
    if not _all_mappings(annotations) or not _all_mappings(images):
        raise PoseError(
            "Got COCO keypoints whose 'annotations' or 'images' are no lists of objects, "
            f"{_EXPECTED}."
        )
    frames: dict[str, dict[str, Any]] = {}
    for image in images:
        frame = frames.setdefault(str(image.get("id")), {"people": []})
        frame.update(canvas_width=image.get("width"), canvas_height=image.get("height"))
    for annotation in annotations:
        frame = frames.setdefault(str(annotation.get("image_id")), {"people": []})
        frame["people"].append(annotation)
    yield from frames.values()


def _read_frame(frame: Mapping[str, Any]) -> _Frame:
    people = frame.get("people", frame if _is_person(frame) else None)
    if people is None and "people" not in frame:
        raise PoseError(
            f"Got an object with {_describe_keys(frame)} as a frame of a pose, {_EXPECTED}."
        )
    people = [] if people is None else [people] if isinstance(people, Mapping) else people
    if not _all_mappings(people):
        raise PoseError(
            f"Got {_describe(people)} as the 'people' of a pose, expected a list of objects with "
            f"'{_KEYS['body']}' and further parts."
        )
    return _Frame(_read_canvas(frame), [_read_person(person) for person in people])


def _is_person(entry: Mapping[str, Any]) -> bool:
    return any(key in entry for key in (*_KEYS.values(), _COCO_KEY))


def _read_canvas(frame: Mapping[str, Any]) -> Canvas | None:
    sizes = [frame.get("canvas_width"), frame.get("canvas_height")]
    if all(size is None for size in sizes):
        return None
    try:
        width, height = (round(float(size)) for size in sizes)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        width = height = 0
    if not (1 <= width <= _FAR and 1 <= height <= _FAR):
        raise PoseError(
            f"Got a pose's canvas of {_describe(sizes[0])} x {_describe(sizes[1])}, expected "
            "'canvas_width' and 'canvas_height' as numbers of pixels."
        )
    return width, height


def _read_person(entry: Mapping[str, Any]) -> Parts:
    if not _is_person(entry):
        raise PoseError(
            f"Got a person with {_describe_keys(entry)}, expected '{_KEYS['body']}' or COCO's "
            f"'{_COCO_KEY}'."
        )
    read = {part: _read_points(entry.get(key), key) for part, key in _KEYS.items()}
    if read["body"] is None:
        read["body"] = _read_points(entry.get(_COCO_KEY), _COCO_KEY)
    parts = {part: points for part, points in read.items() if points is not None}

    body = parts.setdefault("body", np.zeros((PART_POINTS["body"], 3)))
    if len(body) == 25:
        parts["body"] = body[_FROM_BODY_25]
        parts.setdefault("feet", body[19:])
    elif len(body) == 17:
        parts["body"] = _body_from_coco(body)
    if len(parts.get("face", ())) == 68:  # without the pupils
        parts["face"] = np.concatenate([parts["face"], np.zeros((2, 3))])
    for part, points in parts.items():
        if len(points) != PART_POINTS[part]:
            also = {"body": " (or 25, or COCO's 17)", "face": " (or 68)"}.get(part, "")
            raise PoseError(
                f"Got {len(points)} points for a person's {part.replace('_', ' ')}, expected "
                f"{PART_POINTS[part]}{also}. Choose the OpenPose format where the pose was made."
            )
    return parts


def _body_from_coco(points: Points) -> Points:
    body = points[_FROM_COCO_17]
    shoulders = points[_COCO_SHOULDERS]
    both = shoulders[:, 2].min()
    body[1] = (*shoulders[:, :2].mean(axis=0), both) if both > 0 else 0
    return body


def _read_points(values: Any, key: str) -> Points | None:
    """A flat list x, y, confidence, ... (or rows of three) -> (N, 3); None when it is empty."""
    if values is None:
        return None
    try:
        numbers = np.array(values, dtype=np.float64).ravel()  # a None inside becomes NaN
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PoseError(
            f"Got {_describe(values)} as '{key}', expected a list of numbers: x, y and "
            "confidence of each point."
        ) from error
    if numbers.size == 0 or (numbers.size == 1 and np.isnan(numbers[0])):
        return None
    if numbers.size % 3:
        raise PoseError(
            f"Got {numbers.size} numbers as '{key}', expected a multiple of 3: x, y and "
            "confidence of each point."
        )
    points = numbers.reshape(-1, 3)
    x, y, confidence = points.T
    # Comparisons with NaN are false; a confidence that float32 cannot hold is none.
    present = (np.abs(x) < _FAR) & (np.abs(y) < _FAR) & ((x != -1) | (y != -1))
    present &= (confidence >= np.finfo(np.float32).tiny) & (confidence < np.inf)
    points[~present] = 0
    points[:, 2] = np.minimum(points[:, 2], 1)  # COCO's visibility is 1 or 2
    return points


def _located(frames: Iterable[_Frame]) -> Points:
    """(N, 2) coordinates of all present points."""
    parts = [points for frame in frames for person in frame.people for points in person.values()]
    rows = np.concatenate([np.zeros((0, 3)), *parts])
    return rows[rows[:, 2] > 0, :2]


def _in_fractions(coordinates: Points) -> bool:
    return coordinates.size > 0 and bool(np.abs(coordinates).max() <= _LARGEST_FRACTION)


def _guess_canvas(frames: Sequence[_Frame]) -> Canvas | None:
    if not frames:
        return None
    coordinates = _located(frames)
    if coordinates.size == 0 or _in_fractions(coordinates):
        raise PoseError(
            "The pose says neither how large its canvas is nor where its points lie in pixels. "
            "Give the canvas' width and height."
        )
    margin = np.maximum(coordinates.min(axis=0), 0)
    width, height = np.maximum(coordinates.max(axis=0) + margin, 1).tolist()
    return math.ceil(width), math.ceil(height)


def _to_pose(frame: _Frame, canvas: Canvas | None) -> Pose:
    assert canvas is not None, "frames without a canvas were given one"
    scale = np.array([*canvas, 1.0]) if _in_fractions(_located([frame])) else np.ones(3)
    people = []
    for parts in frame.people:
        known = {
            part: (points * scale).astype(np.float32)
            for part, points in parts.items()
            if part == "body" or points.any()
        }
        if len(known) > 1 or known["body"].any():
            people.append(Person(**known))
    return Pose(*canvas, tuple(people))


def _all_mappings(items: Any) -> bool:
    return isinstance(items, (list, tuple)) and all(isinstance(item, Mapping) for item in items)


def _describe(value: Any) -> str:
    """What a value is, in a few words and never at a length that hides the message."""
    if value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:37]}..."
    return f"{type(value).__name__}"


def _describe_keys(entry: Mapping[str, Any]) -> str:
    names = ", ".join(_describe(key) for key in list(entry)[:6])
    return f"the keys {names}" if names else "no keys"
