# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a person into a picture: cut out, coloured like another, placed, pasted."""

from .colour import lab_to_rgb, match_colours, rgb_to_lab
from .composite import (
    COLOUR_MATCHES,
    PLACEMENTS,
    ColourMatch,
    Composite,
    ParsedPicture,
    Placement,
    composite,
    cut_out,
)
from .placing import contain, onto, stand_in

__all__ = [
    "COLOUR_MATCHES",
    "PLACEMENTS",
    "ColourMatch",
    "Composite",
    "ParsedPicture",
    "Placement",
    "composite",
    "contain",
    "cut_out",
    "lab_to_rgb",
    "match_colours",
    "onto",
    "rgb_to_lab",
    "stand_in",
]
