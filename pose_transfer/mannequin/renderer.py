# SPDX-License-Identifier: GPL-3.0-or-later
"""From two seeds to a picture with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..pose.skeleton import BODY_NAMES
from ..types import Person, Pose
from .captions import caption
from .figure import Figure
from .identity import Identity, sample_identity, with_upper_pattern
from .posing import BodyPose, sample_pose
from .raster import Canvas


@dataclass(frozen=True)
class Sample:
    """A rendered mannequin.

    `image` (H, W, 3) uint8 RGB; `pose` one person, 18 keypoints in pixels (those of a turned-away
    face are absent); `parsing` (H, W) uint8, indices into `LABELS`; `caption` one sentence.
    """

    image: np.ndarray
    pose: Pose
    parsing: np.ndarray
    caption: str


@dataclass(frozen=True)
class Rendering:
    """A sample and, per pixel, the place on the reference body.

    `coordinates` (H, W, 3) float32 and `cloth` (H, W, 4) float32, body heights, zero on the
    background. Places that look alike (left and right limbs, front and back of clothes) differ
    in `coordinates` and have the same `cloth` (`raster.cloth_place`).
    """

    sample: Sample
    coordinates: np.ndarray | None
    cloth: np.ndarray | None


def _keypoints(figure: Figure) -> np.ndarray:
    body = np.zeros((len(BODY_NAMES), 3), np.float32)
    joints = {"neck": figure.points["neck"]}
    for side in ("left", "right"):
        for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
            joints[f"{side}_{joint}"] = figure.points[f"{side}_{joint}"]
    for name, (place, visible) in figure.head.keypoints().items():
        if visible:
            joints[name] = place
    for name, place in joints.items():
        body[BODY_NAMES.index(name)] = (place[0], place[1], 1.0)
    return body


def render_figure(
    identity: Identity, pose: BodyPose, height: int, width: int, with_coordinates: bool = False
) -> Rendering:
    """Paint `identity` in `pose` on a canvas of `height` x `width` pixels."""
    if height < 32 or width < 32:
        raise ValueError(f"the canvas must be at least 32 x 32 pixels, got {height} x {width}")
    figure = Figure(identity, pose, height, width)
    canvas = Canvas(height, width, identity.background, with_coordinates)
    figure.paint(canvas)
    sample = Sample(
        image=canvas.image(),
        pose=Pose(width=width, height=height, people=(Person(body=_keypoints(figure)),)),
        parsing=canvas.labels,
        caption=caption(identity),
    )
    if canvas.coordinates is None:
        return Rendering(sample, None, None)
    places = canvas.coordinates.transpose(1, 2, 0)
    return Rendering(sample, places[..., :3], places[..., 3:])


def render(
    identity_seed: int,
    pose_seed: int,
    height: int = 256,
    width: int = 192,
    upper_pattern: str | None = None,
) -> Sample:
    """The mannequin `identity_seed` in the pose `pose_seed`; the same bits on every machine.

    `upper_pattern`: another pattern on the upper garment than the seed has drawn.
    """
    identity = sample_identity(identity_seed)
    if upper_pattern is not None:
        identity = with_upper_pattern(identity, upper_pattern)
    return render_figure(identity, sample_pose(pose_seed), height, width).sample
