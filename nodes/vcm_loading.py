# SPDX-License-Identifier: GPL-3.0-or-later
"""From weight files to what Load VCM puts out."""

from __future__ import annotations

from pathlib import Path

from ..pose_transfer.demo.vcm import load_vcm
from ..pose_transfer.errors import CheckpointError
from ..pose_transfer.oneposetrans import VCM, TokenAdapter, read_vcm_file
from . import host
from .once import load_once
from .sockets import VCMModel


def load_demo_weights(path: Path) -> VCMModel:
    """The mannequins' module and its image tower, read once while the file stays the same."""
    return load_once(_load_demo, path)


def load_weights(image_path: Path, face_path: Path | None) -> VCMModel:
    """An IP-Adapter, and the face part of an InstantID file where there is one."""
    return load_once(_load, image_path, face_path)


def _load_demo(path: Path) -> VCMModel:
    demo = load_vcm(path)
    return VCMModel("mannequin demo", host.managed(demo.vcm), host.managed(demo.tower))


def _load(image_path: Path, face_path: Path | None) -> VCMModel:
    file = read_vcm_file(image_path)
    if file.image is None:
        raise CheckpointError(
            f"{image_path} is made for faces, not for pictures. Choose an IP-Adapter as image "
            "weights, and this file as face weights."
        )
    face = file.face if face_path is None else _face(face_path)
    return VCMModel(image_path.name, host.managed(VCM(file.image, face)), None)


def _face(path: Path) -> TokenAdapter:
    face = read_vcm_file(path).face
    if face is None:
        raise CheckpointError(
            f"{path} is made for pictures, not for faces. Choose InstantID's ip-adapter.bin as "
            "face weights."
        )
    return face
