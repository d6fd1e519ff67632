# SPDX-License-Identifier: GPL-3.0-or-later
"""TruePose: the regions of the source guide attention, so that patterns and the face survive.

Xu et al., "TruePose: Human-Parsing-Guided Attention Diffusion for Full-ID Preserving Pose
Transfer", arXiv 2502.03426. Neither code nor weights were released: [P] marks what the paper
states, [D] what it leaves open and is decided here. This package knows no host application.
"""

from .alignment import (
    CROPPED,
    ImageTokens,
    alignment_loss,
    context_regions,
    pooled_attention,
    region_context_bias,
    region_crops,
)
from .fusion import (
    attention_mass,
    correspondence_logits,
    fusion_attention,
    fusion_mask,
    joined_attention,
    kept_tokens,
    masked_fusion_attention,
)
from .priors import limb_priors
from .regions import (
    DEFAULT_WEIGHTS,
    REGIONS,
    pooled_regions,
    region_maps,
    region_shares,
    source_gate,
)

__all__ = [
    "CROPPED",
    "DEFAULT_WEIGHTS",
    "REGIONS",
    "ImageTokens",
    "alignment_loss",
    "attention_mass",
    "context_regions",
    "correspondence_logits",
    "fusion_attention",
    "fusion_mask",
    "joined_attention",
    "kept_tokens",
    "limb_priors",
    "masked_fusion_attention",
    "pooled_attention",
    "pooled_regions",
    "region_context_bias",
    "region_crops",
    "region_maps",
    "region_shares",
    "source_gate",
]
