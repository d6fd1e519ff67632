# SPDX-License-Identifier: GPL-3.0-or-later
"""One set of labels for all human parsers, and the way into it from theirs.

Left and right arms, legs and shoes are one label each: no region that the methods use tells them
apart (`regions`), parsers of photos often confuse them, and a pose says which side is which more
reliably. Trousers and skirts are `lower`, coats `upper`, jumpsuits `dress` (one piece from top to
bottom).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ParsingError
from ..types import Parsing

LABELS = (
    # The mannequin world's own, in its order.
    "background", "hair", "face", "upper", "lower", "arms", "legs", "shoes",
    # Only in photos. `torso` is bare skin of neck and trunk; CIHP alone tells it from the rest.
    "dress", "torso", "hat", "glasses", "belt", "socks", "gloves", "bag", "scarf",
)  # fmt: skip

# The label sets of the common data sets, in the order of the channels that networks put out.
# ATR: Liang et al., arXiv 1503.02391; LIP: Gong et al., arXiv 1703.05446; CIHP: Gong et al.,
# arXiv 1808.00157. The orders are those of the released SCHP and of segformer_b2_clothes (ATR).
ATR_LABELS = (
    "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt",
    "Left-shoe", "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag",
    "Scarf",
)  # fmt: skip
LIP_LABELS = (
    "Background", "Hat", "Hair", "Glove", "Sunglasses", "Upper-clothes", "Dress", "Coat", "Socks",
    "Pants", "Jumpsuits", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg",
    "Right-leg", "Left-shoe", "Right-shoe",
)  # fmt: skip
CIHP_LABELS = (
    "Background", "Hat", "Hair", "Glove", "Sunglasses", "UpperClothes", "Dress", "Coat", "Socks",
    "Pants", "Torso-skin", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg",
    "Right-leg", "Left-shoe", "Right-shoe",
)  # fmt: skip

# By names with small letters and hyphens.
_OURS = {
    **{name: name for name in LABELS},
    "sunglasses": "glasses",
    "glove": "gloves",
    "upper-clothes": "upper",
    "upperclothes": "upper",
    "coat": "upper",
    "jumpsuits": "dress",
    "pants": "lower",
    "skirt": "lower",
    "torso-skin": "torso",
    "tosor-skin": "torso",  # as many a copy of CIHP's list has it
    **{f"left-{part}": f"{part}s" for part in ("arm", "leg", "shoe")},
    **{f"right-{part}": f"{part}s" for part in ("arm", "leg", "shoe")},
}


def to_taxonomy(labels: NDArray[np.uint8], names: Sequence[str]) -> Parsing:
    """Label maps of any known parser -> the same with `LABELS`.

    labels (B, H, W) uint8, each value an index into `names`, which are those of ATR, LIP, CIHP, the
    mannequin world or `LABELS` itself, in any order, with any capitals, hyphens or underscores.
    Raises ParsingError for another name, or a label without a name.
    """
    given = [name.lower().replace("_", "-").replace(" ", "-") for name in names]
    unknown = [name for name, key in zip(names, given, strict=True) if key not in _OURS]
    if unknown:
        raise ParsingError(
            f"The parsing has labels that are not known: {', '.join(map(repr, unknown))}. Expected "
            "those of ATR, LIP, CIHP or the mannequin world. Use a parser that was trained on one "
            "of these."
        )
    highest = int(labels.max(initial=0))
    if highest >= len(names):
        raise ParsingError(
            f"The parsing has a pixel with label {highest}, but names for {len(names)} labels "
            "only. Take labels and names from the same parser."
        )
    table = np.array([LABELS.index(_OURS[key]) for key in given], np.uint8)
    return Parsing(table[labels], LABELS)
