# SPDX-License-Identifier: GPL-3.0-or-later
"""Batched sampling of FPDM without a host: DDIM (eta 0) and cumulative guidance.

The benchmark uses it so that hundreds of pictures can be made on a machine without ComfyUI. The
graph in the host runs the same network and the same guidance under the host's own samplers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..demo.architecture import LATENT_FACTOR, SCHEDULER
from ..fpdm import FPDM

FusionSlot = Callable[[FPDM, Tensor, Tensor], Tensor]
"""(model, source BHWC, pose map BHWC) -> what goes into the fusion slot, (B, E)."""


def fused_embedding(fpdm: FPDM, source: Tensor, pose_map: Tensor) -> Tensor:
    """The IPF's fusion embedding: B5 and B6 of the paper's ablation."""
    return fpdm.fuse(source, pose_map)


def source_embedding(fpdm: FPDM, source: Tensor, pose_map: Tensor) -> Tensor:
    """The source's own image embedding in the fusion slot, normalised as a fusion is: B4."""
    return torch.nn.functional.normalize(fpdm.embed_image(source), dim=-1)


def no_embedding(fpdm: FPDM, source: Tensor, pose_map: Tensor) -> Tensor:
    """Zeros in the fusion slot: B3."""
    return torch.zeros_like(fpdm.embed_image(source))


@dataclass(frozen=True)
class SamplingSettings:
    """Number of steps, the two guidance weights, and whether the demo's transport takes part."""

    steps: int = 20
    source_weight: float = 2.0
    fusion_weight: float = 2.0
    carry: bool = True


def scheduler_for(steps: int, config: dict[str, Any] = SCHEDULER) -> DDIMScheduler:
    """DDIM over `steps` evenly spaced times from the last one (pure noise) to a clean picture."""
    scheduler = DDIMScheduler(**config, timestep_spacing="trailing", set_alpha_to_one=True)
    scheduler.set_timesteps(steps)
    return scheduler


@torch.no_grad()
def sample_latents(
    fpdm: FPDM,
    source: Tensor,
    pose_map: Tensor,
    noise_seeds: Sequence[int],
    settings: SamplingSettings,
    fusion: FusionSlot = fused_embedding,
) -> Tensor:
    """Latents (B, C, H/8, W/8) of the source person (B, Hs, Ws, 3) in the pose (B, H, W, 3).

    Both pictures are float in [0, 1] on the model's device. Picture i starts from the noise of
    seed `noise_seeds[i]`, drawn on the CPU, so that a picture does not depend on the device or on
    what else is in the batch. Raises ValueError when the batches differ in size, the pose map is
    no multiple of 8, or the model has no UNet.
    """
    batch, height, width = pose_map.shape[:3]
    if not len(source) == len(noise_seeds) == batch:
        raise ValueError(
            f"Got {len(source)} sources, {batch} pose maps and {len(noise_seeds)} noise seeds; "
            "give as many of each."
        )
    if fpdm.unet is None:
        raise ValueError("This FPDM has no UNet; load it together with its base model.")
    hidden = fpdm.source_hidden(source)
    tokens = fpdm.source_tokens(hidden)
    drawn = pose_map.permute(0, 3, 1, 2)  # BHWC -> BCHW
    pose = fpdm.pose_features(drawn)
    carried = fpdm.carried_features(source, hidden, drawn) if settings.carry else None
    if carried is not None:
        pose = pose + carried
    embedding = fusion(fpdm, source, pose_map)

    shape = (fpdm.unet.config["in_channels"], height // LATENT_FACTOR, width // LATENT_FACTOR)
    latents = torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in noise_seeds]
    ).to(source.device)

    scheduler = scheduler_for(settings.steps)
    for t in scheduler.timesteps:
        # The three passes' weights sum to 1, so guiding v is the same as guiding the noise.
        v = fpdm.predict_guided(
            latents, t, tokens, pose, embedding, settings.source_weight, settings.fusion_weight
        )
        latents = scheduler.step(v, int(t), latents, eta=0.0, return_dict=False)[0]
    return latents


def to_uint8(image: Tensor) -> Tensor:
    """[0, 1] float, clamped -> uint8 on the CPU."""
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
