# SPDX-License-Identifier: GPL-3.0-or-later
"""Poses: reading, writing, drawing, retargeting."""

from .draw import STYLES, Style, draw, first_person, require_person
from .keypoints import read_keypoints, write_keypoints
from .overlay import overlay
from .retarget import HANDS, POSITIONS, SCALES, Hands, Position, Scale, retarget
from .skeleton import BODY_NAMES, COLOURS, LIMBS

__all__ = [
    "BODY_NAMES",
    "COLOURS",
    "HANDS",
    "LIMBS",
    "POSITIONS",
    "SCALES",
    "STYLES",
    "Hands",
    "Position",
    "Scale",
    "Style",
    "draw",
    "first_person",
    "overlay",
    "read_keypoints",
    "require_person",
    "retarget",
    "write_keypoints",
]
