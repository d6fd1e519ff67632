# SPDX-License-Identifier: GPL-3.0-or-later
"""The mannequin world: procedural people with exact pose, parsing and captions."""

from ..demo.names import HELD_OUT_PATTERNS, LABELS, PATTERNS
from .dataset import Pair, pair_seeds, pairs, split_seeds
from .identity import (
    Garment,
    Identity,
    sample_identity,
    with_upper_pattern,
)
from .posing import BodyPose, sample_pose
from .renderer import Rendering, Sample, render, render_figure

__all__ = [
    "HELD_OUT_PATTERNS",
    "LABELS",
    "PATTERNS",
    "BodyPose",
    "Garment",
    "Identity",
    "Pair",
    "Rendering",
    "Sample",
    "pair_seeds",
    "pairs",
    "render",
    "render_figure",
    "sample_identity",
    "sample_pose",
    "split_seeds",
    "with_upper_pattern",
]
