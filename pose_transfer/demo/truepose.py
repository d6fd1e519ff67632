# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's TruePose pair: a small file upon the base and FPDM, which do not change.

`mannequin_truepose.safetensors` has TruePose's own format (see `truepose.checkpoint`), but only
what was trained: layers of the base's UNet under `unet.*`, the last layer of FPDM's pose encoder
under `pose_encoder.*`, and `image_tokens.*`. Its config names the weights that it was trained upon
by a hash (`borrows`), for upon others it would draw nonsense.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..errors import CheckpointError
from ..fpdm import FPDM
from ..truepose.checkpoint import TrainedPair, load_pair
from .models import (
    BASE_WEIGHTS,
    FPDM_WEIGHTS,
    GET_AGAIN,
    TRUEPOSE_WEIGHTS,
    MannequinBase,
    existing,
    load_base,
    load_fpdm,
)


def load_truepose(
    path: Path | str = TRUEPOSE_WEIGHTS,
    base_path: Path | str = BASE_WEIGHTS,
    fpdm_path: Path | str = FPDM_WEIGHTS,
) -> TrainedPair:
    """The whole pair. Raises CheckpointError for a missing or damaged file, or another base."""
    pair, base, fpdm = load_pair(existing(Path(path))), load_base(base_path), load_fpdm(fpdm_path)
    wanted, found = pair.config.get("borrows"), borrowed(base, fpdm)
    if wanted != found:
        raise CheckpointError(
            f"The demo's TruePose pair {path} was trained upon other demo models than those that "
            f"are here (it wants {wanted}, they are {found}). {GET_AGAIN}"
        )
    parts = {
        **pair.parts,
        "pose_encoder": {**fpdm.pose_encoder.state_dict(), **pair.parts["pose_encoder"]},
        "image_tower": _image_tower(fpdm),
    }
    return replace(pair, target={**base.unet, **pair.target}, parts=parts)


def borrowed(base: MannequinBase, fpdm: FPDM) -> str:
    """Which weights a pair is trained upon: the UNet's, the pose encoder's, the image tower's."""
    digest = hashlib.sha256()
    for part in (base.unet, fpdm.pose_encoder.state_dict(), _image_tower(fpdm)):
        for name, tensor in sorted(part.items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _image_tower(fpdm: FPDM) -> Mapping[str, Tensor]:
    if fpdm.image_tower is None:
        raise CheckpointError(f"The demo's FPDM has no image tower. {GET_AGAIN}")
    return fpdm.image_tower.state_dict()
