# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiny random autoencoders of Stable Diffusion's kind."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL


def build_autoencoder(*widths: int, **settings: Any) -> AutoencoderKL:
    """A level for each width; they are halved between levels."""
    levels: dict[str, Any] = {  # diffusers annotates each of these as a tuple of one
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
    }
    return AutoencoderKL(**levels, **settings)
