# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the demo's small networks: weights in fp16, and the table that rebuilds the network.

The metadata is `{"format": "pose_transfer.mannequin", "version": "1", "config": JSON}`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError
from ..weights import read_weights, write_weights
from .models import FORMAT, GET_AGAIN, WEIGHTS, existing

PERSON_FILE = "mannequin_person.safetensors"
FACE_FILE = "mannequin_face.safetensors"
PERSON_WEIGHTS, FACE_WEIGHTS = WEIGHTS / PERSON_FILE, WEIGHTS / FACE_FILE


def write_network(path: Path, module: nn.Module, config: dict[str, Any]) -> None:
    """Convolutions and matrices in fp16; the statistics of normalisation keep their precision."""
    tensors = {
        name: value.half() if value.dim() > 1 else value.float()
        for name, value in module.state_dict().items()
        if value.is_floating_point()
    }
    metadata = {"format": FORMAT, "version": "1", "config": json.dumps(config)}
    write_weights(path, tensors, metadata)


def read_network(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The table and the float32 state of the network in `path`. Raises CheckpointError."""
    path = existing(path)
    file = read_weights(path)
    if file.metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no network of the demo: its format is {file.metadata.get('format')!r}, "
            f"not {FORMAT!r}. {GET_AGAIN}"
        )
    return json.loads(file.metadata["config"]), {k: v.float() for k, v in file.tensors.items()}


def load_state(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Give `module` the state that `read_network` read. Raises CheckpointError."""
    state = {k: v for k, v in module.state_dict().items() if not v.is_floating_point()}
    try:
        module.load_state_dict({**state, **tensors})
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights in {path} do not fit their description. {GET_AGAIN}"
        ) from error
