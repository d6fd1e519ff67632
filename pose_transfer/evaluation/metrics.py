# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures of one picture against the true one.

Pictures are uint8 (H, W, 3) RGB arrays with data range 255; parsings are (H, W) integer label
maps of the *true* picture, so that a generated picture is asked: is the right thing in the place
where it belongs? Nothing here knows the mannequin's labels; callers pass label numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.uint8]
LabelMap = NDArray[np.integer] | NDArray[np.bool_]

DATA_RANGE = 255.0
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # an 11 x 11 window: sigma 1.5 truncated at 3.5 sigma
FLAT_WINDOW = 51
RIGHT_COLOUR = 15.0
"""A garment's mean colour counts as right within this, 0..255. Fixed before the demo was trained:
it is the measure of the prototype that preceded it."""
MIN_REGION_PIXELS = 24
"""Smaller regions are mostly anti-aliased outline; their mean colour says nothing."""


def _pair(image: Image, truth: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    for name, array in (("image", image), ("truth", truth)):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(
                f"{name} must be a uint8 (H, W, 3) RGB array, got {array.dtype} {array.shape}."
            )
    if image.shape != truth.shape:
        raise ValueError(
            f"image and truth differ in size: {image.shape[:2]} and {truth.shape[:2]} (H, W). "
            "Resize one of them first."
        )
    return image.astype(np.float64), truth.astype(np.float64)


def _labels(parsing: LabelMap, like: Image) -> None:
    if parsing.shape != like.shape[:2]:
        raise ValueError(f"parsing is {parsing.shape}, but the picture is {like.shape[:2]} (H, W).")


def psnr(image: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; inf for equal pictures."""
    x, y = _pair(image, truth)
    error = float(np.mean((x - y) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(DATA_RANGE**2 / error))


def ssim(image: Image, truth: Image, data_range: float = DATA_RANGE) -> float:
    """Structural similarity, -1..1 (Wang et al. 2004), mean over pixels and RGB channels.

    Gaussian window of sigma 1.5 and radius 5, K1 = .01, K2 = .03, population covariance, windows
    wholly inside the picture: the setting that papers report. `data_range` in levels.
    Raises ValueError for a picture smaller than one window.
    """
    x, y = _pair(image, truth)

    def window_mean(a: NDArray[np.float64]) -> NDArray[np.float64]:
        return ndimage.gaussian_filter(a, (SSIM_SIGMA, SSIM_SIGMA, 0), radius=(5, 5, 0))

    return _ssim(x, y, window_mean, SSIM_RADIUS, data_range, covariance_scale=1.0)


def ssim_released(image: Image, truth: Image) -> float:
    """SSIM as the released FPDM code measures it for its tables ("ssim_256").

    As `ssim`, but the data range is the generated picture's own, its highest level minus its
    lowest (FPDM, src/metrics/metrics.py; so do CFLD's models/metrics.py and PIDM). A picture of
    one single level has no range; there 255 is used.
    """
    span = float(image.max()) - float(image.min())
    return ssim(image, truth, span or DATA_RANGE)


def ssim_51(image: Image, truth: Image) -> float:
    """SSIM with a flat window of 51 x 51 pixels, which the same code prints beside the other.

    Sample covariance, data range 255. Raises ValueError for a picture smaller than one window.
    """
    x, y = _pair(image, truth)

    def window_mean(a: NDArray[np.float64]) -> NDArray[np.float64]:
        size: Any = (FLAT_WINDOW, FLAT_WINDOW, 1)  # SciPy's hints know a single number only
        return ndimage.uniform_filter(a, size)

    samples = FLAT_WINDOW**2
    return _ssim(x, y, window_mean, FLAT_WINDOW // 2, DATA_RANGE, samples / (samples - 1))


def _ssim(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    window_mean: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    radius: int,
    data_range: float,
    covariance_scale: float,
) -> float:
    side = 2 * radius + 1
    if min(x.shape[:2]) < side:
        raise ValueError(
            f"SSIM needs pictures of at least {side} x {side} pixels, got {x.shape[:2]}."
        )
    mu_x, mu_y = window_mean(x), window_mean(y)
    var_x = covariance_scale * (window_mean(x * x) - mu_x**2)
    var_y = covariance_scale * (window_mean(y * y) - mu_y**2)
    cov = covariance_scale * (window_mean(x * y) - mu_x * mu_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    inside = slice(radius, -radius)
    return float((luminance * structure)[inside, inside].mean())


def region_colours(image: Image, parsing: LabelMap, labels: tuple[int, ...]) -> NDArray[np.float64]:
    """Mean RGB (len(labels), 3), 0..255, of each labelled region; NaN where it is too small."""
    _labels(parsing, image)
    means = np.full((len(labels), 3), np.nan)
    for row, label in enumerate(labels):
        region = parsing == label
        if region.sum() >= MIN_REGION_PIXELS:
            means[row] = image[region].mean(axis=0)
    return means


def colour_errors(
    image: Image, truth: Image, parsing: LabelMap, labels: tuple[int, ...]
) -> NDArray[np.float64]:
    """Mean over R, G, B of |difference of region mean colours|, 0..255, one number per label.

    NaN for a region that the true picture does not show.
    """
    _pair(image, truth)
    difference = region_colours(image, parsing, labels) - region_colours(truth, parsing, labels)
    return np.abs(difference).mean(axis=1)


def colours_right(errors: NDArray[np.float64]) -> bool:
    """Whether every visible region's colour error is within RIGHT_COLOUR."""
    visible = errors[~np.isnan(errors)]
    return bool((visible <= RIGHT_COLOUR).all())


def background_plane(image: Image) -> tuple[NDArray[np.float64], float]:
    """The backdrop (H, W, 3), 0..255, as a plane fitted to the frame's border, and its noise.

    A generated backdrop is seldom quite flat: it is tinted, or drifts across the picture. The
    plane is fitted to a border of 1/32 of the height on all four sides by re-weighted least
    squares, so that feet or an elbow at the edge do not pull it. Noise is the median absolute
    residual of the border, levels.
    """
    height, width = image.shape[:2]
    ring = max(height // 32, 1)
    rows, columns = np.mgrid[0:height, 0:width]
    border = np.ones((height, width), bool)
    border[ring:-ring, ring:-ring] = False
    plane = np.stack([np.ones_like(rows), rows / height - 0.5, columns / width - 0.5], -1)
    x, y = plane[border].astype(np.float64), image[border].astype(np.float64)
    # Start from the commonest colour of the border, which the figure cannot outvote.
    coefficients = np.vstack([np.median(y, axis=0), np.zeros((2, 3))])
    for _ in range(8):
        residual = np.abs(y - x @ coefficients).max(axis=1)
        weight = 1 / (1 + (residual / 6.0) ** 4)
        root = np.sqrt(weight)[:, None]
        coefficients = np.linalg.lstsq(x * root, y * root, rcond=None)[0]
    residual = np.abs(y - x @ coefficients).max(axis=1)
    return (plane.reshape(-1, 3) @ coefficients).reshape(image.shape), float(np.median(residual))


def silhouette(image: Image, threshold: float = 24.0) -> NDArray[np.bool_]:
    """Pixels (H, W) that differ from the flat backdrop by more than `threshold` levels.

    The difference is the largest over the channels; a vote over 3 x 3 pixels removes specks.
    Where the backdrop itself is noisy, four times its noise replaces the threshold.
    """
    backdrop, noise = background_plane(image)
    different = np.abs(image - backdrop).max(axis=2) > max(threshold, 4 * noise)
    return ndimage.uniform_filter(different.astype(np.float32), 3) > 0.5


def silhouette_iou(image: Image, truth: Image, figure: NDArray[np.bool_]) -> float:
    """Intersection over union, 0..1, of the picture's silhouette and the true figure (H, W).

    Pixels at which the true picture's own silhouette disagrees with the true figure decide
    nothing and are left out: the shadow on the ground, white cloth on a white wall, the
    anti-aliased rim. The truth therefore scores 1.
    """
    _pair(image, truth)
    _labels(figure, image)
    counted = silhouette(truth) == figure
    found = silhouette(image) & counted
    figure = figure & counted
    union = float((found | figure).sum())
    return float((found & figure).sum()) / union if union else 1.0


def view_of(yaw: float) -> str:
    """front, side or back, from the yaw in radians (0 faces the camera, pi looks away)."""
    turn = abs((yaw + np.pi) % (2 * np.pi) - np.pi)
    if turn <= np.pi / 4:
        return "front"
    return "back" if turn >= 3 * np.pi / 4 else "side"
