# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM into one file of the pack's own kind."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import host
from .fpdm import CATEGORY
from .sockets import FPDMModel, FPDMWeights

DTYPES = ["fp16", "bf16", "fp32"]


class SaveFPDM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferSaveFPDM",
            display_name="Save FPDM",
            category=CATEGORY,
            description="Writes MODEL, FPDM and VAE into one .safetensors that Load FPDM lists: "
            "the released checkpoints at half their size, or a LoRA baked in.",
            search_aliases=["fpdm", "convert checkpoint", "save checkpoint", "bake lora", "export"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="From Load FPDM, with or without LoRAs. They become part of the file.",
                ),
                FPDMWeights.Input("fpdm", tooltip="From the same Load FPDM."),
                io.Combo.Input(
                    "dtype",
                    options=DTYPES,
                    default="fp16",
                    tooltip="How each number is stored. fp16 is half as large as the released "
                    "files, and what most graphics cards compute in anyway; fp32 keeps all digits.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="pose_transfer/fpdm/fpdm",
                    tooltip="Begin of the file's name below ComfyUI's output folder. A number "
                    "follows. Load FPDM lists what lies in output/pose_transfer/fpdm.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The autoencoder to put into the file. Without it Load FPDM will need "
                    "one beside the file.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="Path of the new file.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        if filename_prefix is not None and not filename_prefix.strip():
            return "The filename_prefix is empty, expected the begin of a name, such as 'fpdm'."
        return True

    @classmethod
    def execute(
        cls, model: Any, fpdm: FPDMModel, dtype: str, filename_prefix: str, vae: Any = None
    ) -> io.NodeOutput:
        from . import loading  # diffusers takes seconds to import

        (path,) = host.next_output_files(filename_prefix, ".safetensors", 1, 0, 0)
        loading.save_fpdm(path, model, fpdm, vae, dtype)
        return io.NodeOutput(str(path), ui={"text": (str(path),)})
