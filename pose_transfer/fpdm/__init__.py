# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM: a fusion embedding, source tokens and a pose map steer a Stable Diffusion UNet.

Lee et al., "Fusion Embedding for Pose-Guided Person Image Synthesis with Diffusion Model". This
package knows the released checkpoints and this project's own, and no host application.

The names that need diffusers and transformers are imported on first use: that takes seconds, and
who only needs a formula should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .guidance import cumulative_guidance
from .losses import info_nce, retrieval_ranks
from .modules import ClassEmbedding, Combiner, PoseEncoder, SourceProjection
from .preprocess import FPDMPreprocess

if TYPE_CHECKING:
    from .checkpoint import load_checkpoint, save_checkpoint
    from .model import FPDM

__all__ = [
    "FPDM",
    "ClassEmbedding",
    "Combiner",
    "FPDMPreprocess",
    "PoseEncoder",
    "SourceProjection",
    "cumulative_guidance",
    "info_nce",
    "load_checkpoint",
    "retrieval_ranks",
    "save_checkpoint",
]

_ON_FIRST_USE = {"FPDM": "model", "load_checkpoint": "checkpoint", "save_checkpoint": "checkpoint"}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ON_FIRST_USE[name]}", __name__), name)
