# SPDX-License-Identifier: GPL-3.0-or-later
"""Means over pairs with bootstrap intervals, and paired differences of two methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_AT_ONCE = 2**21
"""Values drawn at once, so that 10,000 pairs need no more memory than 1,000."""


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs with its 95 % confidence interval; `count` pairs had a value."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0: of a difference, whether its sign is certain."""
        return self.low > 0 or self.high < 0


def bootstrap(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """Mean of the values that are not NaN, with a percentile bootstrap over pairs (2,000 draws).

    The same values and seed give the same interval. Where a value is infinite (the PSNR of equal
    pictures) so are the mean and both ends.
    """
    values = values[~np.isnan(values)]
    count = len(values)
    if not count:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    mean = float(values.mean())
    if not np.isfinite(mean):
        return Estimate(mean, mean, mean, count)
    rng = np.random.default_rng(seed)
    means, left = [], RESAMPLES
    while left:
        part = min(left, max(_AT_ONCE // count, 1))
        means.append(values[rng.integers(count, size=(part, count))].mean(axis=1))
        left -= part
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return Estimate(mean, float(low), float(high), count)


def paired_difference(
    first: NDArray[np.float64], second: NDArray[np.float64], seed: int = 0
) -> Estimate:
    """Mean of first - second over the pairs, both (N,), with its bootstrap interval.

    The pairs are drawn, so what makes a pair hard for both methods cancels out. A pair for which
    either value is NaN or infinite is left out; `count` says how many remain. Raises ValueError
    for arrays of different lengths.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"Got values of shape {first.shape} and {second.shape}, expected one of each for the "
            "same pairs in the same order, (N,)."
        )
    both = np.isfinite(first) & np.isfinite(second)
    return bootstrap(first[both] - second[both], seed)
