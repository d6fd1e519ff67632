# SPDX-License-Identifier: GPL-3.0-or-later
"""A parsed person on a background: colours, place, soft edge, and the hole that somebody left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import NoPersonError, ParsingError, PoseTransferError
from ..parsing import PERSON, person_box, region_mask
from ..types import Box, Parsing
from .colour import match_colours
from .placing import contain, onto, stand_in

Array = NDArray[np.float32]
Placement = Literal["whole picture", "source person", "box"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
ColourMatch = Literal["none", "skin", "person"]
COLOUR_MATCHES: tuple[ColourMatch, ...] = get_args(ColourMatch)
# Resampling leaves a rounding error in what covers the background wholly.
OPAQUE = 0.999
_MATCHED_REGIONS = {"skin": ("face", "skin"), "person": (PERSON,)}


@dataclass(frozen=True, eq=False)
class ParsedPicture:
    """Pictures (B, H, W, 3) float32 in [0, 1] and their parsing.

    Raises ParsingError, with `name` in it, where the two differ in size or number.
    """

    name: str
    pictures: Array
    parsing: Parsing

    def __post_init__(self) -> None:
        (count, *size), (parsings, *parsed) = self.pictures.shape[:3], self.parsing.labels.shape
        if size != parsed:
            raise ParsingError(
                f"The {self.name} is {size[1]}x{size[0]} px and its parsing {parsed[1]}x"
                f"{parsed[0]} px, expected one size. Parse the picture as it is connected here."
            )
        if count != parsings:
            raise ParsingError(
                f"The {self.name} is a batch of {count} and its parsing a batch of {parsings}, "
                "expected one parsing for each picture. Parse the pictures as they are connected "
                "here."
            )

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) px."""
        return self.parsing.labels.shape[1], self.parsing.labels.shape[2]

    def __getitem__(self, index: int) -> ParsedPicture:
        """One of them, as a batch of one; a batch of one has it at every index."""
        i = index if len(self) > 1 else 0
        one = Parsing(self.parsing.labels[i : i + 1], self.parsing.names)
        return ParsedPicture(self.name, self.pictures[i : i + 1], one)

    def mask(self, regions: Sequence[str], grow_px: float = 0, feather_px: float = 0) -> Array:
        """Of the first picture: (H, W)."""
        return region_mask(self[0].parsing, regions, grow_px, feather_px)[0]


@dataclass(frozen=True, eq=False)
class Composite:
    """`images` (B, H, W, 3), or (B, H, W, 4) without a background; `masks` (B, H, W), where the
    person covers the background; `holes` (B, H, W), 0 or 1, what is left to in-paint. All float32.
    """

    images: Array
    masks: Array
    holes: Array


def cut_out(pictures: Array, masks: Array) -> Array:
    """(B, H, W, 3) and (B, H, W) -> (B, H, W, 4): the mask as alpha, the colours as they are."""
    return np.concatenate([pictures, masks[..., None]], -1)


