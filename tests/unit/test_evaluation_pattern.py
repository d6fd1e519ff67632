# SPDX-License-Identifier: GPL-3.0-or-later
"""Pattern similarity: 1 for the truth, near 0 for another pattern, fair to plain cloth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pose_transfer.evaluation.pattern import pattern_similarities, pattern_similarity

GARMENT = np.zeros((256, 192), bool)
GARMENT[70:150, 50:140] = True
PATTERNED = ("stripes", "checks", "dots")


def cloth(
    kind: str,
    period: float = 20,
    phase: float = 0,
    first: tuple[int, ...] = (40, 60, 160),
    second: tuple[int, ...] = (220, 210, 60),
) -> np.ndarray:
    y, x = np.mgrid[0:256, 0:192] + phase
    row, column = (y % period) < period / 2, (x % period) < period / 2
    beside, below = x % period - period / 2, y % period - period / 2
    weight = {
        "plain": np.zeros_like(row),
        "stripes": row,
        "upright": column,
        "checks": row ^ column,
        "dots": beside**2 + below**2 < (0.32 * period) ** 2,
    }[kind]
    soft = ndimage.gaussian_filter(weight.astype(float), 0.6)[..., None]
    return (np.array(first) * (1 - soft) + np.array(second) * soft).round().astype(np.uint8)


def softened(image: np.ndarray, blur: float = 1.2, noise: float = 4.0) -> np.ndarray:
    """About what the autoencoder does."""
    grain = np.random.default_rng(0).normal(0, noise, image.shape)
    blurred = ndimage.gaussian_filter(image.astype(float), (blur, blur, 0))
    return np.clip(blurred + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["plain", *PATTERNED])
def test_truth_scores_one_and_a_softened_truth_nearly(kind: str) -> None:
    truth = cloth(kind)
    assert pattern_similarity(truth, truth, GARMENT) == pytest.approx(1.0, abs=1e-4)
    assert pattern_similarity(softened(truth), truth, GARMENT) > 0.85


@pytest.mark.parametrize("kind", PATTERNED)
def test_small_displacement_is_forgiven(kind: str) -> None:
    truth = cloth(kind)
    moved = np.roll(truth, (3, -2), (0, 1))
    assert pattern_similarity(moved, truth, GARMENT) > 0.85


@pytest.mark.parametrize("kind", PATTERNED)
def test_lost_and_other_patterns_score_low(kind: str) -> None:
    truth = cloth(kind)
    assert pattern_similarity(cloth("plain"), truth, GARMENT) < 0.1
    assert pattern_similarity(cloth(kind, first=(220, 210, 60), second=(40, 60, 160)), truth,
                              GARMENT) < 0.1  # fmt: skip
    assert pattern_similarity(softened(truth, blur=9), truth, GARMENT) < 0.25
    assert pattern_similarity(cloth("upright"), cloth("stripes"), GARMENT) < 0.1


def test_invented_pattern_on_plain_cloth_scores_low() -> None:
    for kind in PATTERNED:
        assert pattern_similarity(cloth(kind), cloth("plain"), GARMENT) < 0.1


def test_colour_alone_is_not_a_pattern() -> None:
    plain, other = cloth("plain"), cloth("plain", first=(200, 40, 40))
    assert pattern_similarity(other, plain, GARMENT) == pytest.approx(1.0, abs=1e-3)


def test_what_lies_outside_the_garment_does_not_matter() -> None:
    truth, other = cloth("checks"), cloth("checks")
    other[~GARMENT] = 0
    assert pattern_similarity(other, truth, GARMENT) == pytest.approx(1.0, abs=1e-4)


def test_hidden_garment_has_no_score() -> None:
    truth = cloth("dots")
    parsing = np.where(GARMENT, 3, 0)
    scores = pattern_similarities(truth, truth, parsing, (3, 4))
    assert scores[0] == pytest.approx(1.0, abs=1e-4) and np.isnan(scores[1])


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="share a size"):
        pattern_similarity(cloth("dots"), cloth("dots")[:128], GARMENT)
