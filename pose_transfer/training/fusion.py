# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM's first stage: the image tower and the Combiner under InfoNCE (papers' A2 and A3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..demo.architecture import COMBINER, EMBED_SIZE
from ..fpdm.losses import info_nce, retrieval_ranks
from ..fpdm.modules import Combiner
from ..fpdm.preprocess import CLIP_MEAN, CLIP_STD
from .batches import Batches, normalised


class FusionModel(nn.Module):
    """One tower for source, pose and target, and the Combiner (by default the demo's)."""

    def __init__(self, tower: nn.Module, combiner: Combiner | None = None) -> None:
        super().__init__()
        self.tower = tower
        # The released rate of 0.5 is for 768 units; these layers are a quarter of that.
        self.combiner = combiner or Combiner(**COMBINER, dropout=0.1)

    def forward(self, source: Tensor, pose: Tensor, target: Tensor):
        """Normalised pixels (B, 3, S, S) each -> target, source and fused embeddings (B, E)."""
        embeds = self.tower(torch.cat([source, pose, target])).image_embeds
        source_embeds, pose_embeds, target_embeds = embeds.chunk(3)
        return target_embeds, source_embeds, self.combiner(source_embeds, pose_embeds)


def fusion_loss(
    module: nn.Module,
    data: Batches,
    batch: int,
    source_enhanced: bool,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One batch of triplets, temperature and L1 weight as released."""
    index = data.draw(batch, generator)
    partner = data.partners(index, generator)

    def pixels(name: str, rows: Tensor) -> Tensor:
        return normalised(data.pictures(name, rows), EMBED_SIZE, CLIP_MEAN, CLIP_STD)

    target, source, fused = module(
        pixels("image", index), pixels("pose_map", partner), pixels("image", partner)
    )
    loss = info_nce(target, source, fused, 0.07, 1e-4, source_enhanced)
    with torch.no_grad():
        ranks = retrieval_ranks(fused, torch.cat([target, source]))
    return loss, {"recall": (ranks <= 1).float().mean()}
