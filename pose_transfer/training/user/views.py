# SPDX-License-Identifier: GPL-3.0-or-later
"""What a training step sees of a pair: the augmentations of FPDM's released training.

Everything random about a sample follows from the run's seed and the sample's place in the run, so
that neither the number of processes nor a restart changes what is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...images import from_uint8
from ...pose import BODY_NAMES, draw
from ...types import Person, Pose
from .layouts import Pair
from .settings import DataSettings

_OTHER_SIDE = {"left": "right", "right": "left"}


def _mirrored(name: str) -> str:
    side, _, joint = name.partition("_")
    return f"{_OTHER_SIDE[side]}_{joint}" if side in _OTHER_SIDE else name


_MIRRORED = [BODY_NAMES.index(_mirrored(name)) for name in BODY_NAMES]


@dataclass(frozen=True)
class View:
    """A pair as one sample.

    `source` (1, S, S, 3), shrunk to a square; `pose` on a canvas of H x W, and `pose_map`
    (1, H, W, 3), drawn; pictures in [0, 1].
    `flipped`: mirrored, as the target must be. `generator` for whatever else is random.
    """

    pair: Pair
    source: Tensor
    pose: Pose
    pose_map: Tensor
    flipped: bool
    generator: torch.Generator

    def source_pose(self) -> Pose | None:
        """The source's own pose on the same canvas; None where its joints are not known."""
        if self.pair.source.keypoints is None:
            return None
        still = np.zeros((len(BODY_NAMES), 2))
        pose = self.pair.source.pose(self.pair.where)
        return on_canvas(pose, self.pose.height, self.pose.width, still, self.flipped)

    def target(self) -> Tensor:
        """The target picture at its own size, (1, h, w, 3) in [0, 1]."""
        return picture(self.pair.target.image(self.pair.where), self.flipped)


@dataclass(frozen=True)
class Views:
    """The samples of a run, by their place in it."""

    pairs: tuple[Pair, ...]
    settings: DataSettings
    seed: int

    def at(self, position: int) -> View:
        """The sample at a position from 0 on: every pair once in an epoch, in a new order."""
        epoch, place = divmod(position, len(self.pairs))
        pair = self.pairs[_order(self.seed, epoch, len(self.pairs))[place]]
        rng = np.random.default_rng((self.seed, position, 1))
        settings = self.settings
        flipped = bool(rng.random() < settings.flip)
        if rng.random() < settings.identity:
            pair = Pair(pair.target, pair.target, pair.where)
        size = int(rng.choice(settings.source_sizes))
        noise = rng.normal(0.0, settings.jitter, (len(BODY_NAMES), 2))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return _view(pair, settings, flipped, size, noise, generator)

    def plain(self, pair: Pair, number: int) -> View:
        """A pair without augmentation; `number` decides what else is random."""
        generator = torch.Generator().manual_seed(number)
        size = max(self.settings.source_sizes)
        return _view(pair, self.settings, False, size, np.zeros((len(BODY_NAMES), 2)), generator)


def _view(
    pair: Pair,
    settings: DataSettings,
    flipped: bool,
    size: int,
    noise: np.ndarray,
    generator: torch.Generator,
) -> View:
    # Width first, then height, as the model's own preprocessing does.
    source = pair.source.image(pair.where)
    source = source.resize((size, source.height), Image.Resampling.BICUBIC)
    source = source.resize((size, size), Image.Resampling.BICUBIC)
    pose = on_canvas(pair.target.pose(pair.where), settings.height, settings.width, noise, flipped)
    pose_map = from_uint8(draw(pose, settings.height, settings.width, "fpdm"))
    return View(pair, picture(source, flipped), pose, pose_map, flipped, generator)


def on_canvas(pose: Pose, height: int, width: int, noise: np.ndarray, flipped: bool) -> Pose:
    """The pose at height x width, with `noise` (18, 2) px on its points, mirrored if `flipped`.

    In a mirror the left arm is a right one, so the joints change their names, too.
    """
    body = pose.people[0].body.astype(np.float64)
    present = body[:, 2] > 0
    body[:, :2] *= width / pose.width, height / pose.height
    body[present, :2] += noise[present]
    if flipped:
        body[present, 0] = width - 1 - body[present, 0]
        body = body[_MIRRORED]
    return Pose(width, height, (Person(body.astype(np.float32)),))


def picture(image: Image.Image, flipped: bool) -> Tensor:
    """(1, h, w, 3) in [0, 1]."""
    if flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return from_uint8(np.array(image))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, 0)).permutation(count)