def composite(
    person: ParsedPicture,
    background: Array | None = None,
    source: ParsedPicture | None = None,
    *,
    placement: Placement = "whole picture",
    boxes: Sequence[Box] | None = None,
    colour_match: ColourMatch = "none",
    strength: float = 1.0,
    grow_px: float = 0.0,
    feather_px: float = 0.0,
    hole_grow_px: float = 8.0,
) -> Composite:
    """Lays the person over the background. Batches of one go with every picture of the others.

    Args:
        person: who is cut out.
        background: (B, H, W, 3) in [0, 1]. Without one the result is the cut-out person, as large
            as the person's picture, and `placement`, `boxes` and `hole_grow_px` do nothing.
        source: the photo that the person was made from: whose colours are matched, whose place is
            taken, and who leaves a hole where the new person does not cover them.
        placement: "whole picture" keeps the person's picture whole, as large as fits in the middle
            of the background (where both have the same shape, pixels keep their places); "source
            person" puts the person at the height and on the ground of the source's, in a background
            of the source's size; "box" does so with a box.
        boxes: one, or one for each picture, in px of the background.
        colour_match: whose mean and spread in CIELAB are given to the same region of the person.
        strength: 0 leaves the colours, 1 matches them.
        grow_px, feather_px: the person's edge as in `region_mask`, in px of the result.
        hole_grow_px: how much further than the source person the hole reaches.

    The hole is empty where the source is not of the background's size: then its person is not in
    the background. Raises NoPersonError, ParsingError and PoseTransferError.
    """
    parts = [part for part in (person, background, source, boxes) if part is not None]
    batch = max(map(len, parts))
    if any(len(part) not in (1, batch) for part in parts):
        raise PoseTransferError(
            f"The batches of person, background, source and boxes are {[len(p) for p in parts]}, "
            "expected equal numbers or 1. Make the batches equally long, or use one only."
        )
    if placement == "box" and boxes is None:
        raise PoseTransferError(
            "The placement 'box' needs a box. Connect 'box', or choose another placement."
        )
    if source is None and (colour_match != "none" or placement == "source person"):
        needs = f"colour match '{colour_match}'" if colour_match != "none" else "this placement"
        raise ParsingError(
            f"The {needs} needs the person in the source photo. Connect 'source_parsing', made by "
            "Parse Person from the photo."
        )
    results = []
    for i in range(batch):
        shown = person[i]
        if colour_match != "none" and source is not None:
            shown = _with_colours(shown, source[i], colour_match, strength)
        if background is None:
            masks = shown.mask([PERSON], grow_px, feather_px)
            results.append((cut_out(shown.pictures, masks[None])[0], masks, np.zeros_like(masks)))
            continue
        behind = background[i if len(background) > 1 else 0]
        box = None if boxes is None else boxes[i if len(boxes) > 1 else 0]
        place = _place(shown, behind, None if source is None else source[i], placement, box)
        image, alpha = _paste(shown, behind, place, grow_px, feather_px)
        hole = np.zeros_like(alpha)
        if source is not None and source.size == behind.shape[:2]:
            hole = source[i].mask([PERSON], hole_grow_px) * (alpha < OPAQUE)
        results.append((image, alpha, hole))
    return Composite(*(np.stack(column) for column in zip(*results, strict=True)))


def _with_colours(
    person: ParsedPicture, source: ParsedPicture, match: ColourMatch, strength: float
) -> ParsedPicture:
    regions = _MATCHED_REGIONS[match]
    mask, reference = person.mask(regions), source.mask(regions)
    for name, found in ((person.name, mask), (source.name, reference)):
        if not found.any():
            raise ParsingError(
                f"The {name} shows no {match}, so there are no colours of it to match. Choose "
                "another colour match, or another picture."
            )
    matched = match_colours(person.pictures[0], mask, source.pictures[0], reference, strength)
    return ParsedPicture(person.name, matched[None], person.parsing)


def _place(
    person: ParsedPicture,
    background: Array,
    source: ParsedPicture | None,
    placement: Placement,
    box: Box | None,
) -> Box:
    """Where the person's picture goes on the background (H, W, 3)."""
    canvas = (background.shape[0], background.shape[1])
    if placement == "whole picture":
        return contain(person.size, canvas)
    if placement == "source person":
        assert source is not None
        if source.size != canvas:
            raise PoseTransferError(
                f"The source is {source.size[1]}x{source.size[0]} px and the background "
                f"{canvas[1]}x{canvas[0]} px, so the source person's place in it is not known. "
                "Use a background of the source's size, or the placement 'box'."
            )
        box = _person_box(source)
    assert box is not None
    if not box.area:
        raise PoseTransferError(
            "The box to put the person into is empty, expected at least 1x1 px. Draw it larger."
        )
    return stand_in(person.size, _person_box(person), box)


def _person_box(parsed: ParsedPicture) -> Box:
    box = person_box(parsed.mask([PERSON]))
    if box is None:
        raise NoPersonError(
            f"The parsing of the {parsed.name} shows nobody. Use a picture in which a person is "
            "seen, or the placement 'whole picture'."
        )
    return box


def _paste(
    person: ParsedPicture, background: Array, place: Box, grow_px: float, feather_px: float
) -> tuple[Array, Array]:
    """The composite (H, W, 3) and the person's cover (H, W)."""
    scale = place.height / person.size[0]
    mask = person.mask([PERSON], grow_px / scale, feather_px / scale)[..., None]
    # Colours go with their cover, so that what was cut away does not bleed in again.
    layer = np.concatenate([person.pictures[0] * mask, mask], -1)
    layer = onto(layer, place, (background.shape[0], background.shape[1]))
    alpha = layer[..., 3:]
    # Bicubic rings; dividing first keeps the ringing of both together, so that it ends at the edge.
    colour = np.divide(layer[..., :3], alpha, where=alpha > 1e-4, out=np.zeros_like(layer[..., :3]))
    alpha = alpha.clip(0, 1)
    return colour.clip(0, 1) * alpha + background * (1 - alpha), alpha[..., 0]
