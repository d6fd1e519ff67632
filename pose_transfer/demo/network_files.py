# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the demo's small networks: weights in fp16, and the table that rebuilds the network.

The metadata is `{"format": "pose_transfer.mannequin", "version": "1", "config": JSON}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from ..errors import CheckpointError
from ..weights import read_weights, write_weights
from .models import FORMAT, GET_AGAIN, WEIGHTS, existing

Net = TypeVar("Net", bound=nn.Module)

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


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The table and the float32 state of the network in `path`. Raises CheckpointError."""
    path = existing(path)
    file = read_weights(path)
    if file.metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no network of the demo: its format is {file.metadata.get('format')!r}, "
            f"not {FORMAT!r}. {GET_AGAIN}"
        )
    return json.loads(file.metadata["config"]), {k: v.float() for k, v in file.tensors.items()}


def load_network(path: Path, build: Callable[[dict[str, Any]], Net]) -> Net:
    """The network in `path`, frozen and in eval mode; `build` makes it from its table.

    Raises CheckpointError for a file that is missing, damaged or of another network.
    """
    config, tensors = _read(path)
    try:
        module = build(config)
        state = {k: v for k, v in module.state_dict().items() if not v.is_floating_point()}
        module.load_state_dict({**state, **tensors})
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not hold the network that is wanted here. {GET_AGAIN}"
        ) from error
    return module.eval().requires_grad_(False)
