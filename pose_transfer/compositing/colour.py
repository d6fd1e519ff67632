# SPDX-License-Identifier: GPL-3.0-or-later
"""Giving one picture's region the colours of another's.

Reinhard et al., "Color Transfer between Images", IEEE CG&A 21(5), 2001: mean and standard deviation
of every channel of an opponent colour space are carried over. The space here is CIELAB (1976, D65)
instead of the paper's l-alpha-beta, which is logarithmic and so amplifies the noise of dark pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Linear sRGB -> XYZ (IEC 61966-2-1). White is its row sums, so that grey has no colour at all.
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375],
     [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip
_WHITE = _TO_XYZ.sum(1)
_FROM_XYZ = np.linalg.inv(_TO_XYZ)
_DELTA = 6 / 29
# f(X), f(Y), f(Z) -> L, a, b
_TO_LAB = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]], dtype=np.float64)
_FROM_LAB = np.linalg.inv(_TO_LAB)
_OFFSET = np.array([16, 0, 0], dtype=np.float64)

# A spread below this is the rounding of 8-bit levels, not texture: it is not stretched.
FLAT = 0.5


def rgb_to_lab(rgb: NDArray[np.floating]) -> Array:
    """sRGB (..., 3) in [0, 1] -> CIELAB (..., 3): L 0..100, a and b about -110..110."""
    rgb = np.asarray(rgb, np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > _DELTA**3, np.cbrt(xyz), xyz / (3 * _DELTA**2) + 4 / 29)
    return (f @ _TO_LAB.T - _OFFSET).astype(np.float32)


def lab_to_rgb(lab: NDArray[np.floating]) -> Array:
    """The inverse of `rgb_to_lab`; colours that sRGB lacks are clipped to [0, 1]."""
    f = (np.asarray(lab, np.float64) + _OFFSET) @ _FROM_LAB.T
    xyz = np.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29)) * _WHITE
    linear = (xyz @ _FROM_XYZ.T).clip(0, 1)
    rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb.astype(np.float32)


def match_colours(
    picture: Array, mask: Array, reference: Array, reference_mask: Array, strength: float = 1.0
) -> Array:
    """The picture with the colours of its masked region moved to those of the reference's.

    Pictures (H, W, 3) in [0, 1], masks (H, W) in [0, 1], the two pairs of any two sizes. At
    strength 1 and a hard mask the region gets the reference region's mean and standard deviation in
    L, a and b exactly, but for colours that sRGB lacks; smaller strengths go that part of the way.
    A channel that is even all over the region (spread below `FLAT`) only gets the mean. Nothing
    changes where the mask is 0. Raises ValueError for a mask that shows nothing.
    """
    inside, outside = mask > 0, reference_mask > 0
    if not inside.any() or not outside.any():
        raise ValueError("Got an empty mask, expected something to take the colours of or to give.")
    lab, weight = rgb_to_lab(picture[inside]), mask[inside][:, None]
    mean, spread = _statistics(lab, weight)
    new_mean, new_spread = _statistics(
        rgb_to_lab(reference[outside]), reference_mask[outside][:, None]
    )
    gain = np.where(spread < FLAT, 1.0, new_spread / np.maximum(spread, FLAT))
    matched = lab + strength * weight * ((lab - mean) * gain + new_mean - lab)
    result = picture.copy()
    result[inside] = lab_to_rgb(matched)
    return result


def _statistics(lab: Array, weight: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean (3,) and standard deviation (3,)."""
    total = weight.sum(dtype=np.float64)
    mean = (lab * weight).sum(0, dtype=np.float64) / total
    variance = (weight * (lab - mean) ** 2).sum(0, dtype=np.float64) / total
    return mean, np.sqrt(variance)
