# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue: every node of the pack, in the order of the menu."""

from __future__ import annotations

from comfy_api.latest import io

from .compare import Compare
from .demo import DemoModels, DemoMotion, DemoPerson
from .detect import DetectPose
from .edit_pose import EditPose
from .face import FaceEmbeddingNode
from .fpdm import ApplyFPDM, FPDMGuiderNode, FusionEmbeddingNode, LoadFPDM
from .fpdm_files import SaveFPDM
from .host import register_model_folders
from .oneposetrans import ApplyLoRA, TuneLoRA
from .person import CompositePerson, ParsePerson, RegionMask
from .pose import DrawPose, RetargetPose
from .pose_files import LoadPose, SavePose
from .sequence import FPDMSequence, SmoothPose
from .truepose import AttentionMaps, GuideAttention, SourceFeaturesNode
from .truepose_pair import ApplyTruePose, LoadTruePose
from .vcm import ApplyVCM, LoadVCM

NODES: tuple[type[io.ComfyNode], ...] = (
    DetectPose,
    LoadPose,
    SavePose,
    EditPose,
    RetargetPose,
    SmoothPose,
    DrawPose,
    FaceEmbeddingNode,
    ParsePerson,
    RegionMask,
    CompositePerson,
    TuneLoRA,
    ApplyLoRA,
    LoadVCM,
    ApplyVCM,
    LoadFPDM,
    SaveFPDM,
    FusionEmbeddingNode,
    ApplyFPDM,
    FPDMGuiderNode,
    FPDMSequence,
    LoadTruePose,
    ApplyTruePose,
    SourceFeaturesNode,
    GuideAttention,
    AttentionMaps,
    Compare,
    DemoModels,
    DemoPerson,
    DemoMotion,
)

register_model_folders()
