# SPDX-License-Identifier: GPL-3.0-or-later
"""Bootstrap intervals and paired differences."""

from __future__ import annotations

import numpy as np
import pytest

import pose_transfer.evaluation.statistics as statistics
from pose_transfer.evaluation.statistics import bootstrap, paired_difference


def test_bootstrap_interval_holds_the_mean_and_narrows() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    few, many = bootstrap(values[:40]), bootstrap(values)
    assert few.low < few.mean < few.high and many.high - many.low < few.high - few.low
    assert many.high - many.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.2)
    assert bootstrap(np.array([1.0, np.nan])).count == 1
    assert np.isnan(bootstrap(np.array([np.nan])).mean)
    assert np.isinf(bootstrap(np.array([np.inf, 1.0])).mean)


def test_interval_is_repeatable_and_does_not_depend_on_the_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(2).normal(0, 1, 101)
    whole = bootstrap(values, seed=3)
    assert whole == bootstrap(values, seed=3) != bootstrap(values, seed=4)
    monkeypatch.setattr(statistics, "_AT_ONCE", 1000)
    assert bootstrap(values, seed=3) == whole


def test_paired_difference_sees_a_small_gain_that_two_intervals_do_not() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 1, 100)
    first, second = hardness + 0.05 + rng.normal(0, 0.05, 100), hardness
    gain = paired_difference(first, second)
    assert gain.clear and gain.low == pytest.approx(0.04, abs=0.015) and gain.count == 100
    assert bootstrap(first).low < bootstrap(second).high
    assert not paired_difference(first, first).clear


def test_pairs_without_both_values_are_left_out() -> None:
    first = np.array([1.0, np.nan, np.inf, 4.0])
    second = np.array([0.0, 1.0, np.inf, np.nan])
    assert paired_difference(first, second).count == 1
    with pytest.raises(ValueError, match="same pairs"):
        paired_difference(first, second[:2])
