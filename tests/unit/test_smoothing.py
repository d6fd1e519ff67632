# SPDX-License-Identifier: GPL-3.0-or-later
"""The one-euro filter on keypoints: against the paper's formulas, gaps, people, still and fast."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pose_transfer.pose.smoothing import OneEuro, smooth
from pose_transfer.types import Person, Pose

HEIGHT = 200
FORWARD = OneEuro(rate=25, min_cutoff=1.2, beta=7, speed_cutoff=0.9, centred=False)


def person(places, **parts) -> Person:
    """The first body points at (x, y) or None; the others are absent."""
    body = np.zeros((18, 3), np.float32)
    for row, place in enumerate(places):
        if place is not None:
            body[row] = (*place, 0.8)
    return Person(body, **parts)


def film(*frames) -> list[Pose]:
    return [Pose(300, HEIGHT, tuple(frame)) for frame in frames]


def tracks(poses, index=0):
    return np.array([pose.people[index].body[:, :2] for pose in poses])


def one_euro(values, rate, min_cutoff, beta, speed_cutoff):
    """The paper's algorithm for one point, (x, y) in canvas heights, None where absent."""
    place, speed, last = None, np.zeros(2), 0
    out = []
    for frame, value in enumerate(values):
        if value is None:
            out.append(None)
            continue
        x = np.array(value, float)
        if place is None:
            place = x
        else:
            te = (frame - last) / rate

            def alpha(cutoff, te=te):
                return 1 / (1 + (1 / (2 * math.pi * cutoff)) / te)

            a = alpha(speed_cutoff)
            speed = a * (x - place) / te + (1 - a) * speed
            a = alpha(min_cutoff + beta * math.hypot(*speed))
            place = a * x + (1 - a) * place
        last = frame
        out.append(place.copy())
    return out


def test_every_point_follows_the_paper_over_gaps_too():
    rng = np.random.default_rng(0)
    paths = rng.uniform(20, 120, (2, 1, 2)) + rng.normal(0, 3, (2, 30, 2)).cumsum(axis=1)
    seen: list[list[tuple | None]] = [[tuple(p) for p in path] for path in paths]
    for frame in (7, 8, 9, 20):
        seen[1][frame] = None
    poses = film(*([person([seen[0][f], seen[1][f]])] for f in range(30)))
    smoothed = smooth(poses, FORWARD)

    settings = (25, 1.2, 7, 0.9)
    for row in (0, 1):
        scaled = [None if p is None else (p[0] / HEIGHT, p[1] / HEIGHT) for p in seen[row]]
        for frame, expected in enumerate(one_euro(scaled, *settings)):
            point = smoothed[frame].people[0].body[row]
            if expected is None:
                assert not point.any(), "an absent point stays absent"
            else:
                assert point[:2] == pytest.approx(expected * HEIGHT, abs=1e-3)
                assert point[2] == pytest.approx(0.8)


def test_jitter_goes_and_a_fast_move_is_not_late():
    rng = np.random.default_rng(1)
    still = np.full((40, 2), 100.0)
    sweep = np.stack([np.linspace(20, 260, 40), np.full(40, 60.0)], axis=1)  # 0.75 heights a s
    noisy = np.stack([still, sweep]) + rng.normal(0, 1.0, (2, 40, 2))
    poses = film(*([person([noisy[0, f], noisy[1, f]])] for f in range(40)))
    after = tracks(smooth(poses, OneEuro()))

    def jitter(path):
        return np.abs(np.diff(path, 2, axis=0)).mean()

    assert jitter(after[:, 0]) < 0.25 * jitter(noisy[0])
    middle = slice(5, -5)
    late = (sweep[middle, 0] - after[middle, 1, 0]).mean()
    assert abs(late) < 0.7
    lagging = tracks(smooth(poses, OneEuro(centred=False)))
    assert (sweep[middle, 0] - lagging[middle, 1, 0]).mean() > 1.0


def test_people_are_followed_by_where_they_are_not_by_their_place_in_the_list():
    left = [person([(50 + f, 60), (50 + f, 160)]) for f in range(10)]
    right = [person([(220 - f, 60), (220 - f, 160)]) for f in range(10)]
    in_order = smooth(film(*zip(left, right, strict=True)), FORWARD)
    mixed = [(a, b) if f % 3 else (b, a) for f, (a, b) in enumerate(zip(left, right, strict=True))]
    out_of_order = smooth(film(*mixed), FORWARD)
    for f, (expected, got) in enumerate(zip(in_order, out_of_order, strict=True)):
        people = got.people if f % 3 else got.people[::-1]
        assert list(people) == list(expected.people)


def test_who_comes_in_elsewhere_is_not_drawn_towards_who_was_there():
    frames = [[person([(40, 50), (40, 150)])]] * 5 + [[person([(240, 50), (240, 150)])]] * 2
    assert tracks(smooth(film(*frames), FORWARD))[5:, :2, 0] == pytest.approx(240)


def test_empty_frames_stay_empty_and_the_film_goes_on():
    there = [person([(50, 50), (60, 150)])]
    smoothed = smooth(film(there, [], [], there), OneEuro())
    assert [len(pose.people) for pose in smoothed] == [1, 0, 0, 1]


def test_hands_are_smoothed_and_a_missing_part_stays_missing():
    hand = np.full((21, 3), 1.0, np.float32)
    frames = []
    for x in (80.0, 84.0, 80.0):
        hand = hand.copy()
        hand[:, :2] = x
        frames.append([person([(50, 50), (60, 150)], left_hand=hand)])
    smoothed = smooth(film(*frames), OneEuro())
    hands = [pose.people[0].left_hand for pose in smoothed]
    assert hands[1] is not None
    assert 80.0 < hands[1][0, 0] < 84.0
    assert all(pose.people[0].right_hand is None for pose in smoothed)


def test_the_size_of_the_canvas_does_not_matter():
    path = [(40 + 8 * math.sin(f), 50 + 3 * f) for f in range(12)]
    small = smooth([Pose(300, 200, (person([p]),)) for p in path], OneEuro())
    scaled = [person([(2 * x, 2 * y)]) for x, y in path]
    large = smooth([Pose(600, 400, (p,)) for p in scaled], OneEuro())
    assert tracks(large) == pytest.approx(2 * tracks(small), abs=1e-3)


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"min_cutoff": -1}, {"beta": -0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OneEuro(**wrong)
