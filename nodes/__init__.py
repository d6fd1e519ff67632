# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue: every node of the pack, in the order of the menu."""

from __future__ import annotations

from comfy_api.latest import io

from .compare import Compare
from .demo import DemoModels, DemoPerson
from .fpdm import ApplyFPDM, FPDMGuiderNode, FusionEmbeddingNode, LoadFPDM
from .host import register_model_folders
from .pose import DrawPose

NODES: tuple[type[io.ComfyNode], ...] = (
    DrawPose,
    LoadFPDM,
    FusionEmbeddingNode,
    ApplyFPDM,
    FPDMGuiderNode,
    Compare,
    DemoModels,
    DemoPerson,
)

register_model_folders()
