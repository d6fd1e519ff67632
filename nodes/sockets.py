# SPDX-License-Identifier: GPL-3.0-or-later
"""The pack's socket types and what travels through them.

A payload is frozen: the host caches what a node returns, so nobody may change it in place.
`POSE_KEYPOINT` is the ecosystem's own type (a list of OpenPose frames) and has no class here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

if TYPE_CHECKING:
    from ..pose_transfer.fpdm import FPDM
    from ..pose_transfer.oneposetrans import VCM

PoseKeypoint = io.Custom("POSE_KEYPOINT")
PersonParsing = io.Custom("PERSON_PARSING")
FaceEmbeddings = io.Custom("FACE_EMBEDDING")  # pose_transfer.types.FaceEmbedding
# insightface's FaceAnalysis, as IPAdapter_plus and InstantID pass it around.
InsightFace = io.Custom("INSIGHTFACE")
InstantIDFace = io.Custom("FACEANALYSIS")
FPDMWeights = io.Custom("FPDM_MODEL")
Fusion = io.Custom("FUSION_EMBEDDING")
VCMWeights = io.Custom("VCM_WEIGHTS")
Source = io.Custom("SOURCE_FEATURES")
AttentionRecordSocket = io.Custom("ATTENTION_RECORD")
TruePoseNetworks = io.Custom("TRUEPOSE_MODEL")


@dataclass(frozen=True, eq=False)
class FPDMModel:
    """FPDM_MODEL: FPDM's own networks, without the UNet that they steer.

    `patcher` is the host's ModelPatcher around the `FPDM` module, which moves it between memory
    and the graphics card; `name` is what error messages call it. The module has its file's dtype
    until `host.on_device(patcher, torch.float32)` makes it ready for use.
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
    fusion embedding of zeros (not zero itself: the layers have biases); `carried` (B, C0, h, w),
    the part of the source that rides with the pose, where the FPDM has one.
    """

    pose_features: torch.Tensor | None
    time_offset: torch.Tensor
    time_offset_without_fusion: torch.Tensor
    carried: torch.Tensor | None = None


Block = tuple[str, int, int]
"""A transformer block of the host's UNet: "input", "middle" or "output", where, which of these."""


@dataclass(frozen=True, eq=False)
class LiveSource:
    """A source that is looked at again in every step: `latent` (B, C, h, w) on the VAE's scale."""

    latent: torch.Tensor
    conditioning: list[list[Any]]


@dataclass(frozen=True, eq=False)
class SourceFeatures:
    """SOURCE_FEATURES: what SourceNet's self-attentions were given.

    `hidden` (B, N, C) for each transformer block, normed, before the projections, row by row over
    `shapes` (rows, columns); `regions` (B, R, h, w) are soft masks of TruePose's regions. `empty`
    is what unconditional predictions attend to instead, or has no blocks where they attend to
    nothing. With `live`, `hidden` has no blocks: they are made while sampling. `context` (K, R) is
    1 where token k of the pair's context was made of the crop of region r, None where no token was.
    """

    regions: torch.Tensor
    hidden: Mapping[Block, torch.Tensor]
    shapes: Mapping[Block, tuple[int, int]]
    empty: Mapping[Block, torch.Tensor]
    live: LiveSource | None = None
    context: torch.Tensor | None = None

    @property
    def megabytes(self) -> float:
        kept = [*self.hidden.values(), *self.empty.values()]
        return sum(x.numel() * x.element_size() for x in kept) / 2**20


@dataclass(frozen=True, eq=False)
class VCMModel:
    """VCM_WEIGHTS: the visual consistency module called `name`, in the host's ModelPatcher.

    `tower` is the patcher of the image tower that came with it (pictures (B, H, W, 3) in, embeds
    (B, E) out), or None where a CLIP Vision model has to give the embeddings.
    """

    name: str
    patcher: Any
    tower: Any | None

    @property
    def vcm(self) -> VCM:
        return self.patcher.model


@dataclass(frozen=True, eq=False)
class VCMCondition:
    """What rides on a CONDITIONING of Apply VCM: `values` (1, K), packed by its plan, and which
    tokens of the text stand for the face."""

    values: torch.Tensor
    face_tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TruePoseModel:
    """TRUEPOSE_MODEL: what a trained pair needs besides its two nets.

    `patcher` is the host's ModelPatcher around the networks of `truepose_loading.PairNetworks`,
    None for a pair of Leffa's layout, which has no others; `name` is what error messages call it.
    """

    name: str
    patcher: Any | None
