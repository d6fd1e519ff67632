# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue: every node of the pack, in the order of the menu."""

from __future__ import annotations

from comfy_api.latest import io

from .compare import Compare
from .demo import DemoModels, DemoPerson
from .detect import DetectPose
from .face import FaceEmbeddingNode
from .fpdm import ApplyFPDM, FPDMGuiderNode, FusionEmbeddingNode, LoadFPDM
from .host import register_model_folders
from .person import CompositePerson, ParsePerson, RegionMask
from .pose import DrawPose, RetargetPose
from .pose_files import LoadPose, SavePose

NODES: tuple[type[io.ComfyNode], ...] = (
    DetectPose,
    LoadPose,
    SavePose,
    RetargetPose,
    DrawPose,
    FaceEmbeddingNode,
    ParsePerson,
    RegionMask,
    CompositePerson,
    LoadFPDM,
    FusionEmbeddingNode,
    ApplyFPDM,
    FPDMGuiderNode,
    Compare,
    DemoModels,
    DemoPerson,
)

register_model_folders()
