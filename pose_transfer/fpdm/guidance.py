# SPDX-License-Identifier: GPL-3.0-or-later
"""Guidance over FPDM's nested conditions: nothing, pose, pose and source, fusion as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

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


class Weights(NamedTuple):
    """How far the guided prediction goes along each step from one prediction to the next."""

    pose: float
    source: float
    fusion: float

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """What none, pose, source and full count in the guided prediction; they sum to 1.

        A prediction whose share is zero need not be made: the one of the pose alone where pose and
        source have one weight, that of the source where source and fusion have one, that of
        nothing where the pose's weight is 1.
        """
        return (
            1.0 - self.pose,
            self.pose - self.source,
            self.source - self.fusion,
            self.fusion,
        )


def nested_guidance(
    e_none: Tensor, e_pose: Tensor, e_source: Tensor, e_full: Tensor, weights: Weights
) -> Tensor:
    """`cumulative_guidance` with a step of its own for the pose.

    `e = e(0) + w_pose (e(pose) - e(0)) + w_source (e(pose, source) - e(pose))
    + w_fusion (e(full) - e(pose, source))`

    With `w_pose = w_source` this is `cumulative_guidance`, whatever `e_pose` is. A prediction
    whose share is zero may be any finite tensor of the shape.
    """
    guided = e_none + weights.pose * (e_pose - e_none) + weights.source * (e_source - e_pose)
    return guided + weights.fusion * (e_full - e_source)


@dataclass(frozen=True)
class Term:
    """One step of the guidance: its weight, and the part of sampling in which it holds.

    `start` and `end` are fractions of sampling, 0 the noise and 1 the picture. Outside of them the
    condition is still followed, but not guided: the weight counts as 1. Raises ValueError for a
    start that is not before the end, or either outside of 0 to 1.
    """

    weight: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.start < self.end <= 1.0:
            raise ValueError(
                f"A term of the guidance goes from {self.start:g} to {self.end:g} of sampling, "
                "expected 0 <= start < end <= 1."
            )


@dataclass(frozen=True)
class Guidance:
    """Everything about FPDM's guidance that can be chosen.

    `pose` None guides pose and source in one step, as the paper does. `rescale` (0..1) is how much
    of `rescaled` is mixed in.
    """

    source: Term = Term(2.0)
    fusion: Term = Term(2.0)
    pose: Term | None = None
    rescale: float = 0.0

    def weights(self, is_between: Callable[[float, float], bool]) -> Weights:
        """The weights at a moment; `is_between(start, end)` tells whether it lies there."""
        pose, source, fusion = (
            term.weight if is_between(term.start, term.end) else 1.0
            for term in (self.pose or self.source, self.source, self.fusion)
        )
        return Weights(pose, source, fusion)

    @property
    def most_passes(self) -> int:
        """How many predictions a step may need, as long as terms have other weights than 1."""
        return 3 if self.pose is None else 4


def rescaled(guided: Tensor, conditioned: Tensor, amount: float) -> Tensor:
    """The guided prediction with some of its contrast taken back.

    Guidance enlarges the prediction's standard deviation, which burns out light and colours. Lin
    et al. 2023 (arXiv 2305.08891, section 3.4) scale it, per picture, to that of the prediction
    under all conditions and mix the two: `amount` 0 changes nothing, they use 0.7. Both are
    (B, ...) predictions of v.
    """
    axes = tuple(range(1, guided.dim()))
    ratio = conditioned.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return guided * (amount * ratio + (1.0 - amount))
