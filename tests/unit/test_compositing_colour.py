# SPDX-License-Identifier: GPL-3.0-or-later
"""CIELAB, and colours carried from one region to another."""

from __future__ import annotations

import numpy as np
import pytest

from pose_transfer.compositing import lab_to_rgb, match_colours, rgb_to_lab


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        # Published values for sRGB's corners (D65).
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_lab_is_cielab(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    np.testing.assert_allclose(rgb_to_lab(np.array(rgb)), lab, atol=0.02)


def test_lab_and_back_is_the_same_colour() -> None:
    levels = np.linspace(0, 1, 9)
    rgb = np.stack(np.meshgrid(levels, levels, levels), -1).astype(np.float32)
    np.testing.assert_allclose(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=1e-5)


def test_colours_that_srgb_lacks_are_clipped() -> None:
    rgb = lab_to_rgb(np.array([[50, 120, -120], [120, 0, 0], [-5, 0, 0]]))
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    np.testing.assert_allclose(rgb[1:], [[1, 1, 1], [0, 0, 0]], atol=1e-6)


def muted(seed: int, size: tuple[int, int] = (24, 18), at: float = 0.5) -> np.ndarray:
    """Colours far from the borders of sRGB, so that nothing is clipped."""
    noise = np.random.default_rng(seed).uniform(-0.08, 0.08, (*size, 3))
    return (at + noise * [1, 0.6, 0.8] + [0.06, 0, -0.04]).astype(np.float32)


def left_half(size: tuple[int, int] = (24, 18)) -> np.ndarray:
    mask = np.zeros(size, np.float32)
    mask[:, : size[1] // 2] = 1
    return mask


def statistics(picture: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lab = rgb_to_lab(picture[mask > 0]).astype(np.float64)
    return lab.mean(0), lab.std(0)


def test_means_and_spreads_are_the_references() -> None:
    picture, reference = muted(1, at=0.4), muted(2, (30, 40), at=0.6) ** np.float32(1.3)
    mask, reference_mask = left_half(), left_half((30, 40))
    matched = match_colours(picture, mask, reference, reference_mask)

    before, wanted = statistics(picture, mask), statistics(reference, reference_mask)
    assert np.abs(before[0] - wanted[0]).max() > 5
    for got, want in zip(statistics(matched, mask), wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-3)
    np.testing.assert_array_equal(matched[mask == 0], picture[mask == 0])


def test_equal_statistics_change_nothing() -> None:
    picture, mask = muted(3), left_half()
    # The same pixels in another order.
    np.testing.assert_allclose(
        match_colours(picture, mask, picture[::-1], mask[::-1]), picture, atol=1e-5
    )


def test_strength_is_the_share_of_the_way() -> None:
    picture, reference, mask = muted(4, at=0.4), muted(5, at=0.6), left_half()
    ends = [
        rgb_to_lab(match_colours(picture, mask, reference, mask, strength)) for strength in (0, 1)
    ]
    np.testing.assert_allclose(ends[0], rgb_to_lab(picture), atol=1e-3)
    third = rgb_to_lab(match_colours(picture, mask, reference, mask, 0.3))
    np.testing.assert_allclose(third, 0.7 * ends[0] + 0.3 * ends[1], atol=1e-3)


def test_a_soft_mask_matches_softly() -> None:
    picture, reference, mask = muted(6, at=0.4), muted(7, at=0.6), left_half()
    half = match_colours(picture, mask * np.float32(0.5), reference, mask)
    np.testing.assert_allclose(half, match_colours(picture, mask, reference, mask, 0.5), atol=1e-4)


def test_even_colour_is_moved_and_not_stretched() -> None:
    flat = np.full((24, 18, 3), 0.4, np.float32)
    flat[0, 0] += 1 / 255
    reference, mask = muted(8, at=0.6), left_half()
    matched = match_colours(flat, mask, reference, mask)
    mean, spread = statistics(matched, mask)
    np.testing.assert_allclose(mean, statistics(reference, mask)[0], atol=2e-3)
    assert spread.max() < 0.1
    assert statistics(reference, mask)[1].max() > 3


def test_inputs_are_left_alone_and_nothing_to_match_is_refused() -> None:
    picture, reference, mask = muted(9), muted(10, at=0.6), left_half()
    copies = picture.copy(), reference.copy()
    match_colours(picture, mask, reference, mask)
    np.testing.assert_array_equal(picture, copies[0])
    np.testing.assert_array_equal(reference, copies[1])
    with pytest.raises(ValueError, match="empty mask"):
        match_colours(picture, mask * 0, reference, mask)
    with pytest.raises(ValueError, match="empty mask"):
        match_colours(picture, mask, reference, mask * 0)
