# SPDX-License-Identifier: GPL-3.0-or-later
"""The pack's socket types and what travels through them.

A payload is frozen: the host caches what a node returns, so nobody may change it in place.
`POSE_KEYPOINT` is the ecosystem's own type (a list of OpenPose frames) and has no class here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

if TYPE_CHECKING:
    from ..pose_transfer.fpdm import FPDM

PoseKeypoint = io.Custom("POSE_KEYPOINT")
PersonParsing = io.Custom("PERSON_PARSING")
FaceEmbeddings = io.Custom("FACE_EMBEDDING")  # pose_transfer.types.FaceEmbedding
# insightface's FaceAnalysis, as IPAdapter_plus and InstantID pass it around.
InsightFace = io.Custom("INSIGHTFACE")
InstantIDFace = io.Custom("FACEANALYSIS")
FPDMWeights = io.Custom("FPDM_MODEL")
Fusion = io.Custom("FUSION_EMBEDDING")


@dataclass(frozen=True, eq=False)
class FPDMModel:
    """FPDM_MODEL: FPDM's own networks, without the UNet that they steer.

    `patcher` is the host's ModelPatcher around the `FPDM` module, which moves it between memory
    and the graphics card; `name` is what error messages call it.
    """

    name: str
    patcher: Any

    @property
    def fpdm(self) -> FPDM:
        return self.patcher.model


@dataclass(frozen=True, eq=False)
class FusionEmbedding:
    """FUSION_EMBEDDING: `embeds` (B, E) float32 of length 1, made by the FPDM called `name`."""

    name: str
    embeds: torch.Tensor


@dataclass(frozen=True, eq=False)
class FPDMCondition:
    """What rides on a CONDITIONING beside its tokens.

    `pose_features` (B, C0, h, w) at the latent's size or None for no pose; `time_offset`
    (B, 4 C0) of the fusion embedding; `time_offset_without_fusion` (1, 4 C0), the same for a
    fusion embedding of zeros (not zero itself: the layers have biases).
    """

    pose_features: torch.Tensor | None
    time_offset: torch.Tensor
    time_offset_without_fusion: torch.Tensor
