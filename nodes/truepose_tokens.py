# SPDX-License-Identifier: GPL-3.0-or-later
"""CAA in the host: a trained pair's context tokens of a source, or of its regions' crops."""

from __future__ import annotations

from typing import Any

import torch

from ..pose_transfer.errors import PoseTransferError
from ..pose_transfer.truepose import context_regions, region_crops, region_maps
from ..pose_transfer.types import Parsing
from . import host
from .sockets import TruePoseModel

TOKENS_KEY = "pose_transfer_truepose_tokens"
"""Attached to the source_model of a pair: its TRUEPOSE_MODEL."""


def tokens_of_clip(truepose: TruePoseModel, clip_vision_output: Any) -> torch.Tensor:
    """CLIP's view of B pictures as the pair's context (B, K, D), on the resting device."""
    return _projected(truepose, clip_vision_output.image_embeds)


def source_tokens(
    truepose: TruePoseModel,
    source: torch.Tensor,
    clip_vision_output: Any,
    clip_vision: Any,
    parsing: Parsing | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Context (B, K, D) of sources (B, H, W, 3), and whose region each token is, (K, R) or None.

    With a parsing the region-wise form. Raises PoseTransferError where the pictures cannot be seen
    as the pair's training saw them.
    """

    def embed(pictures: torch.Tensor) -> torch.Tensor:
        networks, device = _networks(truepose)
        if networks.image_tower is not None:
            return networks.embed(pictures.to(device))
        if clip_vision is None:
            raise PoseTransferError(
                f"The pair {truepose.name!r} knows pictures by a stock CLIP. Connect CLIP Vision "
                "Encode of the source to clip_vision_output, or, for a source_parsing, Load CLIP "
                "Vision to clip_vision."
            )
        return clip_vision.encode_image(pictures, crop=False).image_embeds

    whole = embed(source) if clip_vision_output is None else clip_vision_output.image_embeds
    if parsing is None:
        return _projected(truepose, whole), None
    if parsing.labels.shape != source.shape[:3]:
        raise PoseTransferError(
            f"source_parsing is of {tuple(parsing.labels.shape)} (pictures, height, width), the "
            f"source of {tuple(source.shape[:3])}. Parse the same pictures."
        )
    embeds = [whole]
    crops = [region_crops(source[i : i + 1], maps) for i, maps in enumerate(region_maps(parsing))]
    for of_region in zip(*crops, strict=True):
        embeds.append(torch.cat([embed(crop).to(whole) for crop in of_region]))
    tokens = torch.cat([_projected(truepose, x) for x in embeds], dim=1)
    return tokens, context_regions(_networks(truepose)[0].image_tokens.tokens)


def _networks(truepose: TruePoseModel) -> tuple[Any, torch.device]:
    assert truepose.patcher is not None
    return truepose.patcher.model, host.on_device(truepose.patcher)


def _projected(truepose: TruePoseModel, embeds: torch.Tensor) -> torch.Tensor:
    networks, device = _networks(truepose)
    width = networks.image_tokens.project.in_features
    if embeds.shape[-1] != width:
        raise PoseTransferError(
            f"The CLIP vision output is {embeds.shape[-1]} wide, the pair {truepose.name!r} was "
            f"trained with {width}. Use the CLIP vision model that its page names."
        )
    return host.keep(networks.image_tokens(embeds.to(device).float()))
