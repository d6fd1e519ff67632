# SPDX-License-Identifier: GPL-3.0-or-later
"""A parsing in colours above the legend that says which colour is what."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..pose_transfer.parsing import LABELS, PALETTE, palette_picture
from ..pose_transfer.types import Parsing
from .previews import INK, PAPER, text_size

_NARROWEST = 384  # px: the legend needs two columns of words
_COLUMNS = 2
_LETTERS = 40  # of a line: in each column a patch of colour, a name and a share


def palette_sheet(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels (H, W) of the pack's taxonomy -> a picture (H', W', 3) uint8.

    The legend names the labels that occur and the share of the picture that each has, the largest
    first. Narrow pictures are enlarged to make room for it.
    """
    colours = Image.fromarray(palette_picture(Parsing(labels[None], LABELS))[0])
    scale = max(1, -(-_NARROWEST // colours.width))
    colours = colours.resize((colours.width * scale, colours.height * scale), Image.Resampling.BOX)
    shares = np.bincount(labels.ravel(), minlength=len(LABELS)) / labels.size
    present = [i for i in np.argsort(-shares, kind="stable") if shares[i] > 0]

    text_px = text_size(colours.width, _LETTERS)
    line, rows = round(1.6 * text_px), -(-len(present) // _COLUMNS)
    sheet = Image.new("RGB", (colours.width, colours.height + rows * line + text_px), PAPER)
    sheet.paste(colours)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(text_px)
    for number, label in enumerate(present):
        column, row = divmod(number, rows)
        x = column * colours.width / _COLUMNS + text_px / 2
        y = colours.height + text_px / 2 + (row + 0.5) * line
        box = [x, y - text_px / 2, x + text_px, y + text_px / 2]
        pen.rectangle(box, fill=PALETTE[LABELS[label]], outline=INK)
        words = f"{LABELS[label]} {shares[label]:.1%}"
        pen.text((x + 1.5 * text_px, y), words, fill=INK, font=font, anchor="lm")
    return np.array(sheet)
