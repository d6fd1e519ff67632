# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures side by side, as help pages and thumbnails show them."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

_GAP, _PAPER = 6, (250, 250, 250)


def side_by_side(pictures: Sequence[Image.Image], height: int) -> Image.Image:
    """One row on light paper; each picture `height` px high."""
    sized = [
        x.convert("RGB").resize((round(x.width * height / x.height), height)) for x in pictures
    ]
    width = sum(x.width for x in sized) + _GAP * (len(sized) + 1)
    sheet = Image.new("RGB", (width, height + 2 * _GAP), _PAPER)
    left = _GAP
    for picture in sized:
        sheet.paste(picture, (left, _GAP))
        left += picture.width + _GAP
    return sheet
