# SPDX-License-Identifier: GPL-3.0-or-later
"""Keypoints of a film without their jitter: the one-euro filter on every point.

Casiez, Roussel and Vogel, "1 Euro Filter: a simple speed-based low-pass filter for noisy input in
interactive systems" (CHI 2012): an exponential mean whose cut-off frequency grows with the speed,
so that what stands still does not tremble and what moves fast does not lag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..types import PART_POINTS, Person, Pose

_FORGET = 1.0
"""Seconds after which a person who is not seen any more is somebody new."""
_TOO_FAR = 0.5
"""Sizes of a person: who is further away than this on average, point by point, is another."""
_SMALLEST = 0.1
"""Canvas heights; of whom a few points are seen only, the size is not known."""

Values = NDArray[np.floating]


@dataclass(frozen=True)
class OneEuro:
    """Settings of the filter.

    rate: frames per second. min_cutoff: Hz, of a point at rest; less trembles less. beta: Hz of
    cut-off added per canvas height per second of speed; more lags less. speed_cutoff: Hz, of the
    speed itself. centred: filter forward and backward and take the mean, so that nothing lags;
    needs the whole film, which is at hand here. Raises ValueError for a setting out of range.
    """

    rate: float = 25.0
    min_cutoff: float = 1.0
    beta: float = 10.0
    speed_cutoff: float = 1.0
    centred: bool = True

    def __post_init__(self) -> None:
        for name in ("rate", "min_cutoff", "speed_cutoff"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"OneEuro.{name} is {value:g}, expected a frequency above 0 Hz.")
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise ValueError(f"OneEuro.beta is {self.beta:g}, expected at least 0.")


def smooth(poses: Sequence[Pose], settings: OneEuro) -> list[Pose]:
    """The same frames, people and points, each point where the filter sees it.

    A point that is absent stays absent; where it comes back, the filter goes on over the gap, and
    trusts what it sees the more, the longer the gap was. People are followed by where they are, not
    by their place in the list, which detectors change from frame to frame. Confidences stay.
    """
    forward = _one_way(poses, settings)
    if not settings.centred:
        return forward
    backward = _one_way(poses[::-1], settings)[::-1]
    return [_mean(a, b) for a, b in zip(forward, backward, strict=True)]


class PointFilter:
    """The one-euro filter of N points, in canvas heights: one `step` for each frame."""

    def __init__(self, settings: OneEuro, count: int) -> None:
        self.settings = settings
        self.place = np.zeros((count, 2))
        self.speed = np.zeros((count, 2))
        self.last = np.full(count, -np.inf)  # the frame in which a point was last seen

    def step(self, frame: int, seen: Values, present: NDArray[np.bool_]) -> Values:
        """Places (N, 2) and which of them count (N,) -> the filtered places (N, 2).

        `frame` grows from step to step; frames without any point may be left out.
        """
        settings = self.settings
        known = present & np.isfinite(self.last)
        fresh = present & ~known
        self.place[fresh] = seen[fresh]
        period = ((frame - self.last[known]) / settings.rate)[:, None]  # s since the last sight
        speed = (seen[known] - self.place[known]) / period
        self.speed[known] += _share(settings.speed_cutoff, period) * (speed - self.speed[known])
        pace = np.linalg.norm(self.speed[known], axis=1, keepdims=True)
        share = _share(settings.min_cutoff + settings.beta * pace, period)
        self.place[known] += share * (seen[known] - self.place[known])
        self.last[present] = frame
        return self.place.copy()


def _share(cutoff: float | Values, period: Values) -> Values:
    """How much a new value counts in an exponential mean of that cut-off frequency, 0..1."""
    return 1.0 / (1.0 + 1.0 / (2 * math.pi * cutoff * period))


@dataclass(eq=False)
class _Track:
    """One person through the film."""

    body: Values  # (18, 3), each point as last seen, in canvas heights
    frame: int
    filters: dict[str, PointFilter] = field(default_factory=dict)


def _one_way(poses: Sequence[Pose], settings: OneEuro) -> list[Pose]:
    tracks: list[_Track] = []
    smoothed = []
    for frame, pose in enumerate(poses):
        tracks = [t for t in tracks if (frame - t.frame) / settings.rate <= _FORGET]
        followed = _follow(tracks, pose, frame)
        people = tuple(
            _filtered(person, track, frame, pose.height, settings)
            for person, track in zip(pose.people, followed, strict=True)
        )
        tracks = [t for t in tracks if t not in followed] + followed
        smoothed.append(replace(pose, people=people))
    return smoothed


def _follow(tracks: Sequence[_Track], pose: Pose, frame: int) -> list[_Track]:
    """The track of each person of the frame; the nearest pairs are joined first."""
    bodies = [person.body / (pose.height, pose.height, 1.0) for person in pose.people]
    pairs = sorted(
        (distance, number, index)
        for number, body in enumerate(bodies)
        for index, track in enumerate(tracks)
        if (distance := _distance(body, track.body)) <= _TOO_FAR
    )
    found: dict[int, _Track] = {}
    taken: set[int] = set()
    for _, number, index in pairs:
        if number not in found and index not in taken:
            found[number] = tracks[index]
            taken.add(index)
    return [found.get(number, _Track(body, frame)) for number, body in enumerate(bodies)]


def _distance(body: Values, other: Values) -> float:
    """Mean distance of the points that both have, in sizes of the larger of the two."""
    shared = (body[:, 2] > 0) & (other[:, 2] > 0)
    if not shared.any():
        return math.inf
    sizes = [np.ptp(points[points[:, 2] > 0, :2], axis=0).max() for points in (body, other)]
    apart = np.linalg.norm(body[shared, :2] - other[shared, :2], axis=1).mean()
    return float(apart / max(*sizes, _SMALLEST))


def _filtered(person: Person, track: _Track, frame: int, height: int, settings: OneEuro) -> Person:
    parts = {}
    for part, count in PART_POINTS.items():
        points = getattr(person, part)
        if points is None:
            continue
        known = track.filters.setdefault(part, PointFilter(settings, count))
        present = points[:, 2] > 0
        places = known.step(frame, points[:, :2].astype(np.float64) / height, present) * height
        parts[part] = np.where(present[:, None], np.hstack([places, points[:, 2:]]), 0)
    body = person.body / (height, height, 1.0)
    track.body, track.frame = np.where(body[:, 2:] > 0, body, track.body), frame
    return replace(person, **parts)


def _mean(a: Pose, b: Pose) -> Pose:
    people = []
    for one, other in zip(a.people, b.people, strict=True):
        parts = {
            part: (points + getattr(other, part)) / 2
            for part in PART_POINTS
            if (points := getattr(one, part)) is not None
        }
        people.append(replace(one, **parts))
    return replace(a, people=tuple(people))
