# SPDX-License-Identifier: GPL-3.0-or-later
"""The face encoders that the node offers.

Their modules are imported when one is chosen: each needs packages that may not be there.
"""

from __future__ import annotations

from pathlib import Path

from ..pose_transfer.detectors import FaceEncoder
from ..pose_transfer.detectors.face_packs import PACKS, find_pack
from ..pose_transfer.errors import PoseTransferError
from . import host
from .once import load_once

DEMO = "mannequin (demo)"
_PACKS = {f"insightface {pack}": pack for pack in PACKS}
ENCODERS = (*_PACKS, DEMO)


def load_encoder(name: str) -> FaceEncoder:
    """The encoder of that name. Raises CheckpointError and MissingDependencyError."""
    if name == DEMO:
        from ..pose_transfer.detectors.demo import load_demo_face_encoder

        return load_once(load_demo_face_encoder)
    from ..pose_transfer.detectors.face import import_face_analysis

    import_face_analysis()  # what to install comes before what to download
    folder = find_pack(_PACKS[name], host.model_folders(host.INSIGHTFACE_FOLDER))
    return load_once(_load_pack, folder)


def load_named(name: str) -> FaceEncoder:
    """The encoder that calls itself so, as a FACE_EMBEDDING names the one that made it.

    Raises as `load_encoder`, and PoseTransferError for a name that the node does not offer, such as
    that of models which another pack loaded.
    """
    if name not in ENCODERS:
        raise PoseTransferError(
            f"The face embedding was made by {name!r}, which cannot be loaded again to look at "
            f"other pictures. Make it with one of these in Face Embedding: {', '.join(ENCODERS)}."
        )
    return load_encoder(name)


def _load_pack(folder: Path) -> FaceEncoder:
    from ..pose_transfer.detectors.face import load_insightface

    return load_insightface(folder)
