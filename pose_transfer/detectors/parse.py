# SPDX-License-Identifier: GPL-3.0-or-later
"""Parsing people: whole pictures, or each person from close by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..parsing import LABELS, to_taxonomy
from ..types import Box
from .base import PersonParser, Picture
from .views import cut_out, on_picture

BACKGROUND = LABELS.index("background")


def parse_within(
    parser: PersonParser, picture: Picture, boxes: Sequence[Box] | None = None
) -> NDArray[np.uint8]:
    """The label of each pixel as an index into `parsing.LABELS`: (H, W) uint8.

    With `boxes`, each is looked at by itself with some of its surroundings, which shows a small
    person in more detail; the rest of the picture is background, and where surroundings overlap the
    earlier box wins. Raises ParsingError for a parser of unknown labels.
    """
    if boxes is None:
        return _parse(parser, picture)
    labels = np.full(picture.shape[:2], BACKGROUND, np.uint8)
    for box in on_picture(boxes, picture):
        cut, x, y = cut_out(picture, [box])
        part = labels[y : y + cut.shape[0], x : x + cut.shape[1]]
        np.copyto(part, _parse(parser, cut), where=part == BACKGROUND)
    return labels


def _parse(parser: PersonParser, picture: Picture) -> NDArray[np.uint8]:
    labels, names = parser.parse(picture)
    return to_taxonomy(labels[None], names).labels[0]
