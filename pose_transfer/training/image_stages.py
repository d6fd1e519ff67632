# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages that learn from single pictures and poses: world, autoencoder, towers."""

from __future__ import annotations

import torch
from torch import nn

from .autoencoder import TrainableAutoencoder, autoencoder_loss
from .towers import (
    ImageTowerTask,
    PoseTowerTask,
    SourceTowerTask,
    image_tower_loss,
    pose_tower_loss,
    source_tower_loss,
)
from .workspace import Workspace, channels_last
from .world import render_world

_CROP = (160, 128)
"""Height and width of the autoencoder's training crops."""


class ImageStages(Workspace):
    """Everything below FPDM. Each stage trains what is not trained yet, and returns it."""

    def render(self) -> None:
        settings = self.settings
        render_world(self.work / "world", "train", settings.identities, settings.poses_per_identity)

    def autoencoder(self) -> TrainableAutoencoder:
        stage = self.settings.autoencoder
        module = channels_last(TrainableAutoencoder())
        if self._finished("autoencoder", stage.steps):
            return self._load("autoencoder", module)
        data = self._batches("image", "parsing")
        height, width = _CROP

        def loss(module: nn.Module, step: int, generator: torch.Generator):
            index = data.draw(stage.batch, generator)
            top, left = torch.rand(2, device=self.device, generator=generator).tolist()
            y, x = int(top * (256 - height + 1)), int(left * (192 - width + 1))
            crop = (slice(None), slice(y, y + height), slice(x, x + width))
            rows = data.rows("image", index)[crop]
            pictures = rows.permute(0, 3, 1, 2).float() / 127.5 - 1.0
            figure = (data.rows("parsing", index)[crop] > 0).float()[:, None]
            return autoencoder_loss(module, pictures, figure, generator)

        return self._train("autoencoder", module, loss, stage)

    def source_tower(self) -> SourceTowerTask:
        stage = self.settings.source_tower
        module = SourceTowerTask()
        if self._finished("source_tower", stage.steps):
            return self._load("source_tower", module)
        data = self._batches("image", "parsing", "cloth")
        return self._train(
            "source_tower",
            module,
            lambda m, step, g: source_tower_loss(m, data, stage.batch, g),
            stage,
        )

    def image_tower(self) -> ImageTowerTask:
        stage = self.settings.image_tower
        module = ImageTowerTask()
        if self._finished("image_tower", stage.steps):
            return self._load("image_tower", module)
        data = self._batches("image", "pose_map", "keypoints", "yaw")
        return self._train(
            "image_tower",
            module,
            lambda m, step, g: image_tower_loss(m, data, stage.batch, g),
            stage,
        )

    def pose_tower(self) -> PoseTowerTask:
        stage = self.settings.pose_tower
        module = PoseTowerTask()
        if self._finished("pose_tower", stage.steps):
            return self._load("pose_tower", module)
        data = self._batches("pose_map", "parsing", "cloth")
        return self._train(
            "pose_tower", module, lambda m, step, g: pose_tower_loss(m, data, stage.batch, g), stage
        )

    def _best_autoencoder(self) -> TrainableAutoencoder:
        """With the decoder stage's decoder, if there was one."""
        module = self.autoencoder()
        return self._load("decoder", module) if self._step("decoder") else module
