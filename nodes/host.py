# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's services: model folders, devices, progress, interrupt.

Together with `patches/` and `stock_models.py` the only module that imports `comfy` and
`folder_paths`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from ..pose_transfer.errors import CheckpointError, PoseTransferError
from ..pose_transfer.weights import missing

FPDM_FOLDER = "pose_transfer_fpdm"
TRUEPOSE_FOLDER = "pose_transfer_truepose"
POSE_FOLDER = "pose_transfer_pose"
PARSING_FOLDER = "pose_transfer_parsing"
INSIGHTFACE_FOLDER = "insightface"
IPADAPTER_FOLDER = "ipadapter"
INSTANTID_FOLDER = "instantid"
_FOLDERS = {
    FPDM_FOLDER: ("pose_transfer/fpdm", {".safetensors", ".ckpt"}),
    TRUEPOSE_FOLDER: ("pose_transfer/truepose", {".safetensors", ".pth"}),
    POSE_FOLDER: ("pose_transfer/pose", {".onnx", ".pth"}),
    PARSING_FOLDER: ("pose_transfer/parsing", {".onnx", ".safetensors"}),
    INSIGHTFACE_FOLDER: ("insightface", {".onnx"}),
    IPADAPTER_FOLDER: ("ipadapter", {".safetensors", ".bin"}),
    INSTANTID_FOLDER: ("instantid", {".safetensors", ".bin"}),
}
# Where the pack comfyui_controlnet_aux keeps the same files, below the host's custom nodes.
_POSE_FILES_ELSEWHERE = tuple(
    f"comfyui_controlnet_aux/ckpts/{owner}" for owner in ("yzd-v/DWPose", "lllyasviel/Annotators")
)


Item = TypeVar("Item")


def register_model_folders() -> None:
    """Adds the pack's folders under the host's `models`, beside any that a user configured."""
    for name, (below_models, extensions) in _FOLDERS.items():
        folder = str(Path(folder_paths.models_dir, *below_models.split("/")))
        folder_paths.add_model_folder_path(name, folder)
        # The host makes a new entry with an empty set, which would list every file.
        paths, known = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, set(known) | extensions)
    # What Save FPDM writes can be loaded at once, as with the host's own output/checkpoints.
    folder_paths.add_model_folder_path(
        FPDM_FOLDER, str(Path(folder_paths.get_output_directory(), "pose_transfer", "fpdm"))
    )
    # Tuned LoRAs are LoRAs like any other, for the host's own loader too.
    folder_paths.add_model_folder_path(
        "loras", str(Path(folder_paths.get_output_directory(), "pose_transfer", "loras"))
    )
    for custom_nodes in folder_paths.get_folder_paths("custom_nodes"):
        for folder in _POSE_FILES_ELSEWHERE:
            found = Path(custom_nodes, *folder.split("/"))
            if found.is_dir():
                folder_paths.add_model_folder_path(POSE_FOLDER, str(found))
    # Other packs keep this model directly below `models`.
    if Path(folder_paths.models_dir, "segformer_b2_clothes").is_dir():
        folder_paths.add_model_folder_path(PARSING_FOLDER, folder_paths.models_dir)


def model_folders(name: str) -> list[Path]:
    """The folders that the host searches under that name."""
    return [Path(folder) for folder in folder_paths.get_folder_paths(name)]


def model_files(folder: str, model: str, names: Sequence[str]) -> list[Path]:
    """Where the files of a model of the registry are, in one of the host's folders of that name.

    CheckpointError names the files that lack, where they were looked for and how to get them.
    """
    found = {name: folder_paths.get_full_path(folder, name) for name in names}
    lacking = [name for name, path in found.items() if path is None]
    if lacking:
        raise CheckpointError(missing(model, folder_paths.get_folder_paths(folder), lacking))
    return [Path(path) for path in found.values() if path is not None]


def lora_files() -> list[str]:
    """Names of all LoRAs that the host finds, tuned ones among them."""
    return folder_paths.get_filename_list("loras")


def lora_path(name: str) -> Path:
    """The file of that name; CheckpointError tells where it was looked for."""
    found = folder_paths.get_full_path("loras", name)
    if found is None:
        searched = ", ".join(folder_paths.get_folder_paths("loras"))
        raise CheckpointError(
            f"There is no LoRA called {name!r}. Searched: {searched}. Put the file there, press R "
            "to refresh the list, and choose it."
        )
    return Path(found)


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


