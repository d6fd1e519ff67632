# SPDX-License-Identifier: GPL-3.0-or-later
"""DWPose: YOLOX finds the people, a SimCC network their 133 points. onnxruntime and NumPy only.

Numbers as in the released inference code (IDEA-Research/DWPose, branch onnx): person score 0.3,
overlap 0.45, 25 % of margin around a person, point confidence 0.3. YOLOX takes BGR levels 0..255,
the pose network RGB with ImageNet's mean and deviation (its training settings: bgr_to_rgb).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..pose.layouts import split
from ..types import Box, Person
from .base import Picture
from .boxes import distinct, lies_in
from .onnx_model import OnnxModel
from .resample import resample
from .views import cut_out, moved_box, on_picture

LEAST_PERSON_SCORE = 0.3
OVERLAP = 0.45
LEAST_CONFIDENCE = 0.3
POINTS = 133
MARGIN = 1.25

_STRIDES = (8, 16, 32)
_PADDING = 114.0
_MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
_DEVIATION = np.array([58.395, 57.12, 57.375], dtype=np.float32)


class DWPose:
    """People with body, hands, face and feet."""

    name = "DWPose"

    def __init__(self, finder: YoloX, estimator: SimccPose) -> None:
        self._finder = finder
        self._estimator = estimator

    @property
    def provider(self) -> str:
        finder, estimator = self._finder.model.provider, self._estimator.model.provider
        return finder if finder == estimator else f"{finder} and {estimator}"

    def detect(
        self, picture: Picture, boxes: Sequence[Box] | None = None
    ) -> list[tuple[Person, Box]]:
        """As in `PoseDetector`. A given box in which YOLOX sees nobody counts as a person's own:
        the pose network then decides by its confidence whether somebody is there.
        """
        height, width = picture.shape[:2]
        people = []
        for box in self._candidates(picture, boxes):
            if not box.clipped(width, height).area:
                continue
            points = self._estimator.estimate(picture, box)
            if points.any():
                people.append((_person(points), box.clipped(width, height)))
        return people

    def _candidates(self, picture: Picture, boxes: Sequence[Box] | None) -> list[Box]:
        if boxes is None:
            return self._finder.find(picture)
        boxes = on_picture(boxes, picture)
        if not boxes:
            return []
        cut, x, y = cut_out(picture, boxes)
        found = [moved_box(box, x, y) for box in self._finder.find(cut)]
        inside = [box for box in found if lies_in(box, boxes)]
        return inside + [box for box in boxes if not any(lies_in(f, [box]) for f in inside)]


def load_dwpose(finder_path: str | Path, estimator_path: str | Path) -> DWPose:
    """From yolox_l.onnx and dw-ll_ucoco_384.onnx, or others of the same layout.

    Raises CheckpointError for other files, MissingDependencyError without onnxruntime.
    """
    return DWPose(YoloX(OnnxModel(finder_path)), SimccPose(OnnxModel(estimator_path)))


class YoloX:
    """Finds people. The network gives, for every cell of three grids, a box and 80 classes."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        height, width = model.picture_size
        corners, strides = [], []
        for stride in _STRIDES:
            y, x = np.mgrid[: height // stride, : width // stride]
            corners.append(np.stack([x, y], axis=-1).reshape(-1, 2))
            strides.append(np.full(x.size, stride))
        self._cells = np.concatenate(corners).astype(np.float32)
        self._strides = np.concatenate(strides).astype(np.float32)[:, None]

    def find(self, picture: Picture) -> list[Box]:
        """People in a picture (H, W, 3) RGB, best first. Boxes may reach beyond the picture."""
        batch, scale = self._letterbox(picture)
        rows = self.model.run(batch)[0]
        if rows.ndim != 3 or rows.shape[1] != len(self._cells) or rows.shape[2] < 6:
            raise CheckpointError(
                f"{self.model.path} puts out {rows.shape}, expected (1, {len(self._cells)}, 85) as "
                "YOLOX does. Use yolox_l.onnx of DWPose."
            )
        scores = rows[0, :, 4] * rows[0, :, 5]  # an object is there, and it is a person
        sure = scores > LEAST_PERSON_SCORE
        row, stride = rows[0, sure], self._strides[sure]
        centres = (row[:, :2] + self._cells[sure]) * stride / scale
        with np.errstate(over="ignore"):
            sizes = np.exp(row[:, 2:4]) * stride / scale
        tops = centres - sizes / 2
        numbers = np.concatenate([tops, sizes, scores[sure, None]], axis=1)
        usable = numbers[np.isfinite(numbers).all(axis=1)]
        return distinct([Box(*values) for values in usable.tolist()], OVERLAP)

    def _letterbox(self, picture: Picture) -> tuple[NDArray[np.float32], float]:
        """(1, 3, h, w) BGR with the picture at its top left, and network px per picture px."""
        (height, width), (h, w) = picture.shape[:2], self.model.picture_size
        scale = min(h / height, w / width)
        inner_h, inner_w = max(1, int(height * scale)), max(1, int(width * scale))
        canvas = np.full((h, w, 3), _PADDING, dtype=np.float32)
        canvas[:inner_h, :inner_w] = np.rint(
            resample(picture, _stretched(inner_w, width), _stretched(inner_h, height))
        )
        return np.ascontiguousarray(canvas[None, :, :, ::-1].transpose(0, 3, 1, 2)), scale


class SimccPose:
    """Finds the 133 points of one person. The network gives, for every point, one curve along each
    axis, with `samples per px` of its input; the point is where the two are highest.
    """

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        model.picture_size  # noqa: B018 (raises for another kind of network)
        if set(model.output_names) != {"simcc_x", "simcc_y"}:
            raise CheckpointError(
                f"{model.path} puts out {', '.join(model.output_names)}, expected simcc_x and "
                "simcc_y. Use dw-ll_ucoco_384.onnx of DWPose."
            )

    def estimate(self, picture: Picture, box: Box) -> NDArray[np.float32]:
        """(133, 3) rows x px, y px, confidence 0..1, of the person in a box.

        A point that is not sure enough is absent: zeros.
        """
        h, w = self.model.picture_size
        crop = _with_aspect(box.grown(MARGIN), w / h)
        scale = crop.width / w  # picture px per network px
        inside = resample(picture, crop.x + np.arange(w) * scale, crop.y + np.arange(h) * scale)
        batch = ((np.rint(inside) - _MEAN) / _DEVIATION)[None].transpose(0, 3, 1, 2)
        outputs = dict(
            zip(self.model.output_names, self.model.run(np.ascontiguousarray(batch)), strict=True)
        )
        along_x, along_y = outputs["simcc_x"], outputs["simcc_y"]
        if along_x.shape[:2] != (1, POINTS) or along_y.shape[:2] != (1, POINTS):
            raise CheckpointError(
                f"{self.model.path} finds {along_x.shape[1:2]} points, expected {POINTS} "
                "(COCO-WholeBody). Use dw-ll_ucoco_384.onnx of DWPose."
            )
        points = np.empty((POINTS, 3), dtype=np.float32)
        points[:, 0] = crop.x + along_x[0].argmax(axis=1) * (crop.width / along_x.shape[2])
        points[:, 1] = crop.y + along_y[0].argmax(axis=1) * (crop.height / along_y.shape[2])
        scores = np.minimum(along_x[0].max(axis=1), along_y[0].max(axis=1))
        points[:, 2] = scores.clip(0, 1)
        return np.where(scores[:, None] >= LEAST_CONFIDENCE, points, 0)


def _person(points: NDArray[np.float32]) -> Person:
    """Of the 133 points of COCO-WholeBody."""
    parts = {k: x.astype(np.float32) for k, x in split(points.astype(np.float64)).items()}
    body = parts.pop("body")
    return Person(body, **{name: part for name, part in parts.items() if part.any()})


def _stretched(size: int, source: int) -> NDArray[np.float64]:
    """Where the centres of `size` pixels lie among `source` ones that fill the same length."""
    return ((np.arange(size) + 0.5) * source / size - 0.5).clip(0, source - 1)


def _with_aspect(box: Box, aspect: float) -> Box:
    """The smallest box of that width by height around the same centre that holds the box."""
    width = max(box.width, box.height * aspect)
    height = width / aspect
    x, y = box.centre
    return Box(x - width / 2, y - height / 2, width, height, box.score)
