# SPDX-License-Identifier: GPL-3.0-or-later
"""Motions between poses: smooth, with bones of constant length, and with the given ends."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from pose_transfer.mannequin import sample_identity, sample_pose
from pose_transfer.mannequin.motion import between, body_motion, render_motion
from pose_transfer.mannequin.posing import pose_skeleton

PAIRS = [(29, 9), (109, 79), (39, 69), (229, 219), (5, 11)]


def joints(pose):
    skeleton = pose_skeleton(sample_identity(19), pose).joints
    return {name: np.array(place) for name, place in skeleton.items()}


@pytest.mark.parametrize("seeds", PAIRS)
def test_it_goes_from_the_one_pose_to_the_other(seeds):
    start, end = map(sample_pose, seeds)
    motion = body_motion(start, end, 7)
    assert (motion[0], motion[-1]) == (start, end)
    # Just beside the ends the directions are mixed, and must be those of the angles.
    for pose, share in ((start, 1e-9), (end, 1 - 1e-9)):
        near = joints(between(start, end, share))
        for name, place in joints(pose).items():
            assert near[name] == pytest.approx(place, abs=1e-5), name


@pytest.mark.parametrize("seeds", PAIRS)
def test_nothing_jumps_and_no_bone_changes_its_length(seeds):
    motion = [
        joints(pose) for pose in body_motion(sample_pose(seeds[0]), sample_pose(seeds[1]), 60)
    ]
    for before, after in pairwise(motion):
        for name, place in after.items():
            # A hand's widest swing, pi body turn included, is 1.5 body heights in 60 frames.
            assert np.linalg.norm(place - before[name]) < 0.06, name
    for frame in motion:
        for side in ("left", "right"):
            upper = frame[f"{side}_elbow"] - frame[f"{side}_shoulder"]
            lower = frame[f"{side}_wrist"] - frame[f"{side}_elbow"]
            assert np.linalg.norm(upper) == pytest.approx(0.158, abs=1e-4)
            assert np.linalg.norm(lower) == pytest.approx(0.142, abs=1e-4)


def test_it_starts_and_stops_gently():
    motion = [joints(pose) for pose in body_motion(sample_pose(29), sample_pose(9), 21)]
    steps = [np.linalg.norm(b["left_hand"] - a["left_hand"]) for a, b in pairwise(motion)]
    assert max(steps[0], steps[-1]) < 0.25 * max(steps)


def test_the_body_turns_the_shorter_way_round():
    start, end = sample_pose(29), sample_pose(9)
    half = between(start, end, 0.5)
    turns = [(half.yaw - pose.yaw + math.pi) % (2 * math.pi) - math.pi for pose in (start, end)]
    assert abs(turns[0]) <= math.pi / 2
    assert turns[0] == pytest.approx(-turns[1])


def test_a_loop_comes_back():
    motion = body_motion(sample_pose(29), sample_pose(9), 8, loop=True)
    assert motion[0] == sample_pose(29)
    assert motion[4] == sample_pose(9)
    assert motion[1] == motion[7]


def test_the_figure_keeps_its_size_while_it_moves():
    samples = render_motion(19, 29, 9, 6)
    trunks = []
    for sample in samples:
        body = sample.pose.people[0].body
        trunks.append(body[8:14:3, 1].mean() - body[1, 1])  # hips below the neck, px
    assert max(trunks) < 1.06 * min(trunks)


def test_less_than_two_frames_are_no_motion():
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        body_motion(sample_pose(1), sample_pose(2), 1)
