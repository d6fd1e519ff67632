# SPDX-License-Identifier: GPL-3.0-or-later
"""The regions of a person that masks and TruePose's attention are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..types import Box, Parsing
from .labels import LABELS, to_taxonomy

# Every label lies in exactly one part: a sum over weighted parts counts no pixel twice.
PARTS: dict[str, tuple[str, ...]] = {
    "face": ("face", "glasses"),
    "hair": ("hair",),
    "upper": ("upper",),
    "lower": ("lower", "belt"),
    "dress": ("dress",),
    "shoes": ("shoes", "socks"),
    "skin": ("arms", "legs", "torso"),  # bare skin without the face
    "accessories": ("hat", "gloves", "bag", "scarf"),
    "background": ("background",),
}
PERSON = "person"
# What a mask can be made of; the person is every part but the background.
REGIONS: dict[str, tuple[str, ...]] = {
    **PARTS,
    PERSON: tuple(name for name in LABELS if name != "background"),
}


def region_mask(
    parsing: Parsing, regions: Sequence[str], grow_px: float = 0.0, feather_px: float = 0.0
) -> NDArray[np.float32]:
    """Where any of the regions is: (B, H, W) float32 in [0, 1].

    The edge is moved outwards by `grow_px` (inwards where it is negative) and becomes a linear ramp
    that is `feather_px` wide, half of it to either side. Distances are Euclidean, from the line
    between the pixels of the region and its neighbours; the border of the picture is no edge.
    Raises ParsingError for a parsing of unknown labels, ValueError for an unknown region.
    """
    unknown = [name for name in regions if name not in REGIONS]
    if unknown or not regions:
        raise ValueError(f"Got the regions {list(regions)}, expected some of {list(REGIONS)}.")
    parsing = to_taxonomy(parsing.labels, parsing.names)
    wanted = [LABELS.index(label) for region in regions for label in REGIONS[region]]
    inside = np.isin(parsing.labels, wanted)
    if grow_px == 0 and feather_px == 0:
        return inside.astype(np.float32)
    return np.stack([_with_edge(one, grow_px, feather_px) for one in inside])


def person_box(mask: NDArray[np.float32]) -> Box | None:
    """The smallest box around what a mask (H, W) shows more than half; None where that is nothing.

    In px of the mask, whole pixels.
    """
    found = _bounds(mask > 0.5)
    if found is None:
        return None
    rows, columns = found
    return Box(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)


def _with_edge(inside: NDArray[np.bool_], grow_px: float, feather_px: float) -> NDArray[np.float32]:
    mask = inside.astype(np.float32)
    found = _bounds(inside)
    if found is None or inside.all():
        return mask
    from scipy.ndimage import distance_transform_edt  # takes a second to import

    # All that can change, and one more pixel, so that the nearest pixel beyond the edge is there.
    margin = int(max(grow_px, 0) + feather_px) + 2
    part = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in found)
    # From pixel to pixel, so half a pixel further than from the edge between them.
    beyond = np.where(
        inside[part],
        0.5 - np.asarray(distance_transform_edt(inside[part])),
        np.asarray(distance_transform_edt(~inside[part])) - 0.5,
    )
    if feather_px == 0:
        mask[part] = beyond < grow_px
    else:
        mask[part] = np.clip((grow_px - beyond) / feather_px + 0.5, 0.0, 1.0)
    return mask


def _bounds(inside: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Rows and columns that hold anything."""
    if not inside.any():
        return None
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
