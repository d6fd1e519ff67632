# SPDX-License-Identifier: GPL-3.0-or-later
"""Plots and contact sheet of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..errors import MissingDependencyError
from ..pose import draw
from .results import BenchmarkResult, Method
from .statistics import bootstrap

SHEET_PAIRS = 12
PANELS = {
    "ssim": "SSIM",
    "psnr": "PSNR, dB",
    "iou": "silhouette IoU",
    "colour": "colour error (less is better)",
    "colour_right": "right colours",
    "pattern": "pattern similarity",
    "class_right": "right pattern class",
}


def draw_figures(result: BenchmarkResult, folder: Path) -> None:
    """Write benchmark_pairs.jpg, benchmark_methods.png and benchmark_views.png.

    Raises MissingDependencyError where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "The benchmark's plots need matplotlib, which is not installed. Install the extra: "
            "pip install '.[evaluation]'"
        ) from error
    contact_sheet(result).save(folder / "benchmark_pairs.jpg", quality=92, subsampling=0)
    _methods(result, Figure).savefig(folder / "benchmark_methods.png", dpi=110)
    _views(result, Figure).savefig(folder / "benchmark_views.png", dpi=110)


def contact_sheet(result: BenchmarkResult) -> Image.Image:
    """The first 12 pairs, two to a row: source, pose, truth and result of the shipped model."""
    shipped = result.method("B6") or result.methods[-1]
    tiles = []
    for pair, picture in zip(result.data.pairs[:SHEET_PAIRS], shipped.pictures, strict=False):
        pose = draw(pair.target.pose, picture.shape[0], picture.shape[1], "fpdm")
        tiles.append(np.concatenate([pair.source.image, pose, pair.target.image, picture], axis=1))
    gap, caption = 16, 20
    height, width = tiles[0].shape[:2]
    columns = min(2, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new(
        "RGB",
        (columns * width + (columns - 1) * gap, caption + rows * height + (rows - 1) * gap),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(Image.fromarray(tile), (column * (width + gap), caption + row * (height + gap)))
    for column in range(columns):
        for number, word in enumerate(("source", "pose", "truth", f"result ({shipped.name})")):
            x = column * (width + gap) + (number + 0.5) * width / 4
            pen.text((x, caption / 2), word, fill="black", anchor="mm")
    return sheet


def _bars(
    axes: Any, estimates: Sequence[tuple[str, NDArray[np.float64]]], colours: Sequence[str]
) -> None:
    """One bar per (label, values) with its 95 % interval."""
    for place, ((_, values), colour) in enumerate(zip(estimates, colours, strict=True)):
        e = bootstrap(values)
        if np.isfinite(e.mean):
            error = [[max(e.mean - e.low, 0)], [max(e.high - e.mean, 0)]]
            axes.bar(place, e.mean, color=colour, yerr=error, capsize=2, ecolor="0.25")
    axes.set_xticks(
        range(len(estimates)), [label for label, _ in estimates], rotation=35, ha="right"
    )
    axes.spines[["top", "right"]].set_visible(False)


def _colour(method: Method) -> str:
    if method.name == "B6":
        return "#c8553d"
    return "#588b8b" if method.name.startswith("B") else "#b8b8b0"


def _panels(figure_class: Any, names: Sequence[str]) -> tuple[Any, list[Any]]:
    columns = 4
    rows = -(-len(names) // columns)
    figure = figure_class(figsize=(13, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(axes, names, strict=False):
        panel.set_title(PANELS[name], fontsize=10)
    for panel in axes[len(names) :]:
        panel.set_visible(False)
    return figure, list(axes[: len(names)])


def _methods(result: BenchmarkResult, figure_class: Any) -> Any:
    names = [name for name in PANELS if name in result.methods[0].scores]
    figure, panels = _panels(figure_class, names)
    shown = [m for m in result.methods if m.name != "truth"]
    for panel, name in zip(panels, names, strict=True):
        _bars(panel, [(m.name, m.scores[name]) for m in shown], [_colour(m) for m in shown])
    return figure


def _views(result: BenchmarkResult, figure_class: Any) -> Any:
    """The shipped model by view, with the autoencoder's ceiling in grey beside it."""
    names = [name for name in PANELS if name in result.methods[0].scores]
    figure, panels = _panels(figure_class, names)
    methods = [m for name in ("autoencoder", "B6") if (m := result.method(name)) is not None]
    figure.suptitle("By the target's view: " + ", then ".join(m.name for m in methods), fontsize=11)
    for panel, name in zip(panels, names, strict=True):
        bars, colours = [], []
        for view in ("front", "side", "back"):
            for method in methods:
                values = method.scores[name][result.data.views == view]
                bars.append((view if method is methods[-1] else "", values))
                colours.append(_colour(method))
        _bars(panel, bars, colours)
    return figure
