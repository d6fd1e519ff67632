# SPDX-License-Identifier: GPL-3.0-or-later
"""OnePoseTrans's one-shot tuning in a graph: learn a person from a photo, apply what was learnt."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..pose_transfer.errors import PoseTransferError
from ..pose_transfer.images import as_rgb
from ..pose_transfer.oneposetrans.lora_blocks import PRESETS, UNIFORM
from ..pose_transfer.oneposetrans.settings import TuningSettings
from ..pose_transfer.types import FaceEmbedding
from . import host
from .sockets import FaceEmbeddings

CATEGORY = "pose transfer/one pose trans"
FROM_INPUT = "(from the input 'lora')"
CROP_SQUARE, CROP_NONE = "random squares", "whole photo"
MAX_SEED = 2**63 - 1

LoraModel = io.Custom("LORA_MODEL")
LossMap = io.Custom("LOSS_MAP")


class TuneLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferTuneLoRA",
            display_name="Tune LoRA on a Person",
            category=CATEGORY,
            description="Teaches a MODEL one person from a photo or a few, in a minute or less. "
            "The same photo, caption, model and settings are tuned only once: the LoRA is kept in "
            "output/pose_transfer/loras.",
            search_aliases=["oneposetrans", "one-shot", "train lora", "dreambooth", "customise"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="What shall learn the person. It is left as it was."
                ),
                io.Vae.Input("vae", tooltip="The autoencoder that belongs to the MODEL."),
                io.Image.Input("photos", tooltip="One photo of the person, or a batch of photos."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the person is (1), one for all photos or one each, as Region "
                    "Mask puts it out. Nothing else is learnt. Without it the whole photo is.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="What the photos show, from CLIP Text Encode. With one whole photo "
                    "Apply ControlNet may come between: its pose is then not learnt. Instead of "
                    "it, connect 'clip' and write the prompt here.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Encodes 'prompt'. Only looked at if 'positive' is not connected. With "
                    "it the previews are guided (CFG 5) and look better.",
                ),
                io.String.Input(
                    "prompt",
                    default="A person with face.",
                    multiline=True,
                    tooltip="What the photos show, such as 'A woman with face, a red shirt, blue "
                    "trousers.' Use the same words for the picture afterwards.",
                ),
                io.Int.Input(
                    "steps",
                    default=60,
                    min=1,
                    max=10000,
                    tooltip="Steps of training; 60 as published. Tiny models need more.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=1e-3,
                    min=1e-6,
                    max=1.0,
                    step=1e-5,
                    round=False,
                    tooltip="How far each step goes. If the loss rises, use less.",
                ),
                io.Int.Input(
                    "rank", default=32, min=1, max=512, tooltip="How much the LoRA can hold."
                ),
                io.Float.Input(
                    "alpha",
                    default=32.0,
                    min=0.01,
                    max=1024.0,
                    step=0.5,
                    tooltip="Strength of the LoRA while it learns, in units of the rank.",
                ),
                io.Int.Input("batch", default=2, min=1, max=64, tooltip="Crops per step."),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=2048,
                    step=8,
                    tooltip="Shorter side of the photos while tuning, px. 512 as published, also "
                    "for SDXL; 192 for the demo models.",
                ),
                io.Combo.Input(
                    "crop",
                    options=[CROP_SQUARE, CROP_NONE],
                    default=CROP_SQUARE,
                    tooltip="Random squares of that side, as published, or always all of it.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,
                    tooltip="Same seed, same LoRA.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=20,
                    min=0,
                    max=10000,
                    tooltip="Shows a quick picture from the caption after so many steps, always "
                    "from the same noise. 0: at the end only.",
                ),
                io.String.Input(
                    "blocks",
                    default="",
                    advanced=True,
                    tooltip="Blocks to tune, separated by commas, by their names or the beginning "
                    "of names: 'up_blocks, mid_block'. Empty: all.",
                ),
                io.Float.Input(
                    "min_snr_gamma",
                    default=0.0,
                    min=0.0,
                    max=20.0,
                    step=0.5,
                    advanced=True,
                    tooltip="Min-SNR weighting of the noise levels; 5 is usual, 0 is off.",
                ),
                io.Float.Input(
                    "noise_offset",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Noise that is constant over the picture; 0.05 lets very bright and "
                    "very dark photos be learnt. 0 is off.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Compares each preview with the photos, of which only the masked "
                    "person counts, and keeps the weights of the likest one, not the last.",
                ),
                FaceEmbeddings.Input(
                    "face_embedding",
                    optional=True,
                    tooltip="From Face Embedding, of the photos. Compares the face in each preview "
                    "with it and keeps the weights of the likest one; with 'clip_vision' both "
                    "count alike.",
                ),
            ],
            outputs=[
                LoraModel.Output(
                    display_name="lora", tooltip="For Apply LoRA by Block, or Save LoRA Weights."
                ),
                io.Model.Output(tooltip="The MODEL with the LoRA at full strength."),
                LossMap.Output(display_name="loss", tooltip="For Plot Loss Graph."),
                io.Image.Output(display_name="preview", tooltip="The previews, the last one last."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        photos: torch.Tensor,
        prompt: str,
        preview_every: int,
        mask: torch.Tensor | None = None,
        positive: list[Any] | None = None,
        clip: Any = None,
        clip_vision: Any = None,
        face_embedding: FaceEmbedding | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        from .patches import lora, tuning
        from .tuning_sheet import tuning_sheet

        photos = as_rgb(photos, "photos")
        _require_mask_fits(mask, photos)
        whole = values["crop"] == CROP_NONE and len(photos) == 1
        job = tuning.Job(
            model, vae, _caption(positive, clip, prompt, whole), photos, mask, _settings(**values),
            preview_every, clip_vision, face_embedding,
        )  # fmt: skip
        tuned, report = tuning.tune_or_load(job)
        host.say(cls.hidden.unique_id, report)
        applied = lora.apply_lora(model, tuned.tensors, UNIFORM, "", 1.0)
        host.show(tuning_sheet(tuned, preview_every))
        return io.NodeOutput(tuned.tensors, applied, {"loss": list(tuned.loss)}, tuned.previews)


class ApplyLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferApplyLoRA",
            display_name="Apply LoRA by Block",
            category=CATEGORY,
            description="Applies a LoRA with a weight of its own for each block of the MODEL, so "
            "that it gives clothes and face but leaves the pose alone.",
            search_aliases=["lora block weight", "style injection", "instantstyle", "oneposetrans"],
            inputs=[
                io.Model.Input("model", tooltip="What the LoRA is applied to."),
                LoraModel.Input(
                    "lora", optional=True, tooltip="From Tune LoRA on a Person or Train LoRA."
                ),
                io.Combo.Input(
                    "file",
                    options=[FROM_INPUT, *host.lora_files()],
                    default=FROM_INPUT,
                    tooltip="A file in models/loras or one that was tuned, instead of the input.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default=UNIFORM,
                    tooltip="uniform: everywhere alike. style injection: 1 in the block that "
                    "carries clothes and face, 0.2 elsewhere, for re-posing. refining: 1 there, 0 "
                    "elsewhere. table: as written below.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Multiplies the weight of every block.",
                ),
                io.String.Input(
                    "table",
                    default="",
                    multiline=True,
                    advanced=True,
                    tooltip="For the preset 'table': one 'block = weight' per line, such as "
                    "'up_blocks.1 = 1.0'. Beginnings of names do, the longest that fits holds, "
                    "blocks that are not named get 0.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For KSampler or what else patches a MODEL.")],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        if file != FROM_INPUT:
            try:
                host.lora_path(file)
            except PoseTransferError as error:
                return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> str:
        """A file that was replaced under the same name is read again."""
        if file == FROM_INPUT:
            return file
        found = host.lora_path(file).stat()
        return f"{file} {found.st_size} {found.st_mtime_ns}"

    @classmethod
    def execute(
        cls, model: Any, file: str, preset: str, strength: float, table: str, lora: Any = None
    ) -> io.NodeOutput:
        from ..pose_transfer.weights import read_weights
        from .once import load_once
        from .patches.lora import apply_lora

        if file != FROM_INPUT:
            lora = load_once(read_weights, host.lora_path(file)).tensors
        elif lora is None:
            raise PoseTransferError(
                "There is no LoRA: connect 'lora' to Tune LoRA on a Person, or choose a file."
            )
        return io.NodeOutput(apply_lora(model, lora, preset, table, strength))


def _settings(crop: str, blocks: str, **values: Any) -> TuningSettings:
    """The widgets' values, whose names are those of the settings."""
    return TuningSettings(
        whole_photo=crop == CROP_NONE,
        blocks=tuple(name.strip() for name in blocks.split(",") if name.strip()),
        **values,
    )


def _caption(positive: list[Any] | None, clip: Any, prompt: str, controlled: bool) -> Any:
    from .patches import tuning

    if positive is not None:
        return tuning.EncodedCaption(positive, controlled)
    if clip is None:
        raise PoseTransferError(
            "Nothing says what the photos show. Connect 'clip' and write the prompt, or connect "
            "'positive' to CLIP Text Encode."
        )
    return tuning.WrittenCaption(clip, prompt)


def _require_mask_fits(mask: torch.Tensor | None, photos: torch.Tensor) -> None:
    if mask is not None and len(mask) not in (1, len(photos)):
        raise PoseTransferError(
            f"There are {len(mask)} masks for {len(photos)} photos, expected one for all or one "
            "each. Make the batches equally long."
        )
