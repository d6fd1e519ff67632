# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures that nodes show on themselves: the one place that makes the host's `ui` of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from comfy_api.latest import ui
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..pose_transfer.images import from_uint8

Picture = NDArray[np.uint8]  # (H, W, 3), RGB

MOST = 16  # pictures of a batch that a node shows; a film would fill the disk and the node
PAPER, INK = (250, 250, 250), (40, 40, 40)
_LONGEST_PX = 1536  # of a shown picture; the outputs have the full size
_SMALLEST_TEXT_PX = 12
_LETTER_WIDTH = 0.55  # of its height, in the font that Pillow brings along


def files(image: torch.Tensor) -> list[dict[str, str]]:
    """Keeps all pictures of an IMAGE as temporary PNGs; how the front end asks for each."""
    return [dict(file) for file in ui.PreviewImage(image).as_dict()["images"]]


def shown(pictures: Sequence[Picture]) -> dict[str, Any]:
    """The `ui` with which the host shows pictures, of any sizes, on the node that made them."""
    return {"images": [file for x in pictures for file in files(from_uint8(_smaller(x)))]}


def chosen(count: int) -> list[int]:
    """Which of `count` pictures to show: all, or `MOST` that are spread evenly over them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, MOST))})


def titled(picture: Picture, title: str, text_px: int) -> Picture:
    """The picture below a strip with its title."""
    strip = Image.new("RGB", (picture.shape[1], round(1.7 * text_px)), PAPER)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(text_px)
    pen.text((text_px / 3, strip.height / 2), title, fill=INK, font=font, anchor="lm")
    return np.concatenate([np.asarray(strip), picture])


def grid(pictures: Sequence[Picture]) -> Picture:
    """Equally large pictures in rows, such that the whole is about as wide as it is high."""
    height, width, _ = pictures[0].shape
    columns = min(len(pictures), max(1, round(math.sqrt(len(pictures) * height / width))))
    rows, gap = math.ceil(len(pictures) / columns), max(2, width // 48)
    sheet = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), PAPER, np.uint8
    )
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def text_size(width: int, letters: int) -> int:
    """px of a text such that so many letters fit into the width, none too small to read."""
    return max(_SMALLEST_TEXT_PX, round(width / letters / _LETTER_WIDTH))


def _smaller(picture: Picture) -> Picture:
    longest = max(picture.shape[:2])
    if longest <= _LONGEST_PX:
        return picture
    height, width = (max(1, round(side * _LONGEST_PX / longest)) for side in picture.shape[:2])
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
