# SPDX-License-Identifier: GPL-3.0-or-later
"""What programs write as a pose -> frames of people, in whatever unit the program has.

Only structure is read here: which objects are frames and people, and under which keys their points
lie. `points.py` makes arrays of the points, `layouts.py` parts of the arrays, and `keypoints.py`
pixels of the frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import PoseError
from ..types import PART_POINTS
from .deepfashion import is_annotation, read_annotation
from .layouts import Parts, Points, complete_face, split, wrong_count
from .points import FAR, describe, is_objects, nesting, read_bare_points, read_points

Canvas = tuple[int, int]  # width, height in px

KEYS = {
    "body": "pose_keypoints_2d",
    "left_hand": "hand_left_keypoints_2d",
    "right_hand": "hand_right_keypoints_2d",
    "face": "face_keypoints_2d",
    "feet": "foot_keypoints_2d",
}
# The same in COCO and COCO-WholeBody annotations, MMPose and TensorFlow.js.
_COCO_KEYS = {
    "body": "keypoints",
    "left_hand": "lefthand_kpts",
    "right_hand": "righthand_kpts",
    "face": "face_kpts",
    "feet": "foot_kpts",
}
_PERSON_KEYS = (*KEYS.values(), *_COCO_KEYS.values())

# MediaPipe's, as its tasks (Python, JavaScript) and its older solutions call them.
_LANDMARKS = ("pose_landmarks", "poseLandmarks", "landmarks", "landmark")
_HAND_LANDMARKS = {
    "left_hand": ("left_hand_landmarks", "leftHandLandmarks"),
    "right_hand": ("right_hand_landmarks", "rightHandLandmarks"),
}
_CANVAS_KEYS = (
    ("canvas_width", "canvas_height"), ("width", "height"), ("image_width", "image_height"),
)  # fmt: skip

_DEEPEST = 4

EXPECTED = (
    "expected POSE_KEYPOINT: a list of frames, each with 'canvas_width', 'canvas_height' and "
    "'people', or the JSON of OpenPose, COCO, MediaPipe or MMPose, or a DeepFashion annotation"
)


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame as read.

    `canvas` is None where the file does not tell. `fractions` says whether coordinates are
    fractions of the canvas, and is None where only the numbers can tell.
    """

    canvas: Canvas | None
    people: list[Parts]
    fractions: bool | None = None


def read_frames(obj: Any, canvas: Canvas | None = None, depth: int = 0) -> Iterator[Frame]:
    """The frames in whatever wraps them: JSON or annotation text, lists, data sets, results.

    `canvas` is what the caller knows of frames that do not tell. Raises PoseError.
    """
    if depth > _DEEPEST:
        raise PoseError(f"Got lists nested {depth} deep, {EXPECTED}.")
    if isinstance(obj, (str, bytes)):
        yield from _text_frames(obj, canvas, depth)
    elif isinstance(obj, Mapping):
        yield from _mapping_frames(obj, canvas, depth)
    elif isinstance(obj, (list, tuple)) or (isinstance(obj, np.ndarray) and obj.ndim > 0):
        yield from _list_frames(obj, canvas, depth)
    else:
        raise PoseError(f"Got {describe(obj)} as a pose, {EXPECTED}.")


def _text_frames(text: str | bytes, canvas: Canvas | None, depth: int) -> Iterator[Frame]:
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        text = text.lstrip("\ufeff")
        if is_annotation(text):
            for size, points in read_annotation(text, canvas):
                yield Frame(size, [split(points)], fractions=None if size is None else False)
            return
        obj = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, PoseError):
            raise
        raise PoseError(
            f"The pose is text but not JSON ({error}), {EXPECTED}. Check that the whole "
            "file or text was copied."
        ) from error
    yield from read_frames(obj, canvas, depth + 1)


def _mapping_frames(obj: Mapping[str, Any], canvas: Canvas | None, depth: int) -> Iterator[Frame]:
    if "annotations" in obj:
        yield from _coco_frames(obj["annotations"], obj.get("images", []))
    elif "instance_info" in obj:
        yield from _mmpose_frames(obj["instance_info"])
    elif "people" in obj:
        people = obj["people"]
        people = [] if people is None else [people] if isinstance(people, Mapping) else people
        yield Frame(_read_canvas(obj), _read_people(people))
    elif any(key in obj for key in _LANDMARKS):
        yield _mediapipe_frame(obj)
    elif _is_person(obj):
        keypoints = obj.get(_COCO_KEYS["body"])
        people = read_bare_points(keypoints) if nesting(keypoints) == 3 else None
        if people is None:
            yield Frame(_read_canvas(obj), [_read_person(obj)])
        else:  # an editor's, with everybody under one key
            yield Frame(_read_canvas(obj), [split(points) for points in people])
    else:
        raise PoseError(
            f"Got an object with {_describe_keys(obj)} as a frame of a pose, {EXPECTED}."
        )


def _list_frames(items: Any, canvas: Canvas | None, depth: int) -> Iterator[Frame]:
    people = read_bare_points(items)
    if people is not None:
        fractions = _are_fractions(people) if people[0].shape[0] == 33 else None
        yield Frame(None, [split(points) for points in people], fractions)
    elif is_objects(items):
        yield _mediapipe_frame({"landmarks": items})
    elif len(items) and all(isinstance(item, Mapping) and "image_id" in item for item in items):
        yield from _coco_frames(items, [])
    elif len(items) and all(isinstance(item, Mapping) and _is_bare_person(item) for item in items):
        yield Frame(None, _read_people(items))
    else:
        for item in items:
            yield from read_frames(item, canvas, depth + 1)


