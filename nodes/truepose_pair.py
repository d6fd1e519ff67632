# SPDX-License-Identifier: GPL-3.0-or-later
"""Trained TruePose pairs in a graph: load them, tell them source and pose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from ..pose_transfer.demo.models import TRUEPOSE_WEIGHTS
from ..pose_transfer.errors import CheckpointError, PoseTransferError
from ..pose_transfer.images import as_rgb, bhwc_to_bchw, broadcast_batches
from ..pose_transfer.types import Parsing
from . import host
from .sockets import FPDMCondition, PersonParsing, TruePoseModel, TruePoseNetworks
from .truepose import CATEGORY, LATENT_FACTOR
from .truepose_tokens import source_tokens

DEMO = "mannequin demo (comes with the pack)"
NO_PAIR = "(no pair yet: see the help page)"


class LoadTruePose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        pairs = _pairs()
        return io.Schema(
            node_id="PoseTransferLoadTruePose",
            display_name="Load TruePose",
            category=CATEGORY,
            description="Loads a pair of nets that were trained together: one looks at the source, "
            "the other draws the picture.",
            search_aliases=["truepose", "leffa", "siamese", "reference unet", "pose transfer"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=pairs,
                    default=pairs[0],
                    tooltip="A file in models/pose_transfer/truepose: this pack's own, or Leffa's "
                    "pose transfer; or, where this copy of the pack has it, the demo that re-poses "
                    "rendered mannequins only.",
                )
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="Draws the picture. For Apply TruePose."
                ),
                io.Model.Output(
                    display_name="source_model",
                    tooltip="Looks at the source. For Source Features.",
                ),
                TruePoseNetworks.Output(display_name="truepose", tooltip="For Apply TruePose."),
                io.Vae.Output(tooltip="The pair's autoencoder."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str) -> bool | str:
        try:
            _path(checkpoint)
        except PoseTransferError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str) -> str:
        """A file that was replaced under the same name is read again."""
        found = _path(checkpoint).stat()
        return f"{checkpoint} {found.st_size} {found.st_mtime_ns}"

    @classmethod
    def execute(cls, checkpoint: str) -> io.NodeOutput:
        from . import truepose_loading as loading

        path = _path(checkpoint)
        pair = loading.load_demo_pair(path) if checkpoint == DEMO else loading.load(path)
        return io.NodeOutput(pair.target, pair.source, pair.networks, pair.vae)


def _pairs() -> list[str]:
    """What can be chosen: the demo's pair if it is there, and files; never nothing."""
    demo = [DEMO] if TRUEPOSE_WEIGHTS.is_file() else []
    return [*demo, *host.files_in(host.TRUEPOSE_FOLDER)] or [NO_PAIR]


def _path(checkpoint: str) -> Path:
    """The file of a choice. CheckpointError says what to do where there is none."""
    if checkpoint == DEMO:
        if not TRUEPOSE_WEIGHTS.is_file():
            raise CheckpointError(
                f"This copy of the pack holds no demo pair ({TRUEPOSE_WEIGHTS}). Choose a file of "
                "models/pose_transfer/truepose, or train the pair: "
                "python -m pose_transfer.training.truepose"
            )
        return TRUEPOSE_WEIGHTS
    if checkpoint == NO_PAIR:
        searched = ", ".join(str(folder) for folder in host.model_folders(host.TRUEPOSE_FOLDER))
        raise CheckpointError(
            f"There is no TruePose pair in {searched}. Put Leffa's pose_transfer.pth or a pair of "
            "your own there, press R to refresh the list, and choose it."
        )
    return host.file_in(host.TRUEPOSE_FOLDER, checkpoint)


