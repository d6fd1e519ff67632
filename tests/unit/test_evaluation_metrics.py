# SPDX-License-Identifier: GPL-3.0-or-later
"""Pixel measures against their definitions and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pose_transfer.evaluation.metrics import (
    background_plane,
    colour_errors,
    colours_right,
    psnr,
    silhouette,
    silhouette_iou,
    ssim,
    ssim_51,
    ssim_released,
    view_of,
)


def picture(seed: int, height: int = 64, width: int = 48) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    return ndimage.gaussian_filter(noise, (2, 2, 0)).round().astype(np.uint8)


def figure_on_backdrop(top: int = 20) -> tuple[np.ndarray, np.ndarray]:
    image = np.full((128, 96, 3), (236, 228, 222), np.uint8)
    parsing = np.zeros((128, 96), np.uint8)
    parsing[top : top + 40, 30:66], parsing[top + 40 : top + 80, 34:62] = 3, 4
    image[parsing == 3], image[parsing == 4] = (60, 90, 180), (190, 60, 50)
    return image, parsing


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ssim_and_psnr_agree_with_scikit_image(seed: int) -> None:
    x = picture(seed)
    noise = np.random.default_rng(seed).normal(0, 9, x.shape)
    y = np.clip(x + noise, 0, 255).astype(np.uint8)
    expected = structural_similarity(
        x, y, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(x, y) == pytest.approx(expected, abs=1e-9)
    assert psnr(x, y) == pytest.approx(peak_signal_noise_ratio(x, y, data_range=255), abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_released_settings_agree_with_scikit_image(seed: int) -> None:
    """The two calls that the released evaluation makes, on [0, 255] and on [0, 1]."""
    x = picture(seed, 80, 64)
    noise = np.random.default_rng(seed).normal(0, 9, x.shape)
    y = np.clip(x * 0.7 + noise + 20, 0, 255).astype(np.uint8)
    a, b = x / 255.0, y / 255.0
    expected = structural_similarity(
        b * 255, a * 255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        channel_axis=2, data_range=(a * 255).max() - (a * 255).min(),
    )  # fmt: skip
    assert ssim_released(x, y) == pytest.approx(expected, abs=1e-6)
    assert ssim_released(x, y) != pytest.approx(ssim(x, y), abs=1e-4)
    expected = structural_similarity(b, a, data_range=1, win_size=51, channel_axis=2)
    assert ssim_51(x, y) == pytest.approx(expected, abs=1e-6)


def test_released_ssim_of_a_flat_picture_is_a_number() -> None:
    flat = np.full((32, 32, 3), 90, np.uint8)
    assert ssim_released(flat, flat) == pytest.approx(1.0)
    other = picture(0, 32, 32)
    assert ssim_released(flat, other) == ssim(flat, other)


def test_equal_pictures_are_perfect() -> None:
    x = picture(4)
    assert ssim(x, x) == pytest.approx(1.0) and math.isinf(psnr(x, x))


def test_wrong_inputs_are_named() -> None:
    x = picture(0)
    with pytest.raises(ValueError, match=r"\(64, 48\) and \(32, 48\)"):
        psnr(x, x[:32])
    with pytest.raises(ValueError, match="float32"):
        ssim(x.astype(np.float32), x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(x[:8], x[:8])
    with pytest.raises(ValueError, match=r"51 x 51.*\(64, 48\)"):
        ssim_51(x, x)
    with pytest.raises(ValueError, match="parsing is"):
        colour_errors(x, x, np.zeros((4, 4), np.uint8), (1,))


def test_colour_error_is_the_shift_of_the_region_mean() -> None:
    image, parsing = figure_on_backdrop()
    other = image.copy()
    other[parsing == 3] += np.array([30, 0, 6], np.uint8)
    errors = colour_errors(other, image, parsing, (3, 4, 5))
    assert errors[:2] == pytest.approx([12.0, 0.0])
    assert np.isnan(errors[2]), "a region that the truth does not show has no colour error"
    assert colours_right(errors)
    assert not colours_right(np.array([15.1, 0.0])) and colours_right(np.array([15.0, np.nan]))


def test_silhouette_ignores_tint_drift_and_specks() -> None:
    image, parsing = figure_on_backdrop()
    drift = np.linspace(-14, 14, 96)[None, :, None] * np.array([1.0, 0.6, 0.3])
    grain = np.random.default_rng(0).normal(0, 2, image.shape)
    changed = np.clip(image * 0.95 + drift + grain, 0, 255).astype(np.uint8)
    changed[5, 5] = 0
    found = silhouette(changed)
    assert not found[5, 5]
    assert silhouette_iou(changed, image, parsing > 0) > 0.97


def test_backdrop_is_not_pulled_by_a_figure_at_the_edge() -> None:
    image, _ = figure_on_backdrop(top=48)  # its feet touch the lower edge
    backdrop, noise = background_plane(image)
    assert np.abs(backdrop - (236, 228, 222)).max() < 1 and noise < 1


def test_silhouette_iou_is_one_for_the_truth_and_falls_with_displacement() -> None:
    image, parsing = figure_on_backdrop()
    image[parsing == 4] = (232, 224, 220)  # white trousers before a light wall
    image[100:104, 20:76] = (190, 180, 176)  # a shadow on the ground
    figure = parsing > 0
    assert silhouette_iou(image, image, figure) == 1.0
    near, far = (np.roll(image, shift, axis=1) for shift in (4, 20))
    assert 1.0 > silhouette_iou(near, image, figure) > silhouette_iou(far, image, figure) > 0.1
    empty = np.full_like(image, 230)
    assert silhouette_iou(empty, image, figure) == 0.0


@pytest.mark.parametrize(
    ("yaw", "view"),
    [(0, "front"), (0.7, "front"), (6.0, "front"), (1.6, "side"), (-1.6, "side"), (3.1, "back"),
     (-3.5, "back"), (2.3, "side")],
)  # fmt: skip
def test_view_of_yaw(yaw: float, view: str) -> None:
    assert view_of(yaw) == view