def files_in(folder: str) -> list[str]:
    """Names of the files in the host's folders of that name, relative to them."""
    return folder_paths.get_filename_list(folder)


def file_in(folder: str, name: str) -> Path:
    """The file of that name; CheckpointError tells where it was looked for."""
    found = folder_paths.get_full_path(folder, name)
    if found is None:
        searched = ", ".join(folder_paths.get_folder_paths(folder))
        raise CheckpointError(
            f"There is no file {name!r} in {searched}. Put it there, press R to refresh the list, "
            "and choose it."
        )
    return Path(found)


def input_files(suffixes: tuple[str, ...]) -> list[str]:
    """Names of the files in the host's input folder that end so."""
    folder = Path(folder_paths.get_input_directory())
    return sorted(
        path.name for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file()
    )


def input_path(name: str) -> Path:
    """The file of that name in the host's input folder, or in another as 'name [output]'.

    PoseTransferError when it is not there or lies outside of the folder.
    """
    if not folder_paths.exists_annotated_filepath(name):
        raise PoseTransferError(
            f"There is no file {name!r} in {folder_paths.get_input_directory()}. Put it there, "
            "press R to refresh the list, and choose it."
        )
    return Path(folder_paths.get_annotated_filepath(name))


def next_output_files(prefix: str, suffix: str, count: int, width: int, height: int) -> list[Path]:
    """Paths in the host's output folder that are free, numbered on as Save Image does.

    `prefix` may have folders, which are made, and the host's placeholders, for which `width` and
    `height` are. PoseTransferError when it leads out of the output folder or is no file's name.
    """
    output = folder_paths.get_output_directory()
    try:
        folder, name, number, _, _ = folder_paths.get_save_image_path(prefix, output, width, height)
    except Exception as error:  # the host raises a bare one
        raise PoseTransferError(
            f"No file can be made for the filename prefix {prefix!r} in {output}. Use a plain "
            "name, with folders below the output folder if you like."
        ) from error
    return [Path(folder, f"{name}_{number + i:05}_{suffix}") for i in range(count)]


def managed(module: nn.Module) -> comfy.model_patcher.ModelPatcher:
    """A patcher through which the host moves a module of ours to its device and back.

    The plain patcher, not the host's dynamic one: that one needs the host's own layer classes.
    """
    return comfy.model_patcher.ModelPatcher(
        module.eval().requires_grad_(False),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def on_device(
    patcher: comfy.model_patcher.ModelPatcher, dtype: torch.dtype | None = None
) -> torch.device:
    """Loads the module onto the device that the host chose for it and returns that device.

    `dtype` is what the module computes in, by default what it is stored as. It is converted when
    it is first used, not when its file is loaded: what a graph does not use costs nothing.
    """
    if dtype is not None:
        patcher.model.to(dtype=dtype)  # before the host asks how large it is
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return patcher.load_device


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether that is why it was raised, however the device says it."""
    test = getattr(comfy.model_management, "is_oom", None)  # older hosts have none
    return isinstance(error, torch.OutOfMemoryError) or (test is not None and test(error))


def keep(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where the host keeps results between nodes, in float32."""
    return tensor.to(comfy.model_management.intermediate_device(), torch.float32)


def absent(message: str) -> ExecutionBlocker:
    """An output that is not there: only nodes that use it stop, and they show the message."""
    return ExecutionBlocker(message)


def each(items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items one after the other, with the node's progress bar; stops when the artist does."""
    bar = comfy.utils.ProgressBar(total)
    for done, item in enumerate(items, start=1):
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield item
        bar.update_absolute(done)


def show(picture: NDArray[np.uint8]) -> None:
    """Puts a picture (H, W, 3) on the node that runs, in place of those that it showed meanwhile.

    For nodes that show some: the front end goes on showing the last one, and would hide what the
    node sends as its `ui`, or show it twice.
    """
    size = max(picture.shape[:2])
    bar = comfy.utils.ProgressBar(1)
    bar.update_absolute(1, preview=("JPEG", Image.fromarray(picture), size))


def say(node_id: str | None, text: str) -> None:
    """Shows a text on the node itself, as the host's Get Image Size does."""
    from server import PromptServer  # there is none where the pack is used without the server

    if node_id is not None:
        PromptServer.instance.send_progress_text(text, node_id)
