# SPDX-License-Identifier: GPL-3.0-or-later
"""What is what on a person: parsing, masks of regions, and pasting people into pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..pose_transfer.compositing import (
    COLOUR_MATCHES,
    PLACEMENTS,
    ColourMatch,
    ParsedPicture,
    Placement,
    composite,
)
from ..pose_transfer.detectors.boxes import read_boxes
from ..pose_transfer.detectors.parse import parse_within
from ..pose_transfer.errors import ParsingError, PoseTransferError
from ..pose_transfer.images import as_rgb, from_uint8, to_uint8
from ..pose_transfer.parsing import LABELS, REGIONS, describe, palette_picture, region_mask
from ..pose_transfer.types import Box, Parsing
from . import host, previews
from .palette_sheet import palette_sheet
from .person_parsers import DEMO, PARSERS, SEGFORMER, load_parser
from .sockets import PersonParsing

CATEGORY = "pose transfer/person"
MAX_PX = 1024.0

_REGION_TOOLTIPS = {
    "face": "The face, with glasses.",
    "hair": "The hair, without a hat.",
    "upper": "Shirts, pullovers, jackets, coats.",
    "lower": "Trousers, shorts, skirts, belts.",
    "dress": "Dresses and jumpsuits: one piece for both halves of the body.",
    "shoes": "Shoes and socks.",
    "skin": "Bare arms, legs, neck and trunk. The face is a region of its own.",
    "accessories": "Hat, gloves, bag, scarf.",
    "background": "Everything that is not the person.",
    "person": "The whole person with everything worn and carried.",
}


class ParsePerson(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferParsePerson",
            display_name="Parse Person",
            category=CATEGORY,
            description="Finds out which pixel of a person is hair, face, which garment, skin.",
            search_aliases=[
                "human parsing",
                "segformer",
                "schp",
                "clothes segmentation",
                "segmentation",
                "garment mask",
            ],
            inputs=[
                io.Image.Input("image", tooltip="Pictures or video frames, of any size."),
                io.Combo.Input(
                    "parser",
                    options=list(PARSERS),
                    default=SEGFORMER,
                    tooltip="SegFormer clothes: 18 labels, needs its folder. SCHP ATR (the same 18 "
                    "labels) and SCHP LIP (20, with gloves, socks, coats, jumpsuits): need "
                    f"onnxruntime and a file. {DEMO}: comes with the pack, knows rendered "
                    "mannequins only.",
                ),
                io.BoundingBox.Input(
                    "boxes",
                    optional=True,
                    force_input=True,
                    tooltip="Look at the people in these boxes only, each from close by: finer for "
                    "people who are small in the picture. From Detect Pose.",
                ),
            ],
            outputs=[
                PersonParsing.Output(
                    display_name="parsing", tooltip="For Region Mask and Composite Person."
                ),
                io.Image.Output(
                    display_name="palette", tooltip="The parsing in colours, to look at."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The parser, what it really runs on, and how much it found of what.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # its pictures stay when the page is opened again
        )

    @classmethod
    def execute(cls, image: torch.Tensor, parser: str, boxes: Any = None) -> io.NodeOutput:
        image = as_rgb(image)
        count = image.shape[0]
        inside = [None] * count if boxes is None else read_boxes(boxes, count)
        backend = load_parser(parser)
        labels = [
            parse_within(backend, to_uint8(image[number]), allowed)
            for number, allowed in enumerate(host.each(inside, count))
        ]
        parsing = Parsing(np.stack(labels), LABELS)
        report = f"{parser} on {backend.provider}\n{describe(parsing)}"
        host.say(cls.hidden.unique_id, report)
        sheets = previews.shown([palette_sheet(labels[i]) for i in previews.chosen(count)])
        return io.NodeOutput(parsing, from_uint8(palette_picture(parsing)), report, ui=sheets)


class RegionMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferRegionMask",
            display_name="Region Mask",
            category=CATEGORY,
            description="Makes a mask of the chosen regions of a person.",
            search_aliases=["face mask", "clothes mask", "skin mask", "person mask", "grow mask"],
            inputs=[
                PersonParsing.Input("parsing", tooltip="From Parse Person or Demo Person."),
                *(
                    io.Boolean.Input(region, default=region == "upper", tooltip=tooltip)
                    for region, tooltip in _REGION_TOOLTIPS.items()
                ),
                _px(
                    "grow", 0, -MAX_PX, "Moves the edge outwards, or inwards where negative, in px."
                ),
                _px("feather", 0, 0, "Width in px of the soft edge, half of it outside."),
            ],
            outputs=[io.Mask.Output(tooltip="White in the chosen regions, one for each picture.")],
        )

    @classmethod
    def execute(
        cls, parsing: Parsing, grow: float, feather: float, **regions: bool
    ) -> io.NodeOutput:
        chosen = [name for name in REGIONS if regions[name]]
        if not chosen:
            raise ParsingError("No region is chosen for the mask. Switch at least one on.")
        return io.NodeOutput(torch.from_numpy(region_mask(parsing, chosen, grow, feather)))


class CompositePerson(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferCompositePerson",
            display_name="Composite Person",
            category=CATEGORY,
            description="Cuts a person out and lays them over a background, with matched colours, "
            "a soft edge, and a mask of the hole that the former person leaves.",
            search_aliases=[
                "cut out",
                "paste",
                "replace background",
                "keep background",
                "colour match",
                "color match",
                "reinhard",
            ],
            inputs=[
                io.Image.Input("person", tooltip="Who is laid over the background."),
                PersonParsing.Input(
                    "person_parsing", tooltip="Of the person's picture, from Parse Person."
                ),
                io.Combo.Input(
                    "placement",
                    options=list(PLACEMENTS),
                    default=PLACEMENTS[0],
                    tooltip="whole picture: the person's picture covers the background, as large "
                    "as it fits. source person: as tall as the person in source_parsing and on the "
                    "same ground. box: the same in a box.",
                ),
                io.Combo.Input(
                    "colour_match",
                    options=list(COLOUR_MATCHES),
                    default=COLOUR_MATCHES[0],
                    tooltip="Gives the skin, or the whole person, the mean and spread of colours "
                    "that it has in the source (Reinhard's method in Lab).",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of the colour match is applied.",
                ),
                _px("grow", 0, -MAX_PX, "Moves the person's edge outwards, or inwards where "
                    "negative, in px of the result. -1 hides a rim of the former background."),
                _px("feather", 2, 0, "Width in px of the result of the person's soft edge."),
                _px("hole_grow", 8, 0, "How many px the hole reaches beyond the source person."),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="What the person is laid over, of any size. Without it the result is "
                    "the person cut out, with alpha.",
                ),
                PersonParsing.Input(
                    "source_parsing",
                    optional=True,
                    tooltip="Parsing of the photo that the person was made from: for the colours, "
                    "the place and the hole.",
                ),
                io.Image.Input(
                    "source",
                    optional=True,
                    tooltip="That photo. Not needed where it is the background itself.",
                ),
                io.BoundingBox.Input(
                    "box",
                    optional=True,
                    force_input=True,
                    tooltip="For the placement 'box': where the person stands, in px of the "
                    "background.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="The composite, or the cut-out with alpha."
                ),
                io.Mask.Output(
                    display_name="mask", tooltip="Where the person covers the background."
                ),
                io.Mask.Output(
                    display_name="hole",
                    tooltip="What the source person leaves to in-paint; for VAE Encode (for "
                    "Inpainting). Black without source_parsing.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        person: torch.Tensor,
        person_parsing: Parsing,
        placement: Placement,
        colour_match: ColourMatch,
        strength: float,
        grow: float,
        feather: float,
        hole_grow: float,
        background: torch.Tensor | None = None,
        source_parsing: Parsing | None = None,
        source: torch.Tensor | None = None,
        box: Any = None,
    ) -> io.NodeOutput:
        behind = None if background is None else _pixels(background, "background")
        made = composite(
            ParsedPicture("person", _pixels(person, "person"), person_parsing),
            behind,
            _source(source, source_parsing, behind),
            placement=placement,
            boxes=None if box is None else _first_boxes(box, 1 if behind is None else len(behind)),
            colour_match=colour_match,
            strength=strength,
            grow_px=grow,
            feather_px=feather,
            hole_grow_px=hole_grow,
        )
        return io.NodeOutput(*map(torch.from_numpy, (made.images, made.masks, made.holes)))


def _px(name: str, default: float, least: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        name, default=default, min=least, max=MAX_PX, step=1.0, round=0.1, tooltip=tooltip
    )


def _pixels(image: torch.Tensor, name: str) -> np.ndarray:
    """IMAGE -> (B, H, W, 3) float32."""
    return as_rgb(image, name).detach().cpu().float().numpy()


def _source(
    source: torch.Tensor | None, parsing: Parsing | None, background: np.ndarray | None
) -> ParsedPicture | None:
    """The source photo, which may be the background, with its parsing."""
    pictures = background if source is None else _pixels(source, "source")
    if parsing is None or pictures is None:
        if source is None and parsing is None:
            return None
        lacks = "source_parsing" if parsing is None else "source"
        raise ParsingError(
            f"The source is connected in part: '{lacks}' is not there. Connect the photo and its "
            "parsing from Parse Person, or neither."
        )
    return ParsedPicture("background" if source is None else "source", pictures, parsing)


def _first_boxes(box: Any, count: int) -> list[Box]:
    frames = read_boxes(box, count)
    if not all(frames):
        raise PoseTransferError(
            f"Got no box for picture {[bool(f) for f in frames].index(False)}, expected one for "
            "each. Connect a box, or choose another placement."
        )
    return [frame[0] for frame in frames]
