# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenPose's body, hand and face networks, through the package controlnet_aux.

That package has the networks and what turns their heat maps into points; reading the released
weights (weights only, from a local file) and turning points into `Person` is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import MissingDependencyError
from ..types import PART_POINTS, Box, Person
from ..weights import load_into, read_weights
from .base import Picture
from .views import detect_within

# The package scales a picture by its height alone: a strip would become as long as it likes.
_SMALLEST_SIDE = 16
_LARGEST_ASPECT = 16
_PERSON_MARGIN = 1.2
_LEAST_FACE_HEAT = 0.05  # as the package's own


class OpenPose:
    """Several people at once, with hands and face where their networks are given.

    The three arguments are objects of controlnet_aux: its Body, Hand and Face. `networks` holds
    their modules, to be moved to the device that shall run them. Hands come without confidences
    from the package; every hand point that it finds has 1.
    """

    name = "OpenPose"

    def __init__(self, body: Any, hand: Any | None = None, face: Any | None = None) -> None:
        self._body, self._hand, self._face = body, hand, face
        self.networks = nn.ModuleList([e.model for e in (body, hand, face) if e is not None])

    @property
    def provider(self) -> str:
        return str(next(self.networks.parameters()).device)

    def detect(
        self, picture: Picture, boxes: Sequence[Box] | None = None
    ) -> list[tuple[Person, Box]]:
        return detect_within(self._detect, picture, boxes)

    def _detect(self, picture: Picture) -> list[tuple[Person, Box]]:
        height, width = picture.shape[:2]
        short, long = sorted((height, width))
        if short < _SMALLEST_SIDE or long > _LARGEST_ASPECT * short:
            return []
        bgr = np.ascontiguousarray(picture[:, :, ::-1])
        found = []
        for body in self._body.format_body_result(*self._body(bgr)):
            points = np.zeros((PART_POINTS["body"], 3), dtype=np.float32)
            for row, point in enumerate(body.keypoints):
                if point is not None:
                    points[row] = point.x, point.y, min(max(point.score, 0.0), 1.0)
            if not points[:, 2].any():
                continue
            left, right = self._hands(bgr, body)
            person = Person(points, left, right, self._face_points(bgr, body))
            found.append((person, _box_around(person).clipped(width, height)))
        return found

    def _hands(
        self, bgr: Picture, body: Any
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        if self._hand is None:
            return None, None
        from controlnet_aux.open_pose import util

        hands: dict[bool, NDArray[np.float32]] = {}
        for x, y, side, is_left in util.handDetect(body, bgr):
            peaks = np.asarray(self._hand(bgr[y : y + side, x : x + side]), dtype=np.float32)
            # The package writes (0, 0) where it found nothing.
            seen = peaks.any(axis=1, keepdims=True)
            if seen.any():
                points = np.ones((len(peaks), 3), dtype=np.float32)
                points[:, :2] = peaks + np.array([x, y], dtype=np.float32)
                hands[is_left] = np.where(seen, points, 0)
        return hands.get(True), hands.get(False)

    def _face_points(self, bgr: Picture, body: Any) -> NDArray[np.float32] | None:
        if self._face is None:
            return None
        from controlnet_aux.open_pose import util

        square = util.faceDetect(body, bgr)
        if square is None:
            return None
        x, y, side = square
        # Not the package's own peaks: those leave a point out without saying which. The last map
        # is the background.
        heat = self._face(bgr[y : y + side, x : x + side])[: PART_POINTS["face"]]
        flat = heat.reshape(len(heat), -1)
        row, column = np.divmod(flat.argmax(axis=1), heat.shape[2])
        confidence = flat.max(axis=1).clip(0, 1)
        points = np.stack([column + x, row + y, confidence], axis=1).astype(np.float32)
        points[confidence <= _LEAST_FACE_HEAT] = 0
        return points if points.any() else None


def load_openpose(
    body: str | Path, hand: str | Path | None = None, face: str | Path | None = None
) -> OpenPose:
    """From body_pose_model.pth, hand_pose_model.pth and facenet.pth; the last two as needed.

    Raises MissingDependencyError without controlnet_aux, CheckpointError for other files.
    """
    try:
        from controlnet_aux.open_pose import Body, Face, Hand
        from controlnet_aux.open_pose.face import FaceNet
        from controlnet_aux.open_pose.model import bodypose_model, handpose_model
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenPose needs the package controlnet_aux, which cannot be imported ({error}). "
            "Install it into ComfyUI's Python with 'pip install controlnet_aux', "
            "restart ComfyUI, or choose another detector."
        ) from error
    return OpenPose(
        _with_weights(Body, bodypose_model, body),
        None if hand is None else _with_weights(Hand, handpose_model, hand),
        None if face is None else _with_weights(Face, FaceNet, face),
    )


def _with_weights(kind: type, build: Callable[[], nn.Module], path: str | Path) -> Any:
    """One of controlnet_aux's estimators around a network with the weights of a file.

    The estimator's own constructor only loads the file, with torch.load's defaults, which on torch
    before 2.6 run whatever code a file holds; so it is left out.
    """
    tensors = read_weights(path).tensors
    with torch.device("meta"):
        network = build()
    # The released files name a layer without the block that it lies in.
    short = {name.split(".", 1)[1]: name for name in network.state_dict() if name.count(".") == 2}
    load_into(network, {short.get(name, name): x for name, x in tensors.items()}, str(path))
    estimator = object.__new__(kind)
    estimator.model = network.eval().requires_grad_(False)
    return estimator


def _box_around(person: Person) -> Box:
    parts = (person.body, person.left_hand, person.right_hand, person.face)
    points = np.concatenate([part[part[:, 2] > 0] for part in parts if part is not None])
    score = float(person.body[person.body[:, 2] > 0, 2].mean())
    (x, y), (right, bottom) = points[:, :2].min(axis=0).tolist(), points[:, :2].max(axis=0).tolist()
    return Box(x, y, right - x, bottom - y, score).grown(_PERSON_MARGIN)
