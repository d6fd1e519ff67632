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
from .metrics import psnr, ssim, view_of
from .person_measures import colour_scores, pattern_scores, silhouette_scores

GARMENTS = (LABELS.index("upper"), LABELS.index("lower"))
REGIONS = tuple(range(1, len(LABELS)))


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


def score_pictures(
    pictures: NDArray[np.uint8], data: PairSet, judge: PatternJudge | None, title: str
) -> Mapping[str, NDArray[np.float64]]:
    """Measures of pictures (N, H, W, 3) against the pairs' true targets, each (N,).

    ssim, psnr (dB), iou; colour (0..255, mean over visible regions), colour_<region>,
    colour_right (0 or 1: both garments); pattern (mean of the garments), pattern_upper,
    pattern_lower; and with a judge class_upper, class_lower, class_right (0 or 1: both garments
    have the identity's pattern class). NaN where the target does not show the region.
    """
    pairs = zip(pictures, data.pairs, strict=True)
    pixels = [(ssim(p, x.target.image), psnr(p, x.target.image)) for p, x in pairs]
    truths, parsings = data.truths, data.parsings
    regions = {LABELS[region]: region for region in REGIONS}
    garments = {LABELS[garment]: garment for garment in GARMENTS}
    scores = {
        "ssim": np.array([row[0] for row in pixels], np.float64),
        "psnr": np.array([row[1] for row in pixels], np.float64),
        **silhouette_scores(pictures, truths, parsings),
        **colour_scores(pictures, truths, parsings, regions, garments),
        **pattern_scores(tqdm(pictures, desc=f"measure {title}"), truths, parsings, garments),
    }
    if judge is not None:
        verdicts = judge_patterns(judge, pictures, data.parsings)
        right = np.where(verdicts < 0, np.nan, verdicts == data.classes)
        scores["class_upper"], scores["class_lower"] = right[:, 0], right[:, 1]
        scores["class_right"] = np.fmin(right[:, 0], right[:, 1])
    return scores
