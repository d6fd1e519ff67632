# SPDX-License-Identifier: GPL-3.0-or-later
"""Histograms of a folder's measures, and sheets of the pairs that came out worst."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import MissingDependencyError
from .folder import MEASURES, FolderResult
from .pairing import read_picture

TILE_HEIGHT = 256
_COLUMNS = 3
_INK, _GROUND = (40, 40, 40), (250, 250, 250)


def histograms(result: FolderResult) -> Any:
    """A matplotlib figure with one panel for each measure of pairs; a line marks the mean.

    Raises MissingDependencyError.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "The plots need matplotlib, which is not installed. Install the extra: "
            "pip install '.[evaluation]', or: pip install matplotlib"
        ) from error
    shown = {
        name: values[np.isfinite(values)]
        for name, values in result.scores.items()
        if np.isfinite(values).any()
    }
    rows = max(-(-len(shown) // _COLUMNS), 1)
    figure = Figure(figsize=(4 * _COLUMNS, 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for panel, (name, values) in zip(panels, shown.items(), strict=False):
        panel.hist(values, bins=min(40, max(8, int(np.sqrt(len(values))))), color="#588b8b")
        panel.axvline(values.mean(), color="#c8553d")
        left_out = len(result.scores[name]) - len(values)
        note = f" ({left_out} without a finite value)" if left_out else ""
        panel.set_title(f"{MEASURES[name].heading}{note}", fontsize=10)
        panel.set_ylabel("pairs")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    return figure


def worst_sheet(result: FolderResult, name: str, count: int) -> Image.Image | None:
    """The `count` worst pairs by a measure, the worst first, two to a row; None without any.

    Of each: source (where it is known), generated, truth, with the value and the pair's name.
    """
    values = result.scores[name]
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return None
    order = finite[np.argsort(values[finite], kind="stable")]
    if not MEASURES[name].more_is_better:
        order = order[::-1]
    pairs = result.matched.pairs
    with_source = any(pair.source is not None for pair in pairs)
    columns = (["source"] if with_source else []) + ["generated", "truth"]
    tiles = []
    for row in order[:count]:
        pair = pairs[row]
        paths = ([pair.source] if with_source else []) + [pair.generated, pair.truth]
        pictures = [None if path is None else _tile(read_picture(path)) for path in paths]
        caption = f"{values[row]:.{MEASURES[name].decimals}f}  {pair.name}"
        tiles.append((caption, pictures))
    return _sheet(tiles, columns, f"The worst by {MEASURES[name].heading}")


def _tile(picture: np.ndarray) -> Image.Image:
    width = max(round(picture.shape[1] * TILE_HEIGHT / picture.shape[0]), 1)
    return Image.fromarray(picture).resize((width, TILE_HEIGHT), Image.Resampling.BICUBIC)


def _sheet(
    tiles: list[tuple[str, list[Image.Image | None]]], columns: list[str], title: str
) -> Image.Image:
    gap, line, across = 12, 22, min(2, len(tiles))
    cell = max(image.width for _, images in tiles for image in images if image is not None)
    width = len(columns) * cell + (len(columns) - 1) * 2
    height = TILE_HEIGHT + line
    rows = -(-len(tiles) // across)
    sheet = Image.new(
        "RGB",
        (gap + across * (width + gap), 2 * line + rows * (height + gap)),
        _GROUND,
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    pen.text((gap, line / 2), title, fill=_INK, font=font, anchor="lm")
    for block in range(across):
        for number, word in enumerate(columns):
            x = gap + block * (width + gap) + number * (cell + 2) + cell / 2
            pen.text((x, 1.5 * line), word, fill=_INK, font=font, anchor="mm")
    for number, (caption, images) in enumerate(tiles):
        row, block = divmod(number, across)
        x, y = gap + block * (width + gap), 2 * line + row * (height + gap)
        for column, image in enumerate(images):
            if image is not None:
                left = x + column * (cell + 2) + (cell - image.width) // 2
                sheet.paste(image, (left, y))
        while len(caption) > 4 and font.getlength(caption) > width:
            caption = caption[:-4] + "..."
        pen.text((x, y + TILE_HEIGHT + line / 2), caption, fill=_INK, font=font, anchor="lm")
    return sheet
