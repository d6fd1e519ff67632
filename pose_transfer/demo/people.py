# SPDX-License-Identifier: GPL-3.0-or-later
"""Mannequins in a picture: where they are, how they stand, what each pixel of them is.

The person network sees the whole picture once or twice, reduced, and says where people are; then it
sees a window around each of them at its own scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..types import Box, Person
from .architecture import IMAGE_SIZE
from .network_files import load_network
from .person_net import (
    BOX_UNIT,
    CENTRE_STRIDE,
    MULTIPLE,
    PersonMaps,
    PersonNet,
    build_person_net,
    joint_places,
    mirrored_mean,
)
from .windows import Window, as_pixels

Picture = NDArray[np.uint8]

_LONG_SIDES = (256, 512)
"""Longer side of the reduced whole pictures; the second only where the picture has so much."""
_SMALL, _LARGE = 0.16, 0.62
"""Share of the longer side below which only the second look counts, and above which the first."""
_SCORE = 0.3
"""Least score of a person."""
_OVERLAP, _WITHIN = 0.55, 0.75
"""Boxes that share more than this are of one person, and one that has more of it within another:
the half of somebody near the camera may look like a smaller person."""
_PRESENT = 0.5
_FEWEST_JOINTS = 3
_MARGIN = 1.15
_REACH = 1.6
"""How far around its box a person may reach, at most: a hand outside of it, for example."""
_SNAP = 1.16
_AT_ONCE = 8
"""Windows in one pass."""


@dataclass(frozen=True, eq=False)
class PersonNetwork:
    """The person network with all that turns its maps into people."""

    net: PersonNet

    @torch.no_grad()
    def find(self, picture: Picture) -> list[Box]:
        """Boxes around the people in (H, W, 3), the likeliest first; the score is 0..1.

        People less than a tenth of the longer side in height are missed.
        """
        long_side = max(picture.shape[:2])
        coarse, fine = _LONG_SIDES
        found = self._look(picture, coarse / long_side)
        if long_side > 1.25 * coarse:
            found = [box for box in found if _side(box) >= _SMALL * long_side]
            large = [box for box in found if _side(box) > _LARGE * long_side]
            found += [
                box
                for box in self._look(picture, fine / long_side)
                if _side(box) <= _LARGE * long_side
                # Of somebody so near the second look sees parts, and takes them for people.
                and all(shared_area(box, other) <= _WITHIN * box.area for other in large)
            ]
        return _distinct(found)

    def _look(self, picture: Picture, scale: float) -> list[Box]:
        height, width = picture.shape[:2]
        window = _whole(picture, scale)
        maps: PersonMaps = self.net(as_pixels(window.cut(picture)[None]))
        score = maps.centre[0].sigmoid()
        peaks = score == F.max_pool2d(score[None], 3, stride=1, padding=1)[0]
        boxes = []
        for row, column in ((score > _SCORE) & peaks).nonzero().tolist():
            x, y = (column + 0.5) * CENTRE_STRIDE, (row + 0.5) * CENTRE_STRIDE
            left, top, right, bottom = (maps.box[0, :, row, column] * BOX_UNIT).tolist()
            box = Box(
                (x - left) / scale, (y - top) / scale, (left + right) / scale,
                (top + bottom) / scale, float(score[row, column]),
            )  # fmt: skip
            box = box.clipped(width, height)
            if box.area > 0:
                boxes.append(box)
        return boxes

    def people(self, picture: Picture, boxes: Sequence[Box]) -> list[tuple[Person, Box]]:
        """The person in each of `boxes`, if there is one."""
        height, width = picture.shape[:2]
        out = []
        for box, window, maps in self._windows(picture, boxes):
            places, presence = joint_places(maps.heat, maps.present)
            points = window.to_picture(places[0].numpy())
            share = presence[0].numpy()
            inside = (points >= 0).all(1) & (points[:, 0] <= width) & (points[:, 1] <= height)
            here = (share >= _PRESENT) & inside
            if here.sum() >= _FEWEST_JOINTS:
                body = np.concatenate([points, share[:, None]], axis=1)
                out.append(
                    (Person(body=np.where(here[:, None], body, 0.0)), _holding(box, points[here]))
                )
        return out

    def labels(self, picture: Picture, boxes: Sequence[Box]) -> NDArray[np.uint8]:
        """What each pixel of (H, W, 3) shows, (H, W) uint8; background far from all `boxes`.

        Where windows overlap, the one whose middle is nearer decides.
        """
        height, width = picture.shape[:2]
        labels = np.zeros((height, width), np.uint8)
        nearest = np.full((height, width), np.inf, np.float32)
        for _, window, maps in self._windows(picture, boxes):
            rows, columns = window.pixels(height, width)
            here = window.on_pixels(maps.parsing[0], rows, columns).argmax(0).byte().numpy()
            y = (np.arange(rows.start, rows.stop) - window.top) * window.scale / window.rows
            x = (np.arange(columns.start, columns.stop) - window.left) * window.scale
            away = np.maximum(abs(y - 0.5)[:, None], abs(x / window.columns - 0.5))
            closer = away < nearest[rows, columns]
            nearest[rows, columns][closer] = away[closer]
            labels[rows, columns][closer] = here[closer]
        if np.isinf(nearest).any():
            self._fill_coarsely(picture, boxes, labels, np.isinf(nearest))
        return labels

    def _fill_coarsely(
        self,
        picture: Picture,
        boxes: Sequence[Box],
        labels: NDArray[np.uint8],
        free: NDArray[np.bool_],
    ) -> None:
        """Label what reaches out of a person's window, from a look at the whole picture."""
        height, width = picture.shape[:2]
        window = _whole(picture, _LONG_SIDES[0] / max(height, width))
        with torch.no_grad():
            parsing = self.net(as_pixels(window.cut(picture)[None])).parsing[0]
        for box in boxes:
            near = box.grown(_REACH).clipped(width, height)
            rows = slice(int(near.y), int(near.y + near.height))
            columns = slice(int(near.x), int(near.x + near.width))
            coarse = window.on_pixels(parsing, rows, columns).argmax(0).byte().numpy()
            here = free[rows, columns]
            labels[rows, columns][here] = coarse[here]

    @torch.no_grad()
    def _windows(
        self, picture: Picture, boxes: Sequence[Box]
    ) -> Iterator[tuple[Box, Window, PersonMaps]]:
        for start in range(0, len(boxes), _AT_ONCE):
            group = boxes[start : start + _AT_ONCE]
            windows = [Window.around(box, *IMAGE_SIZE, _MARGIN, _SNAP) for box in group]
            pixels = as_pixels(np.stack([window.cut(picture) for window in windows]))
            maps = mirrored_mean(self.net, pixels)
            for index, (box, window) in enumerate(zip(group, windows, strict=True)):
                one = slice(index, index + 1)
                yield (
                    box,
                    window,
                    PersonMaps(
                        maps.parsing[one], maps.heat[one], maps.present[one], maps.centre[one],
                        maps.box[one], maps.facing[one],
                        maps.places[one],
                    ),
                )  # fmt: skip


