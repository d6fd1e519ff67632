# SPDX-License-Identifier: GPL-3.0-or-later
"""OnePoseTrans's visual consistency module in a graph: load it, let it steer a MODEL."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..pose_transfer.errors import PoseTransferError
from ..pose_transfer.oneposetrans.blocks import image_weights
from ..pose_transfer.oneposetrans.lora_blocks import INJECTION, TABLE, UNIFORM
from ..pose_transfer.oneposetrans.vcm_words import Chunks, face_tokens
from ..pose_transfer.types import FaceEmbedding
from . import host
from .sockets import FaceEmbeddings, VCMModel, VCMWeights
from .vcm_inputs import conditions, face_of, picture_embeds

CATEGORY = "pose transfer/one pose trans"
DEMO = "mannequin demo (comes with the pack)"
SAME_FILE = "of the same file"


class LoadVCM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferLoadVCM",
            display_name="Load VCM",
            category=CATEGORY,
            description="Loads the weights of OnePoseTrans's visual consistency module: an "
            "IP-Adapter for the look of a person, InstantID's adapter for the face.",
            search_aliases=["ip-adapter", "ipadapter", "instantid", "OnePoseTrans", "image prompt"],
            inputs=[
                io.Combo.Input(
                    "image_weights",
                    options=[DEMO, *host.files_in(host.IPADAPTER_FOLDER)],
                    default=DEMO,
                    tooltip="An IP-Adapter in models/ipadapter, plain or plus, for Stable "
                    "Diffusion 1.5 or XL, or the demo that knows rendered mannequins only.",
                ),
                io.Combo.Input(
                    "face_weights",
                    options=[SAME_FILE, *host.files_in(host.INSTANTID_FOLDER)],
                    default=SAME_FILE,
                    tooltip="InstantID's ip-adapter.bin in models/instantid, for SDXL. The demo "
                    "has a face part of its own; IP-Adapters have none, and then the face is not "
                    "treated by itself.",
                ),
            ],
            outputs=[VCMWeights.Output(display_name="vcm", tooltip="For Apply VCM.")],
        )

    @classmethod
    def validate_inputs(cls, image_weights: str, face_weights: str) -> bool | str:
        try:
            _paths(image_weights, face_weights)
        except PoseTransferError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, image_weights: str, face_weights: str) -> str:
        """A file that was replaced under the same name is read again."""
        found = [path for path in _paths(image_weights, face_weights) if path and path.exists()]
        return " ".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in found)

    @classmethod
    def execute(cls, image_weights: str, face_weights: str) -> io.NodeOutput:
        from . import vcm_loading

        image, face = _paths(image_weights, face_weights)
        if image_weights != DEMO:
            return io.NodeOutput(vcm_loading.load_weights(image, face))
        if face is not None:
            raise PoseTransferError(
                f"The demo has a face part of its own and cannot take {face_weights!r}. Choose "
                f"{SAME_FILE!r} as face weights, or an IP-Adapter as image weights."
            )
        return io.NodeOutput(vcm_loading.load_demo_weights(image))


class ApplyVCM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="PoseTransferApplyVCM",
            display_name="Apply VCM",
            category=CATEGORY,
            description="Makes a MODEL draw the person of a picture: image tokens beside the text, "
            "and the face in place of the word 'face'.",
            search_aliases=[
                "OnePoseTrans", "visual consistency", "ip-adapter", "image prompt", "instantid",
                "face", "style injection",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A UNet of Stable Diffusion 1.5 or XL, as the VCM's weights are, or "
                    "the demo's. With or without LoRAs and other packs' patches.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder of the same model."),
                VCMWeights.Input("vcm", tooltip="From Load VCM."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="A woman with face, a black shirt, khaki trousers.",
                    tooltip="What the picture shall show, with the face word in it. OnePoseTrans "
                    "uses captions of the form 'A man with face, a black shirt, khaki trousers.'",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="low quality, bad quality",
                    tooltip="What the picture shall not show.",
                ),
                io.String.Input(
                    "face_word",
                    default="face",
                    tooltip="The word or phrase of the prompt that the face is put into, or "
                    "several with commas between. Needed with a face embedding only.",
                ),
                io.Combo.Input(
                    "blocks",
                    options=[INJECTION, UNIFORM, TABLE],
                    default=INJECTION,
                    tooltip="Where in the UNet the image tokens act. Style injection: the paper's "
                    "1.0 and 0.4 in the first up block with attention (up_blocks.0 in SDXL, "
                    "up_blocks.1 in SD 1.5) and 0 elsewhere; clothes and colours without the "
                    "source's pose. Uniform: 1 everywhere. Table: as written below.",
                ),
                io.Float.Input(
                    "image_scale",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="How strongly the picture is followed; multiplies the block weights. "
                    "0 switches the image tokens off.",
                ),
                io.String.Input(
                    "block_table",
                    multiline=True,
                    default="up_blocks.0.attentions.0 = 0.4\nup_blocks.0.attentions.1 = 1.0",
                    tooltip="For 'table': one line for each block in diffusers' names, or for the "
                    "beginning of several (down_blocks, up_blocks.1). Blocks that no line names "
                    "get 0.",
                ),
                io.Float.Input(
                    "face_scale",
                    default=0.0,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="An attention to the face's tokens, added in every block. The paper "
                    "uses 0: the face comes in through its word alone.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    **share,
                    tooltip="The share of the sampling after which it begins to act.",
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    **share,
                    tooltip="The share of the sampling after which it acts no more.",
                ),
                io.Combo.Input(
                    "crop",
                    options=["center", "none"],
                    default="center",
                    tooltip="How CLIP Vision sees a picture that is not square: its middle, as the "
                    "published method does, or all of it, squeezed. The demo always sees all.",
                ),
                io.Image.Input(
                    "source",
                    optional=True,
                    tooltip="The person. Several pictures of one person as a batch give more "
                    "image tokens. Not needed with a CLIP Vision output.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The image encoder that the IP-Adapter was made for, from Load CLIP "
                    "Vision: ViT-H for SD 1.5 and for the files named vit-h, ViT-bigG for other "
                    "SDXL ones. The demo brings its own.",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="From CLIP Vision Encode, in place of source and clip_vision.",
                ),
                FaceEmbeddings.Input(
                    "face_embedding",
                    optional=True,
                    tooltip="From Face Embedding: insightface's antelopev2 for InstantID, the "
                    "demo's encoder for the demo. Without it, or where no face was found, the "
                    "image tokens act alone.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="Where in the result image and face tokens act: white fully, black "
                    "not at all. It is stretched to the result's size. The face word knows no "
                    "place.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For KSampler, or for more patches and LoRAs."),
                io.Conditioning.Output(
                    display_name="positive", tooltip="The prompt, picture and face."
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The negative prompt, with the tokens of an empty picture and face.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vcm: VCMModel,
        prompt: str,
        negative_prompt: str,
        face_word: str,
        blocks: str,
        image_scale: float,
        block_table: str,
        face_scale: float,
        start: float,
        end: float,
        crop: str,
        source: torch.Tensor | None = None,
        clip_vision: Any = None,
        clip_vision_output: Any = None,
        face_embedding: FaceEmbedding | None = None,
        region: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        from .patches import vcm as patches

        parts = patches.cross_attentions(model)
        patches.require_fitting_unet(model, parts, vcm.vcm.image.widths, vcm.name)
        face = face_of(vcm, face_embedding)
        words = () if face is None else face_tokens(prompt, face_word, lambda x: _chunks(clip, x))
        weights = image_weights(blocks, block_table, parts)
        scales = tuple(image_scale * weights[part.name] for part in parts)
        pictures = picture_embeds(vcm, source, clip_vision, clip_vision_output, crop)
        plan, (positive, negative) = conditions(vcm, pictures, face, scales, face_scale, words)
        host.say(cls.hidden.unique_id, _report(face_embedding, words, scales))
        return io.NodeOutput(
            patches.apply_vcm(model, parts, plan, start, end, region),
            patches.with_condition(_encode(clip, prompt), positive),
            patches.with_condition(_encode(clip, negative_prompt), negative),
        )


def _paths(image_weights: str, face_weights: str) -> tuple[Any, Any]:
    """The two files; None where the face has no file of its own."""
    from ..pose_transfer.demo.vcm import VCM_WEIGHTS  # its package takes a moment to import

    return (
        VCM_WEIGHTS
        if image_weights == DEMO
        else host.file_in(host.IPADAPTER_FOLDER, image_weights),
        None if face_weights == SAME_FILE else host.file_in(host.INSTANTID_FOLDER, face_weights),
    )


def _encode(clip: Any, text: str) -> list[Any]:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def _chunks(clip: Any, text: str) -> Chunks:
    """SDXL's two encoders count tokens alike."""
    tokens = clip.tokenize(text, return_word_ids=True)
    return tokens.get("l") or next(iter(tokens.values()))


def _report(
    embedding: FaceEmbedding | None, words: tuple[int, ...], scales: tuple[float, ...]
) -> str:
    """What the node says on itself."""
    acting = sum(scale != 0 for scale in scales)
    image = f"Image tokens act in {acting} of {len(scales)} cross-attentions."
    if embedding is None:
        return f"No face embedding: plain image attention.\n{image}"
    if not words:
        return f"No face found in the source: plain image attention.\n{image}"
    return f"The face replaces {len(words)} token(s) of the prompt.\n{image}"
