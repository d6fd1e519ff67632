# SPDX-License-Identifier: GPL-3.0-or-later
"""SCHP, "Self-Correction for Human Parsing" (Li et al., arXiv 1910.09777), as ONNX files.

The exports of the released networks put out three maps at a quarter of the input's size: the
parsing, the parsing refined by the edges, and the edges; the second one is the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..parsing import ATR_LABELS, LIP_LABELS
from .base import Picture
from .onnx_model import OnnxModel
from .resample import resample

# ImageNet's, in the order of the channels that the released networks take: blue, green, red.
MEAN = np.array([0.406, 0.456, 0.485], np.float32)
DEVIATION = np.array([0.225, 0.224, 0.229], np.float32)
# Rows of the picture that are brought to full size at once; 20 labels at 4000 px are 80 MB.
STRIP = 256


@dataclass(frozen=True)
class Variant:
    """One released network: the side of its square input in px, and its labels in order."""

    name: str
    side: int
    labels: tuple[str, ...]


ATR = Variant("SCHP ATR", 512, ATR_LABELS)
LIP = Variant("SCHP LIP", 473, LIP_LABELS)


class Schp:
    """A parser of photos with one person who fills most of the picture."""

    def __init__(self, network: OnnxModel, variant: Variant) -> None:
        self._network, self._variant = network, variant

    @property
    def name(self) -> str:
        return self._variant.name

    @property
    def provider(self) -> str:
        return self._network.provider

    def parse(self, picture: Picture) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Raises CheckpointError where the network's output is not that of its variant."""
        height, width = picture.shape[:2]
        side, labels = self._variant.side, self._variant.labels
        at = np.arange(side, dtype=np.float64)
        square = resample(picture, *square_to_picture(at, at, side, height, width)).round()
        batch = (square[:, :, ::-1] / 255 - MEAN) / DEVIATION  # RGB -> BGR
        logits = self._logits(self._network.run(batch.transpose(2, 0, 1)[None].astype(np.float32)))

        # Corners lie on corners, as the released code interpolates.
        rows, columns = ((n - 1) / (side - 1) for n in logits.shape[:2])
        across, down = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
        x, y = picture_to_square(across, down, side, height, width)
        strips = [
            resample(logits, x * columns, y[top : top + STRIP] * rows).argmax(-1)
            for top in range(0, height, STRIP)
        ]
        return np.concatenate(strips).astype(np.uint8), labels

    def _logits(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The refined parsing (h, w, labels): the last output with one channel for each label."""
        count = len(self._variant.labels)
        for output in reversed(outputs):
            if output.ndim == 4 and output.shape[:2] == (1, count):
                return output[0].transpose(1, 2, 0)
        shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
        raise CheckpointError(
            f"{self._network.path} puts out {shapes}, expected (1, {count}, height, width) from "
            f"{self.name}. It is another network, or one for other labels: choose the parser that "
            "it was made for, or download the file again."
        )


def load_schp(path: str | Path, variant: Variant) -> Schp:
    """From parsing_atr.onnx or parsing_lip.onnx.

    Raises MissingDependencyError without onnxruntime, CheckpointError for another file.
    """
    network = OnnxModel(path)
    expected = (1, 3, variant.side, variant.side)
    found = network.input_shape
    if len(found) != 4 or any(
        have not in (None, want) for have, want in zip(found, expected, strict=True)
    ):
        raise CheckpointError(
            f"{network.path} takes an input of shape {found}, expected {expected} for "
            f"{variant.name}. Choose the parser that the file was made for."
        )
    return Schp(network, variant)


def square_to_picture(
    x: NDArray[np.float64], y: NDArray[np.float64], side: int, height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions on the network's square -> on the picture; px, the first pixel's centre is 0.

    The picture is scaled by its longer side, the centres of the outermost pixels onto those of the
    square, and stands in the middle between black borders.
    """
    scale = max(height - 1, width - 1, 1) / (side - 1)
    middle = (side - 1) / 2
    return (x - middle) * scale + (width - 1) / 2, (y - middle) * scale + (height - 1) / 2


def picture_to_square(
    x: NDArray[np.float64], y: NDArray[np.float64], side: int, height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The inverse of `square_to_picture`."""
    scale = (side - 1) / max(height - 1, width - 1, 1)
    middle = (side - 1) / 2
    return (x - (width - 1) / 2) * scale + middle, (y - (height - 1) / 2) * scale + middle