def _coco_frames(annotations: Any, images: Any) -> Iterator[Frame]:
    """One frame per picture that has an entry; annotations belong to pictures by `image_id`."""
    if not _all_mappings(annotations) or not _all_mappings(images):
        raise PoseError(
            "Got COCO keypoints whose 'annotations' or 'images' are no lists of objects, "
            f"{EXPECTED}."
        )
    sizes: dict[str, Canvas | None] = {}
    people: dict[str, list[Mapping[str, Any]]] = {}
    for image in images:
        sizes[_identity(image.get("id"))] = _read_canvas(image)
    for annotation in annotations:
        people.setdefault(_identity(annotation.get("image_id")), []).append(annotation)
    for name in sizes | people:
        yield Frame(sizes.get(name), _read_people(people.get(name, [])))


def _identity(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # Python prints no integer of thousands of digits
        return str(id(value))


def _mmpose_frames(instances: Any) -> Iterator[Frame]:
    """The result file of MMPose: people of one picture, or of each frame under 'instances'."""
    if not _all_mappings(instances):
        raise PoseError(f"Got {describe(instances)} as MMPose's 'instance_info', {EXPECTED}.")
    if all("instances" in frame for frame in instances):
        for frame in instances:
            yield Frame(None, _read_people(frame["instances"]))
    else:
        yield Frame(None, _read_people(instances))


def _mediapipe_frame(obj: Mapping[str, Any]) -> Frame:
    """MediaPipe's result for a picture. Its hands are OpenPose's; its face has no counterpart."""
    landmarks = next(obj[key] for key in _LANDMARKS if key in obj)
    people = []
    for body in _landmark_lists(landmarks):
        points = read_points(body, "landmarks")
        if points is not None:
            people.append(split(points))
    if len(people) == 1:
        for part, keys in _HAND_LANDMARKS.items():
            for hand in _landmark_lists(next((obj[key] for key in keys if key in obj), None)):
                # MediaPipe says 0 for the visibility of hands, which it does not estimate.
                bare = [{"x": point["x"], "y": point["y"]} for point in hand]
                points = read_points(bare, keys[0])
                if points is not None:
                    people[0][part] = _checked(part, points)
    arrays = [points for parts in people for points in parts.values()]
    return Frame(_read_canvas(obj), people, fractions=_are_fractions(arrays))


def _landmark_lists(value: Any) -> list[Any]:
    """The lists of landmarks in a list, in a list of lists, or under 'landmark'; none in None."""
    if isinstance(value, Mapping):
        value = value.get("landmark")
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return []
    if is_objects(value):
        return [value]
    if isinstance(value, (list, tuple)) and all(is_objects(item) for item in value):
        return list(value)
    raise PoseError(
        f"Got {describe(value)} as MediaPipe's landmarks, expected a list of objects with x, y "
        "and visibility."
    )


def _are_fractions(people: list[Points]) -> bool | None:
    """Whether most coordinates are, as MediaPipe's; it guesses hidden points far outside."""
    present = [points[points[:, 2] > 0, :2].ravel() for points in people]
    coordinates = np.concatenate([np.zeros(0), *present])
    return bool(np.median(np.abs(coordinates)) <= 2) if coordinates.size else None


def _read_people(people: Any) -> list[Parts]:
    if not _all_mappings(people):
        raise PoseError(
            f"Got {describe(people)} as the 'people' of a pose, expected a list of objects with "
            f"'{KEYS['body']}' and further parts."
        )
    return [_read_person(person) for person in people]


def _is_person(entry: Mapping[str, Any]) -> bool:
    return any(key in entry for key in _PERSON_KEYS)


def _is_bare_person(entry: Mapping[str, Any]) -> bool:
    """A person that is no frame of its own, for it has no canvas."""
    names = {key for pair in _CANVAS_KEYS for key in pair} | {"people"}
    return _is_person(entry) and not any(name in entry for name in names)


def _read_person(entry: Mapping[str, Any]) -> Parts:
    if not _is_person(entry):
        raise PoseError(
            f"Got a person with {_describe_keys(entry)}, expected '{KEYS['body']}' or COCO's "
            f"'{_COCO_KEYS['body']}'."
        )
    read: dict[str, Points | None] = {}
    for part in KEYS:
        read[part] = read_points(entry.get(KEYS[part]), KEYS[part])
        if read[part] is None:
            scores = entry.get("keypoint_scores") if part == "body" else None
            read[part] = read_points(entry.get(_COCO_KEYS[part]), _COCO_KEYS[part], scores)
    body = read.pop("body")
    parts = split(np.zeros((PART_POINTS["body"], 3)) if body is None else body)
    parts |= {part: _checked(part, points) for part, points in read.items() if points is not None}
    return parts


def _checked(part: str, points: Points) -> Points:
    if part == "face":
        points = complete_face(points)
    if len(points) != PART_POINTS[part]:
        raise wrong_count(part, len(points))
    return points


def _read_canvas(frame: Mapping[str, Any]) -> Canvas | None:
    for keys in _CANVAS_KEYS:
        sizes = [frame.get(key) for key in keys]
        if all(size is None for size in sizes):
            continue
        try:
            width, height = (round(float(size)) for size in sizes)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            width = height = 0
        if not (1 <= width <= FAR and 1 <= height <= FAR):
            raise PoseError(
                f"Got a pose's canvas of {describe(sizes[0])} x {describe(sizes[1])}, expected "
                f"'{keys[0]}' and '{keys[1]}' as numbers of pixels."
            )
        return width, height
    return None


def _all_mappings(items: Any) -> bool:
    return isinstance(items, (list, tuple)) and all(isinstance(item, Mapping) for item in items)


def _describe_keys(entry: Mapping[str, Any]) -> str:
    names = ", ".join(describe(key) for key in list(entry)[:6])
    return f"the keys {names}" if names else "no keys"
