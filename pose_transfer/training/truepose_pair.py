# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's TruePose pair: which layers of the base learn, what they are told, their file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from ..demo.architecture import (
    CONTEXT_WIDTH,
    EMBED_SIZE,
    EMBED_WIDTH,
    IMAGE_TOWER,
    POSE_ENCODER,
    SCHEDULER,
    UNET,
)
from ..demo.models import MannequinBase
from ..demo.truepose import borrowed
from ..fpdm import FPDM
from ..fpdm.conv_towers import ConvPoseEncoder, build_pose_encoder, describe
from ..fpdm.unet import pose_added
from ..truepose import ImageTokens
from ..truepose.checkpoint import save_pair
from ..truepose.siamese import Lesson, PairRegions, SiamesePair, pair_alignment
from ..weights import load_into

FILE = "mannequin_truepose.safetensors"
TOKENS = 4
"""Context tokens of a source picture."""
_LEARN = ("attn1", "attn2", "norm1", "norm2")
"""Of every transformer block."""


class TruePosePair(nn.Module):
    """The demo's pair, inside a frozen UNet of which only what attends is part of it."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self._frozen = (unet.requires_grad_(False).eval(),)  # a tuple, or it would count as a part
        blocks = {n: x for n, x in unet.named_modules() if isinstance(x, BasicTransformerBlock)}
        self.names = [f"{name}.{layer}" for name in blocks for layer in _LEARN]
        self.layers = nn.ModuleList(unet.get_submodule(name) for name in self.names)
        self.layers.requires_grad_(True)
        self.pose_out = build_pose_encoder(POSE_ENCODER).conv_out
        self.image_tokens = ImageTokens(EMBED_WIDTH, CONTEXT_WIDTH, TOKENS)
        self.pair = SiamesePair(unet)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self._frozen[0]

    def trained(self) -> dict[str, Tensor]:
        """What was trained of the UNet, under its own names."""
        return {
            f"{name}.{key}": value
            for name, layer in zip(self.names, self.layers, strict=True)
            for key, value in layer.state_dict().items()
        }

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        source: Tensor,
        embeds: Tensor,
        source_pose: Tensor,
        pose: Tensor,
        regions: PairRegions,
        keep: Tensor,
        lesson: Lesson,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Prediction for noisy latents (B, C, h, w), the alignment loss, the lesson's loss.

        `source` (B', C, h, w) clean latents and `embeds` (B', E) of B' sources, each for B / B'
        targets in turn; `source_pose` (B', hidden, h, w) and `pose` (B, hidden, h, w) the pose
        tower's states, zeros in the former for a source whose pose is not told; `keep` (2, B):
        which samples keep context and pose.
        """
        times = len(noisy) // len(source)
        tokens = self.image_tokens(embeds)
        told = source_pose.flatten(1).any(1).view(-1, 1, 1, 1)
        # No gradient through SourceNet: its weights learn as TargetNet's, at half the cost.
        with torch.no_grad(), pose_added(self.unet, self.pose_out(source_pose) * told):
            look = self.pair.look(source, tokens).repeat(times)
        context = tokens.repeat_interleave(times, 0) * keep[0].view(-1, 1, 1)
        with pose_added(self.unet, self.pose_out(pose) * keep[1].view(-1, 1, 1, 1)):
            prediction, guided = self.pair.predict(noisy, t, context, look, regions, lesson)
        # Samples without context have nothing to align.
        there = keep[0].view(-1, 1, 1, 1)
        aligned = pair_alignment(guided, replace(regions, target=regions.target * there))
        return prediction, aligned, lesson.loss()


def new_pair(base: MannequinBase, fpdm: FPDM) -> TruePosePair:
    """An untrained pair upon the demo's base and FPDM."""
    unet = UNet2DConditionModel(**base.unet_config)
    # Copies, for what is loaded may be taken as it is, and `base` must stay what it is.
    load_into(unet, {name: x.clone() for name, x in base.unet.items()}, "the demo UNet")
    module = TruePosePair(unet)
    module.pose_out.load_state_dict(fpdm.pose_encoder.conv_out.state_dict())
    return module


def write_truepose(folder: Path, module: TruePosePair, base: MannequinBase, fpdm: FPDM) -> Path:
    """`mannequin_truepose.safetensors` in fp16: what was trained upon these base and FPDM."""
    encoder = fpdm.pose_encoder
    assert isinstance(encoder, ConvPoseEncoder)
    config = {
        "unet": UNET,
        "prediction": SCHEDULER["prediction_type"],
        "image_tokens": {
            "embed_width": EMBED_WIDTH, "context_width": CONTEXT_WIDTH, "tokens": TOKENS,
        },
        "pose_encoder": describe(encoder),
        "image_tower": {**IMAGE_TOWER, "size": EMBED_SIZE},
        "borrows": borrowed(base, fpdm),
    }  # fmt: skip
    parts = {
        "image_tokens": _halved(module.image_tokens.state_dict()),
        "pose_encoder": {
            f"conv_out.{name}": x for name, x in _halved(module.pose_out.state_dict()).items()
        },
    }
    path = folder / FILE
    save_pair(path, _halved(module.trained()), parts, config)
    return path


def _halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() for name, value in tensors.items()}
