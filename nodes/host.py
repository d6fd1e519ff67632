# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's services: model folders, devices, progress, interrupt.

Together with `patches.py` and `stock_models.py` the only module that imports `comfy` and
`folder_paths`.
"""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import nn

from ..pose_transfer.errors import CheckpointError

FPDM_FOLDER = "pose_transfer_fpdm"
_FOLDERS = {FPDM_FOLDER: ("pose_transfer/fpdm", {".safetensors", ".ckpt"})}


def register_model_folders() -> None:
    """Adds the pack's folders under the host's `models`, beside any that a user configured."""
    for name, (below_models, extensions) in _FOLDERS.items():
        folder = str(Path(folder_paths.models_dir, *below_models.split("/")))
        folder_paths.add_model_folder_path(name, folder)
        # The host makes a new entry with an empty set, which would list every file.
        paths, known = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, set(known) | extensions)


def fpdm_files() -> list[str]:
    """Names of the FPDM checkpoints, relative to the searched folders."""
    return folder_paths.get_filename_list(FPDM_FOLDER)


def fpdm_path(name: str) -> Path:
    """The file of that name; CheckpointError tells where it was looked for."""
    found = folder_paths.get_full_path(FPDM_FOLDER, name)
    if found is None:
        searched = ", ".join(folder_paths.get_folder_paths(FPDM_FOLDER))
        raise CheckpointError(
            f"There is no FPDM checkpoint called {name!r}. Searched: {searched}. Put the file "
            "there (.safetensors or .ckpt), press R to refresh the list, and choose it."
        )
    return Path(found)


def managed(module: nn.Module) -> comfy.model_patcher.ModelPatcher:
    """A patcher through which the host moves a module of ours to its device and back.

    The plain patcher, not the host's dynamic one: that one needs the host's own layer classes.
    """
    return comfy.model_patcher.ModelPatcher(
        module.eval().requires_grad_(False),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def on_device(patcher: comfy.model_patcher.ModelPatcher) -> torch.device:
    """Loads the module onto the device that the host chose for it and returns that device."""
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return patcher.load_device


def keep(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where the host keeps results between nodes, in float32."""
    return tensor.to(comfy.model_management.intermediate_device(), torch.float32)


def absent(message: str) -> ExecutionBlocker:
    """An output that is not there: only nodes that use it stop, and they show the message."""
    return ExecutionBlocker(message)
