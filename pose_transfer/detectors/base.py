# SPDX-License-Identifier: GPL-3.0-or-later
"""What a detector of poses, garments or faces offers, whatever network is behind it.

Pictures are uint8 (H, W, 3) RGB arrays, coordinates pixels of that picture with the origin in its
top left corner. `name` is what an artist chose, `provider` what the network really runs on: an
onnxruntime provider such as "CPUExecutionProvider", or a torch device such as "cuda". Both are
shown, so that a detector which fell back to the CPU does not stay unnoticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import Box, Person

Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Face:
    """One face.

    `box` in px; `points` (5, 2) float32 px: the eye, the eye, the nose, the mouth corner, the mouth
    corner, of each pair the one further left in the picture first; `raw` (512,) float32, the
    encoder's embedding before it is normalised.
    """

    box: Box
    points: NDArray[np.float32]
    raw: NDArray[np.float32]


class PoseDetector(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def provider(self) -> str: ...

    def detect(
        self, picture: Picture, boxes: Sequence[Box] | None = None
    ) -> list[tuple[Person, Box]]:
        """The people in a picture, each with the box around them, whose score is the detection's.

        With `boxes`, only people within these are looked for; None looks everywhere, an empty
        sequence finds nobody. No order is promised.
        """
        ...


class PersonParser(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def provider(self) -> str: ...

    def parse(self, picture: Picture) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """The label of each pixel, (H, W) uint8, and the names that the labels index."""
        ...


class FaceEncoder(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def provider(self) -> str: ...

    def faces(self, picture: Picture) -> list[Face]:
        """The faces in a picture, in no promised order."""
        ...
