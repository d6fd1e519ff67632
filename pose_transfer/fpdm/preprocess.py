# SPDX-License-Identifier: GPL-3.0-or-later
"""From pictures to the pixel tensors that FPDM's two towers take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..images import as_rgb, bhwc_to_bchw, resize_bicubic

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class FPDMPreprocess:
    """Sizes (height, width) in pixels and colour statistics of the towers' inputs.

    Both towers get the whole picture: stretched, not cropped, with PIL's bicubic filter on 8-bit
    levels.
    """

    source_size: tuple[int, int] = (512, 512)
    embed_size: tuple[int, int] = (224, 224)
    source_mean: tuple[float, float, float] = IMAGENET_MEAN
    source_std: tuple[float, float, float] = IMAGENET_STD
    embed_mean: tuple[float, float, float] = CLIP_MEAN
    embed_std: tuple[float, float, float] = CLIP_STD
    prediction_type: str = "v_prediction"
    """What the UNet predicts, in diffusers' words."""
    photo_size: tuple[int, int] | None = None
    """Photos, not pose maps, are stretched to this size first, if to any."""
    latent_scale: float | None = None
    """The UNet sees the autoencoder's latents this many times as large; None: as the autoencoder's
    own `scaling_factor` says."""

    def source_pixels(self, photo_bhwc: Tensor) -> Tensor:
        """Photo (B, H, W, 3) in [0, 1] -> normalised (B, 3, *source_size) for the source tower."""
        photo = _stretched(self._photo(photo_bhwc), self.source_size)
        return _normalised(photo, self.source_mean, self.source_std)

    def embed_pixels(self, photo_bhwc: Tensor) -> Tensor:
        """Photo (B, H, W, 3) in [0, 1] -> normalised (B, 3, *embed_size) for the image tower."""
        return self.embed_pose_pixels(self._photo(photo_bhwc))

    def embed_pose_pixels(self, pose_map_bhwc: Tensor) -> Tensor:
        """Drawn pose (B, H, W, 3) in [0, 1] -> normalised (B, 3, *embed_size)."""
        pose_map = _stretched(as_rgb(pose_map_bhwc), self.embed_size)
        return _normalised(pose_map, self.embed_mean, self.embed_std)

    def _photo(self, photo_bhwc: Tensor) -> Tensor:
        photo = as_rgb(photo_bhwc)
        return photo if self.photo_size is None else _stretched(photo, self.photo_size)


RELEASED = FPDMPreprocess(photo_size=(512, 512))
"""The released stage 2's path; its stage 1 was trained on centre crops instead."""


def _stretched(image_bhwc: Tensor, size: tuple[int, int]) -> Tensor:
    # Width first, then height: Pillow did so always up to 12, later it chooses, and the rounding
    # between the two passes shows in one pixel of a hundred.
    height, width = size
    return resize_bicubic(resize_bicubic(image_bhwc, image_bhwc.shape[1], width), height, width)


def _normalised(image_bhwc: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    mean_rgb, std_rgb = (torch.tensor(x, device=image_bhwc.device) for x in (mean, std))
    return bhwc_to_bchw((image_bhwc.float() - mean_rgb) / std_rgb)
