# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the faces in a picture, and what to do where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

import numpy as np

from ..errors import NoFaceError, PoseError
from ..pose.skeleton import BODY_NAMES
from ..types import FaceEmbedding, Person, Pose
from .base import Face

FaceOrder = Literal["largest", "left to right", "nearest to pose"]
OnMissingFace = Literal["error", "skip"]
FACE_ORDERS: tuple[FaceOrder, ...] = get_args(FaceOrder)
NEAREST: FaceOrder = "nearest to pose"
ON_MISSING_FACE: tuple[OnMissingFace, ...] = get_args(OnMissingFace)

_NOSE = 2  # of a face's five points
_NOSE_OF_BODY = BODY_NAMES.index("nose")
_REST_OF_FACE = [
    BODY_NAMES.index(f"{side}_{part}") for part in ("eye", "ear") for side in ("right", "left")
]
# A keypoint belongs to a face if it lies in its box when that is grown so much.
_REACH = 2.0

Point = tuple[float, float]


@dataclass(frozen=True)
class ChosenFace:
    """The face taken in one picture, None for none, and how many the encoder found there."""

    face: Face | None
    seen: int


def order_faces(
    faces: Iterable[Face], order: FaceOrder, keypoint: Point | None = None
) -> list[Face]:
    """Sorted by a rule that does not depend on the order in which an encoder found them.

    "largest": by the area of the box; "left to right": by its centre; "nearest to pose": by the
    distance of the nose from `keypoint` (x, y in px), only faces that reach there, none where it is
    None. Equals are told apart by the other rules.
    """
    if order == NEAREST:
        if keypoint is None:
            return []
        near = [face for face in faces if _reaches(face, keypoint)]
        return sorted(near, key=lambda face: math.dist(face.points[_NOSE], keypoint))

    def key(face: Face) -> tuple[float, ...]:
        (x, y), size = face.box.centre, -face.box.area
        return (size, x, y) if order == "largest" else (x, size, y)

    return sorted(faces, key=key)


def choose_faces(
    pictures: Iterable[Sequence[Face]],
    order: FaceOrder,
    index: int,
    on_missing: OnMissingFace,
    keypoints: Sequence[Point | None] | None = None,
) -> list[ChosenFace]:
    """The face at `index` (from 0) in every picture.

    With "nearest to pose", which needs a keypoint or None for each picture (`face_keypoints`), it
    is the nearest one: there the index counts people of the pose. A picture without that face
    raises NoFaceError at once ("error") or is left without one ("skip").
    """
    place = 0 if order == NEAREST else index
    chosen = []
    for number, faces in enumerate(pictures):
        keypoint = None if keypoints is None else keypoints[number]
        ordered = order_faces(faces, order, keypoint)
        face = ordered[place] if place < len(ordered) else None
        if face is None and on_missing == "error":
            raise NoFaceError(
                f"{_what_is_missing(len(faces), order, index, keypoint)} in picture {number} of "
                "the batch (the first is 0). Use a picture that shows the face larger, sharper or "
                "less turned away, another choice of face, or another encoder; or set on_missing "
                "to 'skip'."
            )
        chosen.append(ChosenFace(face, len(faces)))
    return chosen


def face_keypoints(
    poses: Sequence[Pose], person: int, count: int, height: int, width: int
) -> list[Point | None]:
    """Where the face of the person at that index is in each of `count` pictures, in px of them.

    The nose; without it the middle of what is known of eyes and ears; None without these. One pose
    is for every picture, otherwise there is one for each: else PoseError.
    """
    if len(poses) not in (1, count):
        raise PoseError(
            f"Got a pose of {len(poses)} frames and {count} pictures, expected equally many or a "
            "single frame. Detect the pose in the same batch of pictures."
        )
    places = []
    for pose in [*poses] * (count if len(poses) == 1 else 1):
        at = _place(pose.people[person]) if person < len(pose.people) else None
        places.append(at and (at[0] * width / pose.width, at[1] * height / pose.height))
    return places


def as_embedding(chosen: Sequence[ChosenFace], encoder: str) -> FaceEmbedding:
    """What the encoder of that name said of the chosen faces; zeros where there is none."""
    raw = np.zeros((len(chosen), 512), dtype=np.float32)
    boxes = np.zeros((len(chosen), 4), dtype=np.float32)
    points = np.zeros((len(chosen), 5, 2), dtype=np.float32)
    for row, one in enumerate(chosen):
        if one.face is not None:
            box = one.face.box
            raw[row], points[row] = one.face.raw, one.face.points
            boxes[row] = box.x, box.y, box.width, box.height
    length = np.linalg.norm(raw, axis=1, keepdims=True)
    return FaceEmbedding(
        raw=raw,
        normalised=np.divide(raw, length, out=np.zeros_like(raw), where=length > 0),
        boxes=boxes,
        points=points,
        found=np.array([one.face is not None for one in chosen], dtype=bool),
        encoder=encoder,
    )


def describe_faces(chosen: Sequence[ChosenFace]) -> str:
    """The report: one line for each run of pictures alike."""
    lines, start = [], 0
    for text, run in groupby(_describe(one) for one in chosen):
        end = start + sum(1 for _ in run) - 1
        where = f"picture {start}" if start == end else f"pictures {start} to {end}"
        lines.append(f"{where}: {text}")
        start = end + 1
    return "\n".join(lines)


def _describe(one: ChosenFace) -> str:
    if one.seen == 0:
        return "no face"
    if one.face is None:
        return f"{_count(one.seen)}, none taken"
    size = f"{one.face.box.width:.0f}x{one.face.box.height:.0f} px"
    return f"face of {size}" if one.seen == 1 else f"face of {size}, 1 of {one.seen}"


def _what_is_missing(seen: int, order: FaceOrder, index: int, keypoint: Point | None) -> str:
    if seen == 0:
        return "No face was found"
    if order != NEAREST:
        return f"{_count(seen)} found, so none at index {index},"
    if keypoint is None:
        return f"The pose shows no nose, eye or ear of a person at index {index}"
    return f"{_count(seen)} found, but none at the nose of the pose's person at index {index}"


def _count(faces: int) -> str:
    return "1 face" if faces == 1 else f"{faces} faces"


def _place(person: Person) -> Point | None:
    nose, rest = person.body[_NOSE_OF_BODY], person.body[_REST_OF_FACE]
    known = nose[None] if nose[2] > 0 else rest[rest[:, 2] > 0]
    if not len(known):
        return None
    x, y, _ = known.mean(axis=0).tolist()
    return x, y


def _reaches(face: Face, point: Point) -> bool:
    box = face.box.grown(_REACH)
    return 0 <= point[0] - box.x <= box.width and 0 <= point[1] - box.y <= box.height