class ApplyTruePose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferApplyTruePose",
            display_name="Apply TruePose",
            category=CATEGORY,
            description="Tells a trained pair whom to draw in which pose. Guide Attention comes "
            "behind it.",
            search_aliases=["truepose", "CAA", "densepose", "pose transfer"],
            inputs=[
                io.Model.Input("model", tooltip="From Load TruePose, with or without LoRAs."),
                TruePoseNetworks.Input("truepose", tooltip="From the same Load TruePose."),
                io.Image.Input("source", tooltip="The person to re-pose."),
                io.Image.Input(
                    "pose_map",
                    tooltip="The target pose: drawn in the style 'fpdm' for pairs of this pack, a "
                    "DensePose picture for Leffa's. Its size is the size of the result.",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="Of the source, for pairs that know it by a stock CLIP. The demo and "
                    "Leffa's pair need none.",
                ),
                io.Image.Input(
                    "source_pose_map",
                    optional=True,
                    tooltip="The pose that the source has, drawn in the same way. Pairs of this "
                    "pack then find each limb's clothes more surely.",
                ),
                PersonParsing.Input(
                    "source_parsing",
                    optional=True,
                    tooltip="Of the source, for pairs trained with region_tokens: face, hair and "
                    "each garment are looked at one by one, too.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="For source_parsing, with pairs that know pictures by a stock CLIP.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For Guide Attention."),
                io.Conditioning.Output(display_name="positive", tooltip="Source and pose."),
                io.Conditioning.Output(
                    display_name="negative", tooltip="Neither, as in the pair's training."
                ),
                io.Conditioning.Output(
                    display_name="source_conditioning",
                    tooltip="What the source's net is told: for Source Features.",
                ),
                io.Latent.Output(tooltip="Empty, of the pose map's size."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        truepose: TruePoseModel,
        source: torch.Tensor,
        pose_map: torch.Tensor,
        clip_vision_output: Any = None,
        source_pose_map: torch.Tensor | None = None,
        source_parsing: Parsing | None = None,
        clip_vision: Any = None,
    ) -> io.NodeOutput:
        from .fpdm import crop_to_latents
        from .patches import fpdm, truepose_source

        source, pose_map = as_rgb(source, "source"), crop_to_latents(as_rgb(pose_map, "pose map"))
        if truepose.patcher is None:
            told = truepose_source.leffa_conditioning(model, pose_map)
            return io.NodeOutput(
                model, told, told, truepose_source.plain_conditioning(model, None),
                _empty_latent(model, pose_map, len(pose_map)),
            )  # fmt: skip
        tokens, owners = source_tokens(
            truepose, source, clip_vision_output, clip_vision, source_parsing
        )
        tokens, condition = _conditions(truepose, tokens, pose_map)
        nothing = FPDMCondition(None, condition.time_offset, condition.time_offset)
        return io.NodeOutput(
            fpdm.apply_fpdm(model, tokens, condition, truepose.name),
            _owned(fpdm.conditioning(tokens, condition), owners),
            fpdm.conditioning(torch.zeros_like(tokens[:1]), nothing),
            _owned(
                fpdm.conditioning(
                    tokens[: len(source)],
                    nothing
                    if source_pose_map is None
                    else _posed(truepose, as_rgb(source_pose_map, "source pose map"), len(source)),
                ),
                owners,
            ),
            _empty_latent(model, pose_map, len(tokens)),
        )


def _conditions(
    truepose: TruePoseModel, tokens: torch.Tensor, pose_map: torch.Tensor
) -> tuple[torch.Tensor, FPDMCondition]:
    """Tokens (B, K, D) of the source and the pose's features, as many of each."""
    assert truepose.patcher is not None
    networks, device = truepose.patcher.model, host.on_device(truepose.patcher)
    tokens, features = broadcast_batches(
        source=tokens,
        pose_map=host.keep(networks.pose_encoder(bhwc_to_bchw(pose_map).to(device))),
    )
    return tokens, _without_fusion(features)


def _owned(conditioning: list[list[Any]], owners: torch.Tensor | None) -> list[list[Any]]:
    """A CONDITIONING that says which token is of which region's crop, where any is."""
    from .patches.truepose_context import REGIONS_KEY

    if owners is None:
        return conditioning
    return [[tokens, {**settings, REGIONS_KEY: owners}] for tokens, settings in conditioning]


def _posed(truepose: TruePoseModel, pose_map: torch.Tensor, sources: int) -> FPDMCondition:
    """What the source's net is told of the poses that the sources have."""
    from .fpdm import crop_to_latents

    assert truepose.patcher is not None
    networks, device = truepose.patcher.model, host.on_device(truepose.patcher)
    pixels = bhwc_to_bchw(crop_to_latents(pose_map)).to(device)
    features = host.keep(networks.pose_encoder(pixels))
    _, features = broadcast_batches(source=torch.empty(sources), source_pose_map=features)
    return _without_fusion(features)


def _without_fusion(features: torch.Tensor) -> FPDMCondition:
    """The pose comes in as FPDM's does; there is no fusion embedding."""
    without = torch.zeros(1, 4 * features.shape[1])
    return FPDMCondition(features, without, without)


def _empty_latent(model: Any, pose_map: torch.Tensor, batch: int) -> dict[str, Any]:
    channels = model.get_model_object("latent_format").latent_channels
    height, width = (side // LATENT_FACTOR for side in pose_map.shape[1:3])
    samples = host.keep(torch.zeros(batch, channels, height, width))
    return {"samples": samples, "downscale_ratio_spacial": LATENT_FACTOR}
