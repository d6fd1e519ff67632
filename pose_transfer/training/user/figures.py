# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run shows of itself: sheets of pictures, curves, TensorBoard."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ...errors import MissingDependencyError
from ...images import resize_bicubic, to_uint8
from .task import Rows

_GAP, _CAPTION = 6, 16


def panel(picture_bhwc: Tensor, height: int, width: int) -> np.ndarray:
    """One picture of a sheet, (height, width, 3) uint8."""
    return to_uint8(resize_bicubic(picture_bhwc, height, width))[0]


def sheet(rows: Rows, columns: Sequence[str]) -> Image.Image:
    """The rows below each other, each column under its name."""
    height, width = rows[0][0].shape[:2]
    page = Image.new(
        "RGB",
        (len(columns) * (width + _GAP) - _GAP, len(rows) * (height + _GAP) - _GAP + _CAPTION),
        "white",
    )
    pen = ImageDraw.Draw(page)
    for x, name in enumerate(columns):
        pen.text((x * (width + _GAP) + 2, 2), name, fill="black")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            place = (x * (width + _GAP), y * (height + _GAP) + _CAPTION)
            page.paste(Image.fromarray(picture), place)
    return page


def read_log(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of every figure in a run's log."""
    out: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        for name, value in entry.items():
            if "step" in entry and name != "step":
                out[name][0].append(entry["step"])
                out[name][1].append(value)
    return dict(out)


def draw_curves(log: Path, out: Path) -> None:
    """A PNG with one panel for each figure of the log but the speed; none for an empty log."""
    curves = {name: xy for name, xy in read_log(log).items() if name != "samples_per_s"}
    if not curves:
        return
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "The curves need matplotlib, which is not installed: pip install matplotlib"
        ) from error
    figure = Figure(figsize=(4.2 * len(curves), 3.4), layout="constrained")
    for axes, (name, (steps, values)) in zip(
        np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True
    ):
        axes.plot(steps, values, marker="." if len(steps) < 30 else "")
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=100)


def tensorboard_writer(folder: Path, step: int) -> Any:
    """A writer that forgets what a killed run wrote after `step`. MissingDependencyError."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "training.tensorboard: TensorBoard is not installed. 'pip install tensorboard', or set "
            "it to false; the curves are drawn without it."
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
