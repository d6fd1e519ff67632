# SPDX-License-Identifier: GPL-3.0-or-later
"""Guidance over FPDM's nested conditions."""

from __future__ import annotations

from torch import Tensor


def cumulative_guidance(
    e_none: Tensor, e_source: Tensor, e_full: Tensor, w_source: float, w_fusion: float
) -> Tensor:
    """Three predictions of one shape, each with one condition more, into one.

    `e = e(0) + w_source (e(pose, source) - e(0)) + w_fusion (e(full) - e(pose, source))`

    `e_none` saw zeros for all conditions, `e_source` the pose map and the source tokens, `e_full`
    the fusion embedding as well. With equal weights `e_source` cancels: the released code has only
    that case (both 2.0), the paper and this function have two weights.
    """
    return e_none + w_source * (e_source - e_none) + w_fusion * (e_full - e_source)
