# SPDX-License-Identifier: GPL-3.0-or-later
"""Upright bilinear sampling, as the networks' own preprocessing does it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def resample(
    picture: NDArray[np.generic], x: NDArray[np.floating], y: NDArray[np.floating]
) -> NDArray[np.float32]:
    """The picture (H, W, 3) at every pair of the positions x (w,) and y (h,): (h, w, 3), 0..255.

    Positions are in px, the centre of the first pixel is (0, 0). Between the outermost pixels and
    the black around the picture is interpolated as well. The picture is not smoothed first, where
    it shrinks: the released networks were trained on OpenCV's INTER_LINEAR, which does not either.
    """
    rows = _blend(picture, y)
    return _blend(rows.swapaxes(0, 1), x).swapaxes(0, 1)


def _blend(picture: NDArray[np.generic], at: NDArray[np.floating]) -> NDArray[np.float32]:
    """Interpolates along the first axis."""
    size = picture.shape[0]
    first = np.floor(at).astype(np.int64)
    share = (at - first).astype(np.float32)
    total = 0.0
    for index, weight in ((first, 1 - share), (first + 1, share)):
        weight = np.where((index >= 0) & (index < size), weight, np.float32(0))
        total = total + picture[index.clip(0, size - 1)] * weight[:, None, None]
    return np.asarray(total, dtype=np.float32)
