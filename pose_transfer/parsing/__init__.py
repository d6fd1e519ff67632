# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pixel of a person is what: one set of labels for all parsers, regions, masks, colours."""

from .labels import ATR_LABELS, CIHP_LABELS, LABELS, LIP_LABELS, to_taxonomy
from .regions import PARTS, PERSON, REGIONS, person_box, region_mask
from .show import PALETTE, describe, palette_picture

__all__ = [
    "ATR_LABELS",
    "CIHP_LABELS",
    "LABELS",
    "LIP_LABELS",
    "PALETTE",
    "PARTS",
    "PERSON",
    "REGIONS",
    "describe",
    "palette_picture",
    "person_box",
    "region_mask",
    "to_taxonomy",
]