def _whole(picture: Picture, scale: float) -> Window:
    """The window on all of a picture, at a size that the network takes."""
    rows, columns = (-(-round(n * scale) // MULTIPLE) * MULTIPLE for n in picture.shape[:2])
    return Window(0.0, 0.0, scale, max(rows, MULTIPLE), max(columns, MULTIPLE))


def _holding(box: Box, points: NDArray[np.float32]) -> Box:
    """`box`, made larger where `points` (N, 2) lie outside of it."""
    left, top = (float(v) for v in np.minimum(points.min(0), (box.x, box.y)))
    right, bottom = points.max(0).tolist()
    return Box(
        left,
        top,
        max(right, box.x + box.width) - left,
        max(bottom, box.y + box.height) - top,
        box.score,
    )


def _side(box: Box) -> float:
    return max(box.width, box.height)


def _distinct(boxes: Sequence[Box]) -> list[Box]:
    """Non-maximum suppression."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda b: -b.score):
        if all(
            overlap(box, other) <= _OVERLAP and shared_area(box, other) <= _WITHIN * box.area
            for other in kept
        ):
            kept.append(box)
    return kept


def shared_area(a: Box, b: Box) -> float:
    """In square pixels."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(width, 0.0) * max(height, 0.0)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    shared = shared_area(a, b)
    return shared / (a.area + b.area - shared) if shared else 0.0


def load_person_network(path: Path) -> PersonNetwork:
    """Raises CheckpointError for a file that is missing, damaged or another."""
    return PersonNetwork(load_network(path, build_person_net))
