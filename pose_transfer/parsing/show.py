# SPDX-License-Identifier: GPL-3.0-or-later
"""A parsing for people: in colours and in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..types import Parsing
from .labels import LABELS, to_taxonomy

# One RGB colour for each label: neighbours on a body differ in hue, parts of one region less.
PALETTE = {
    "background": (0, 0, 0),
    "hair": (130, 70, 30),
    "face": (255, 190, 150),
    "upper": (225, 60, 60),
    "lower": (60, 110, 225),
    "arms": (245, 225, 120),
    "legs": (205, 175, 60),
    "shoes": (150, 60, 190),
    "dress": (235, 90, 170),
    "torso": (255, 245, 190),
    "hat": (0, 130, 110),
    "glasses": (90, 240, 240),
    "belt": (30, 40, 130),
    "socks": (200, 150, 235),
    "gloves": (110, 150, 60),
    "bag": (60, 190, 80),
    "scarf": (245, 140, 30),
}
_COLOURS = np.array([PALETTE[name] for name in LABELS], np.uint8)


def palette_picture(parsing: Parsing) -> NDArray[np.uint8]:
    """Every label in its colour of `PALETTE`: uint8 (B, H, W, 3). Raises ParsingError."""
    return _COLOURS[to_taxonomy(parsing.labels, parsing.names).labels]


def describe(parsing: Parsing) -> str:
    """The labels that occur and the share of all pixels that each has, the largest first."""
    labels = to_taxonomy(parsing.labels, parsing.names).labels
    shares = np.bincount(labels.ravel(), minlength=len(LABELS)) / labels.size
    order = [i for i in np.argsort(-shares) if shares[i] > 0]
    return ", ".join(f"{LABELS[i]} {shares[i]:.1%}" for i in order)
