# SPDX-License-Identifier: GPL-3.0-or-later
"""All measures of a set of pictures, as one number per pair and measure, and their averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..mannequin import LABELS, PATTERNS, Pair, sample_identity, sample_pose
from .judge import PatternJudge, judge_patterns
from .metrics import colour_errors, colours_right, psnr, silhouette_iou, ssim, view_of
from .pattern import pattern_similarities

GARMENTS = (LABELS.index("upper"), LABELS.index("lower"))
REGIONS = tuple(range(1, len(LABELS)))
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs with its 95 % confidence interval; `count` pairs had a value."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, eq=False)
class PairSet:
    """Held-out pairs, with what the measures need to know of each.

    `views` is the target's view, `classes` (N, 2) the pattern classes of upper and lower garment.
    """

    pairs: tuple[Pair, ...]
    views: NDArray[np.str_]
    classes: NDArray[np.int64]

    @property
    def truths(self) -> NDArray[np.uint8]:
        return np.stack([pair.target.image for pair in self.pairs])

    @property
    def parsings(self) -> NDArray[np.uint8]:
        return np.stack([pair.target.parsing for pair in self.pairs])


def describe_pairs(pairs: Sequence[Pair]) -> PairSet:
    """Look up the view and the garments' patterns of every pair."""
    views, classes = [], []
    for pair in pairs:
        views.append(view_of(sample_pose(pair.target_pose_seed).yaw))
        identity = sample_identity(pair.identity_seed)
        classes.append([PATTERNS.index(g.pattern) for g in (identity.upper, identity.lower)])
    return PairSet(tuple(pairs), np.array(views), np.array(classes, np.int64).reshape(-1, 2))


def bootstrap(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """Mean of the values that are not NaN, with a percentile bootstrap over pairs (2,000 draws)."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    mean = float(values.mean())
    if not np.isfinite(mean):  # PSNR of equal pictures
        return Estimate(mean, mean, mean, len(values))
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
    return Estimate(mean, float(low), float(high), len(values))


def _mean_of_visible(values: NDArray[np.float64]) -> float:
    visible = values[~np.isnan(values)]
    return float(visible.mean()) if len(visible) else float("nan")


def score_pictures(
    pictures: NDArray[np.uint8], data: PairSet, judge: PatternJudge | None, title: str
) -> Mapping[str, NDArray[np.float64]]:
    """Measures of pictures (N, H, W, 3) against the pairs' true targets, each (N,).

    ssim, psnr (dB), iou; colour (0..255, mean over visible regions), colour_<region>,
    colour_right (0 or 1: both garments); pattern (mean of the garments), pattern_upper,
    pattern_lower; and with a judge class_upper, class_lower, class_right (0 or 1: both garments
    have the identity's pattern class). NaN where the target does not show the region.
    """
    rows = []
    garment_columns = [REGIONS.index(label) for label in GARMENTS]
    for picture, pair in zip(tqdm(pictures, desc=f"measure {title}"), data.pairs, strict=True):
        truth, parsing = pair.target.image, pair.target.parsing
        colours = colour_errors(picture, truth, parsing, REGIONS)
        patterns = pattern_similarities(picture, truth, parsing, GARMENTS)
        rows.append(
            {
                "ssim": ssim(picture, truth),
                "psnr": psnr(picture, truth),
                "iou": silhouette_iou(picture, truth, parsing > 0),
                "colour": _mean_of_visible(colours),
                "colour_right": float(colours_right(colours[garment_columns])),
                **{f"colour_{LABELS[r]}": c for r, c in zip(REGIONS, colours, strict=True)},
                "pattern": _mean_of_visible(patterns),
                "pattern_upper": patterns[0],
                "pattern_lower": patterns[1],
            }
        )
    scores = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    if judge is not None:
        verdicts = judge_patterns(judge, pictures, data.parsings)
        right = np.where(verdicts < 0, np.nan, verdicts == data.classes)
        scores["class_upper"], scores["class_lower"] = right[:, 0], right[:, 1]
        scores["class_right"] = np.fmin(right[:, 0], right[:, 1])
    return scores
