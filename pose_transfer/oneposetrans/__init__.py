# SPDX-License-Identifier: GPL-3.0-or-later
"""OnePoseTrans: one-shot tuning on a person's photo, and the visual consistency module.

Fan et al., "One-shot Learning for Pose-guided Person Image Synthesis in the Wild" (arXiv
2409.09593). This package knows the released weights and this project's own, and no host
application.
"""

from .resampler import ImageProjection, Resampler
from .vcm import face_value, vcm_attention
from .vcm_adapter import VCM, TokenAdapter
from .vcm_files import read_vcm_file, save_vcm

__all__ = [
    "VCM",
    "ImageProjection",
    "Resampler",
    "TokenAdapter",
    "face_value",
    "read_vcm_file",
    "save_vcm",
    "vcm_attention",
]
