# SPDX-License-Identifier: GPL-3.0-or-later
"""The pose detectors that the node offers.

Their modules are imported when one is chosen: each needs packages that may not be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..pose_transfer.detectors import PoseDetector
from . import host
from .once import load_once

DWPOSE = "DWPose"
OPENPOSE = "OpenPose"
DEMO = "mannequin (demo)"
DETECTORS = (DWPOSE, OPENPOSE, DEMO)


def load_detector(name: str, parts: list[str]) -> PoseDetector:
    """The detector of that name, with the networks that the parts need.

    Raises CheckpointError and MissingDependencyError.
    """
    if name == DWPOSE:
        from ..pose_transfer.detectors.dwpose import load_dwpose

        return load_once(
            load_dwpose, *_pose_files("dwpose", "yolox_l.onnx", "dw-ll_ucoco_384.onnx")
        )
    if name == OPENPOSE:
        (body,) = _pose_files("openpose", "body_pose_model.pth")
        hand = _pose_files("openpose", "hand_pose_model.pth") if "hands" in parts else [None]
        face = _pose_files("openpose", "facenet.pth") if "face" in parts else [None]
        detector, patcher = load_once(_load_managed_openpose, body, *hand, *face)
        host.on_device(patcher)
        return detector
    from ..pose_transfer.detectors.demo import load_demo_detector

    return load_once(load_demo_detector)


def _load_managed_openpose(
    body: Path, hand: Path | None, face: Path | None
) -> tuple[PoseDetector, Any]:
    from ..pose_transfer.detectors.openpose import load_openpose

    detector = load_openpose(body, hand, face)
    return detector, host.managed(detector.networks)


def _pose_files(model: str, *names: str) -> list[Path]:
    return host.model_files(host.POSE_FOLDER, model, names)
