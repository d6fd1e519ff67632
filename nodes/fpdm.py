# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM in a graph: load it, fuse source and pose, let it steer a MODEL, guide the sampler.

Modules that import diffusers are imported where they are used: that takes seconds, which would
be added to the start of every ComfyUI that has the pack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from ..pose_transfer.errors import PoseTransferError
from ..pose_transfer.images import as_rgb, bhwc_to_bchw, broadcast_batches
from . import host
from .guidance import more_inputs, read_guidance, weight_inputs
from .sockets import FPDMCondition, FPDMModel, FPDMWeights, Fusion, FusionEmbedding

DEMO = "mannequin demo (comes with the pack)"
IN_CHECKPOINT = "in the checkpoint"
CATEGORY = "pose transfer/fpdm"
LATENT_FACTOR = 8


class LoadFPDM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = host.fpdm_files()
        return io.Schema(
            node_id="PoseTransferLoadFPDM",
            display_name="Load FPDM",
            category=CATEGORY,
            description="Loads an FPDM checkpoint: its UNet as MODEL, its autoencoder as VAE, and "
            "the networks that steer the UNet.",
            search_aliases=["fpdm", "fusion embedding", "pose transfer checkpoint", "re-pose"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=[DEMO, *files],
                    default=DEMO,
                    tooltip="A file in models/pose_transfer/fpdm (.safetensors or .ckpt), or the "
                    "demo that re-poses rendered mannequins only.",
                ),
                io.Combo.Input(
                    "fusion",
                    options=[IN_CHECKPOINT, *files],
                    default=IN_CHECKPOINT,
                    optional=True,
                    tooltip="Stage 1's file (last.ckpt), for a checkpoint without a fusion model, "
                    "or to try another one. The released stage 2 holds its own.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Stable Diffusion's VAE, for a checkpoint without one, or to use "
                    "another. It is passed on in place of the checkpoint's.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The UNet. LoRAs and the like go here, before Apply FPDM."),
                FPDMWeights.Output(
                    display_name="fpdm", tooltip="For Fusion Embedding and Apply FPDM."
                ),
                io.Vae.Output(tooltip="The autoencoder of the checkpoint, for VAE Decode."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str, fusion: str = IN_CHECKPOINT) -> bool | str:
        try:
            _chosen_files(checkpoint, fusion)
        except PoseTransferError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls, checkpoint: str, fusion: str = IN_CHECKPOINT, vae: Any = None
    ) -> str:
        """A file that was replaced under the same name is read again."""
        found = [file and file.stat() for file in _chosen_files(checkpoint, fusion)]
        stamps = [stat and (stat.st_size, stat.st_mtime_ns) for stat in found]
        return f"{checkpoint} {fusion} {stamps}"

    @classmethod
    def execute(
        cls, checkpoint: str, fusion: str = IN_CHECKPOINT, vae: Any = None
    ) -> io.NodeOutput:
        from . import loading

        path, fusion_path = _chosen_files(checkpoint, fusion)
        if path is None:
            demo = loading.load_demo()
            return io.NodeOutput(demo.model, demo.fpdm, demo.vae if vae is None else vae)
        return io.NodeOutput(*loading.load_fpdm(path, fusion_path, vae))


def _chosen_files(checkpoint: str, fusion: str) -> tuple[Path | None, Path | None]:
    """The files of Load FPDM's two choices, None for the demo and for 'in the checkpoint'."""
    if checkpoint == DEMO and fusion != IN_CHECKPOINT:
        raise PoseTransferError(
            f"The demo has a fusion model of its own and cannot take {fusion!r}. Set fusion to "
            f"'{IN_CHECKPOINT}', or choose a checkpoint of FPDM's second stage."
        )
    return (
        None if checkpoint == DEMO else host.fpdm_path(checkpoint),
        None if fusion == IN_CHECKPOINT else host.fpdm_path(fusion),
    )


class FusionEmbeddingNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferFusionEmbedding",
            display_name="Fusion Embedding",
            category=CATEGORY,
            description="Foresees how the source person will look in the target pose.",
            search_aliases=["fpdm", "combiner", "IPF", "image pose fusion"],
            inputs=[
                FPDMWeights.Input("fpdm", tooltip="From Load FPDM or Demo Models."),
                io.Image.Input(
                    "source", tooltip="The person to re-pose. One picture, or one for each pose."
                ),
                io.Image.Input(
                    "pose_map",
                    tooltip="The target pose, drawn in the style 'fpdm'. One picture, or one for "
                    "each source.",
                ),
            ],
            outputs=[
                Fusion.Output(
                    display_name="fusion_embedding",
                    tooltip="For Apply FPDM, with the same pictures.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, fpdm: FPDMModel, source: torch.Tensor, pose_map: torch.Tensor
    ) -> io.NodeOutput:
        source, pose_map = as_rgb(source, "source"), as_rgb(pose_map, "pose map")
        source, pose_map = broadcast_batches(source=source, pose_map=pose_map)
        device = host.on_device(fpdm.patcher, torch.float32)
        embeds = fpdm.fpdm.fuse(source.to(device), pose_map.to(device))
        return io.NodeOutput(FusionEmbedding(fpdm.name, host.keep(embeds)))


class ApplyFPDM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferApplyFPDM",
            display_name="Apply FPDM",
            category=CATEGORY,
            description="Makes a MODEL draw the source person in the target pose.",
            search_aliases=["fpdm", "pose transfer", "re-pose", "pose guided person"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The UNet that came with this FPDM, with or without LoRAs.",
                ),
                FPDMWeights.Input("fpdm", tooltip="From Load FPDM or Demo Models."),
                io.Image.Input(
                    "source",
                    tooltip="The person to re-pose. One picture, or one for each pose. Any size.",
                ),
                io.Image.Input(
                    "pose_map",
                    tooltip="The target pose, drawn in the style 'fpdm'. Its size is the size of "
                    "the result; pixels beyond a multiple of 8 are cropped, as VAE Encode does.",
                ),
                Fusion.Input(
                    "fusion_embedding",
                    optional=True,
                    tooltip="From Fusion Embedding with the same source and pose. Without it the "
                    "model sees the source's tokens and the pose only.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For FPDM Guider, BasicScheduler or KSampler."),
                io.Conditioning.Output(
                    display_name="positive",
                    tooltip="Source, pose and fusion embedding.",
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="FPDM's empty condition, zeros throughout.",
                ),
                io.Latent.Output(tooltip="Empty, of the pose map's size and batch."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        fpdm: FPDMModel,
        source: torch.Tensor,
        pose_map: torch.Tensor,
        fusion_embedding: FusionEmbedding | None = None,
    ) -> io.NodeOutput:
        from .patches import fpdm as patches

        source, pose_map = as_rgb(source, "source"), crop_to_latents(as_rgb(pose_map, "pose map"))
        tokens, condition = _conditions(fpdm, source, pose_map, fusion_embedding)
        zeros = FPDMCondition(
            None, condition.time_offset_without_fusion, condition.time_offset_without_fusion
        )
        batch, height, width = tokens.shape[0], pose_map.shape[1], pose_map.shape[2]
        channels = model.get_model_object("latent_format").latent_channels
        latent = host.keep(
            torch.zeros(batch, channels, height // LATENT_FACTOR, width // LATENT_FACTOR)
        )
        return io.NodeOutput(
            patches.apply_fpdm(model, tokens, condition, fpdm.name),
            patches.conditioning(tokens, condition),
            patches.conditioning(torch.zeros_like(tokens[:1]), zeros),
            {"samples": latent, "downscale_ratio_spacial": LATENT_FACTOR},
        )


class FPDMGuiderNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferFPDMGuider",
            display_name="FPDM Guider",
            category=CATEGORY,
            description="FPDM's cumulative guidance, with one weight for pose and source and one "
            "for the fusion embedding. Goes into SamplerCustomAdvanced.",
            search_aliases=["fpdm", "guidance", "cfg", "cumulative guidance", "guider"],
            inputs=[
                io.Model.Input("model", tooltip="From Apply FPDM."),
                io.Conditioning.Input("positive", tooltip="From Apply FPDM."),
                io.Conditioning.Input("negative", tooltip="From Apply FPDM."),
                *weight_inputs(),
                *more_inputs(),
            ],
            outputs=[io.Guider.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list[Any],
        negative: list[Any],
        source_weight: float,
        fusion_weight: float,
        **more: Any,
    ) -> io.NodeOutput:
        from .patches.fpdm import FPDMGuider

        guider = FPDMGuider(model, read_guidance(source_weight, fusion_weight, **more))
        guider.set_conds(positive, negative)
        return io.NodeOutput(guider)


def crop_to_latents(pose_map: torch.Tensor) -> torch.Tensor:
    """The middle of the picture whose sides are multiples of 8: BHWC -> BHWC."""
    height, width = (side - side % LATENT_FACTOR for side in pose_map.shape[1:3])
    if not height or not width:
        raise PoseTransferError(
            f"The pose map is {pose_map.shape[2]}x{pose_map.shape[1]} px, expected at least "
            f"{LATENT_FACTOR}x{LATENT_FACTOR}. Draw it larger."
        )
    top, left = (pose_map.shape[1] - height) // 2, (pose_map.shape[2] - width) // 2
    return pose_map[:, top : top + height, left : left + width]


def _conditions(
    fpdm: FPDMModel,
    source: torch.Tensor,
    pose_map: torch.Tensor,
    fusion: FusionEmbedding | None,
) -> tuple[torch.Tensor, FPDMCondition]:
    """Tokens (B, N, D) and what else the UNet is told, all on the host's resting device."""
    module, device = fpdm.fpdm, host.on_device(fpdm.patcher, torch.float32)
    width = module.class_embedding.in_dim
    embeds = torch.zeros(1, width) if fusion is None else fusion.embeds
    if fusion is not None and embeds.shape[-1] != width:
        raise PoseTransferError(
            f"The fusion embedding was made by {fusion.name!r} and is {embeds.shape[-1]} wide, "
            f"the FPDM {fpdm.name!r} needs {width}. Make it with the same FPDM."
        )
    # Unequal batches are refused here; a single source is looked at once, however many poses.
    broadcast_batches(source=source, pose_map=pose_map, fusion_embedding=embeds)
    source, drawn = source.to(device), bhwc_to_bchw(pose_map).to(device)
    hidden = module.source_hidden(source)
    carried = module.carried_features(source, hidden, drawn)
    tokens, pose_features, offset = broadcast_batches(
        source=host.keep(module.source_tokens(hidden)),
        pose_map=host.keep(module.pose_features(drawn)),
        fusion_embedding=host.keep(module.time_offset(embeds.to(device))),
    )
    without = host.keep(module.time_offset(torch.zeros(1, width, device=device)))
    return tokens, FPDMCondition(
        pose_features, offset, without, None if carried is None else host.keep(carried)
    )
