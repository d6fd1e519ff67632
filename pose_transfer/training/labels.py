# SPDX-License-Identifier: GPL-3.0-or-later
"""What the renderer knows of each identity, as tensors to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..mannequin import PATTERNS, sample_identity
from ..mannequin.captions import caption
from ..mannequin.identity import HAIR_STYLES, LOWER_KINDS, UPPER_KINDS
from ..mannequin.vocabulary import encode


@dataclass(frozen=True)
class IdentityLabels:
    """Per identity: `colours` (I, 24) in [0, 1] (eight RGB colours), `classes` (I, 7) int64 with
    `CLASS_SIZES` values each, `tokens` (I, 77) int64 of its caption."""

    colours: Tensor
    classes: Tensor
    tokens: Tensor


CLASS_SIZES = (
    len(PATTERNS),
    len(PATTERNS),
    len(UPPER_KINDS),
    len(LOWER_KINDS),
    len(HAIR_STYLES),
    2,
    2,
)
"""Upper pattern, lower pattern, upper kind, lower kind, hair style, upper and lower direction."""
COLOURS = 8


def identity_labels(seeds: list[int]) -> IdentityLabels:
    """The labels of the identities named by `seeds`."""
    colours, classes, tokens = [], [], []
    for seed in seeds:
        person = sample_identity(seed)
        upper, lower = person.upper, person.lower
        colours.append(
            [
                *upper.colour, *upper.second_colour, *lower.colour, *lower.second_colour,
                *person.skin, *person.hair_colour, *person.shoe_colour, *person.background,
            ]
        )  # fmt: skip
        classes.append(
            [
                PATTERNS.index(upper.pattern),
                PATTERNS.index(lower.pattern),
                UPPER_KINDS.index(upper.kind),
                LOWER_KINDS.index(lower.kind),
                HAIR_STYLES.index(person.hair_style),
                int(upper.direction == "along"),
                int(lower.direction == "along"),
            ]
        )
        tokens.append(encode(caption(person)))
    return IdentityLabels(
        torch.tensor(colours, dtype=torch.float32) / 255.0,
        torch.tensor(classes),
        torch.tensor(tokens),
    )
