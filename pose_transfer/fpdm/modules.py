# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM's own small networks, with the parameter names of the released checkpoints.

Source: Lee et al., "Fusion Embedding for Pose-Guided Person Image Synthesis with Diffusion
Model". Dropout modules hold no parameters but take part in the numbering inside `net`, so they
stay where the released code has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Combiner(nn.Module):
    """Stage 1: fuses the embeddings of source image and target pose into one.

    `h = [ReLU(W_p e_pose), ReLU(W_i e_source)]`,
    `fused = output(ReLU(W_c h)) + d(h) e_pose + (1 - d(h)) e_source`, then L2-normalised;
    `d` in (0, 1) is a learnt scalar per sample.
    """

    def __init__(
        self,
        embed_dim: int = 768,
        projection_dim: int = 768,
        hidden_dim: int = 768,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.kpt_projection_layer = nn.Linear(embed_dim, projection_dim)
        self.image_projection_layer = nn.Linear(embed_dim, projection_dim)
        self.combiner_layer = nn.Linear(2 * projection_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, embed_dim)
        self.dynamic_scalar = nn.Sequential(
            nn.Linear(2 * projection_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, 1),
            nn.Sigmoid(),
        )
        self.dropout = nn.Dropout(dropout)

    def combine_features(self, source_embeds: Tensor, pose_embeds: Tensor) -> Tensor:
        """The fusion before normalisation: (B, E), (B, E) -> (B, E)."""
        pose = self.dropout(F.relu(self.kpt_projection_layer(pose_embeds)))
        source = self.dropout(F.relu(self.image_projection_layer(source_embeds)))
        both = torch.cat([pose, source], dim=-1)  # (B, 2P)
        mixed = self.output_layer(self.dropout(F.relu(self.combiner_layer(both))))
        d = self.dynamic_scalar(both)  # (B, 1)
        return mixed + d * pose_embeds + (1 - d) * source_embeds

    def forward(self, source_embeds: Tensor, pose_embeds: Tensor) -> Tensor:
        """The fusion embedding, of length 1: (B, E), (B, E) -> (B, E). Source first."""
        return F.normalize(self.combine_features(source_embeds, pose_embeds), dim=-1)


class SourceProjection(nn.Module):
    """Hidden states of the source tower (B, N, C) -> cross-attention tokens (B, N, D)."""

    def __init__(
        self, in_dim: int = 1024, hidden_dim: int = 768, out_dim: int = 1024, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.net = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.LayerNorm(hidden_dim),
            nn.Linear(hidden_dim, out_dim),
            nn.Dropout(dropout),
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.net(hidden_states)


class ClassEmbedding(nn.Module):
    """Fusion embedding (B, E) -> what is added to the UNet's time embedding (B, 4 C0)."""

    def __init__(
        self, in_dim: int = 768, hidden_dim: int = 768, out_dim: int = 1280, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.net = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, out_dim),
            nn.Dropout(dropout),
        )

    def forward(self, fusion: Tensor) -> Tensor:
        return self.net(fusion)


class PoseEncoder(nn.Module):
    """Drawn pose (B, 3, H, W) in [0, 1] -> features (B, C0, H/8, W/8), at first all zero.

    ControlNet's conditioning embedding: at each change of width one convolution that keeps the
    size and one of stride 2. The last one starts at zero, so an untrained encoder changes nothing.
    """

    def __init__(
        self, out_channels: int = 320, block_channels: Sequence[int] = (16, 32, 96, 256)
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, block_channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(block_channels):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(block_channels[-1], out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, pose_map: Tensor) -> Tensor:
        features = F.silu(self.conv_in(pose_map))
        for block in self.blocks:
            features = F.silu(block(features))
        return self.conv_out(features)
