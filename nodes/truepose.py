# SPDX-License-Identifier: GPL-3.0-or-later
"""TruePose in a graph: look at the source, let its regions guide a MODEL's attention."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..pose_transfer.errors import ParsingError, PoseTransferError
from ..pose_transfer.images import as_rgb
from ..pose_transfer.pose import read_keypoints
from ..pose_transfer.truepose import DEFAULT_WEIGHTS, REGIONS, limb_priors, region_maps
from ..pose_transfer.types import Parsing, Pose
from . import host, previews
from .attention_record import AttentionRecord
from .sockets import (
    AttentionRecordSocket,
    LiveSource,
    PersonParsing,
    PoseKeypoint,
    Source,
    SourceFeatures,
)
from .truepose_tokens import TOKENS_KEY, tokens_of_clip

CATEGORY = "pose transfer/truepose"
LATENT_FACTOR = 8
CLEAN, LIVE = "clean, once", "live, every step"
BLOCKS = {
    "all": ("input", "middle", "output"),
    "second half (output)": ("output",),
    "first half (input, middle)": ("input", "middle"),
}
_PRIOR_SIZE = 256
"""Longer side of the masks that are drawn from a pose, px: no block has more tokens on a side."""
_REGION_TOOLTIPS = {
    "face": "The face, with glasses.",
    "hair": "The hair.",
    "upper": "Shirts, pullovers, jackets, coats.",
    "lower": "Trousers, shorts, skirts, belts.",
    "dress": "Dresses and jumpsuits.",
    "shoes": "Shoes and socks.",
    "skin": "Bare arms, legs, neck and trunk.",
    "accessories": "Hat, gloves, bag, scarf.",
    "background": "Everything that is not the person.",
}


class SourceFeaturesNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferSourceFeatures",
            display_name="Source Features",
            category=CATEGORY,
            description="Lets a MODEL look at the source picture once, and keeps what its "
            "self-attentions saw, so that another picture can attend to it.",
            search_aliases=["truepose", "reference only", "source net", "reference attention"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="Who looks: the MODEL that will be guided, with the same LoRAs, or "
                    "the source_model of Load TruePose.",
                ),
                io.Vae.Input("vae", tooltip="Of the MODEL."),
                io.Image.Input(
                    "source",
                    tooltip="The person whose clothes and face shall be kept. One picture, or one "
                    "for each that is sampled. Best at about the size of the result.",
                ),
                PersonParsing.Input("parsing", tooltip="Of the source, from Parse Person."),
                io.Combo.Input(
                    "mode",
                    options=[CLEAN, LIVE],
                    default=CLEAN,
                    tooltip=f"{CLEAN}: one pass over the picture as it is, used in all steps; "
                    f"cheap, and what trained pairs need. {LIVE}: the source is noised like the "
                    "picture in each step; often better with models that were not trained for it, "
                    "but every step costs one more pass.",
                ),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="What the MODEL is told about the source: a prompt that describes "
                    "it, best behind a pose ControlNet with the source's own pose (never the "
                    "target's); or the positive output of Apply FPDM or Apply TruePose for the "
                    "source. Without it the MODEL sees the picture alone.",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="What a stock CLIP sees in the source, for the source_model of a "
                    "trained pair that knows pictures so. Takes the place of the conditioning's "
                    "tokens. Apply TruePose must get the same.",
                ),
            ],
            outputs=[Source.Output(display_name="source_features", tooltip="For Guide Attention.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        source: torch.Tensor,
        parsing: Parsing,
        mode: str,
        conditioning: list[Any] | None = None,
        clip_vision_output: Any = None,
    ) -> io.NodeOutput:
        from .patches import truepose_source
        from .patches.unet_blocks import require_unet

        require_unet(model)
        source, maps = _cropped_to_latents(as_rgb(source, "source"), parsing)
        latent = vae.encode(source)
        regions = torch.nn.functional.adaptive_avg_pool2d(maps, latent.shape[-2:])
        told = truepose_source.plain_conditioning(model, conditioning)
        if clip_vision_output is not None:
            told = _seen_by_clip(model, told, clip_vision_output)
        if mode == LIVE:
            live, owners = LiveSource(host.keep(latent), told), truepose_source.owners_of(told)
            features = SourceFeatures(regions, {}, {}, {}, live, owners)
        else:
            features = truepose_source.look_once(model, latent, regions, told)
        host.say(cls.hidden.unique_id, _report(features))
        return io.NodeOutput(features)


class GuideAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferGuideAttention",
            display_name="Guide Attention",
            category=CATEGORY,
            description="Lets a MODEL's self-attention see chosen regions of the source, so that "
            "garment patterns and the face survive a change of pose.",
            search_aliases=["truepose", "HPFA", "reference attention", "keep clothes", "keep face"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="With or without LoRAs, FPDM and the like. A second Guide Attention "
                    "behind this one adds another source.",
                ),
                Source.Input("source_features", tooltip="From Source Features."),
                *(
                    io.Float.Input(
                        region,
                        default=DEFAULT_WEIGHTS[region],
                        min=0.0,
                        max=10.0,
                        step=0.05,
                        tooltip=f"{_REGION_TOOLTIPS[region]} 0 leaves it out, 1 is neutral, 2 "
                        "counts it twice.",
                    )
                    for region in REGIONS
                ),
                io.Combo.Input(
                    "blocks",
                    options=list(BLOCKS),
                    default="all",
                    tooltip="Which transformer blocks attend to the source. The second half draws "
                    "details, the first decides what goes where.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Multiplies all region weights. 0 switches the guide off.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the schedule after which the guide begins.",
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the schedule after which the guide ends.",
                ),
                io.Float.Input(
                    "correspondence",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How strongly a region of the picture keeps to the same region of the "
                    "source. Needs target_parsing or target_pose; 0 lets everything see all.",
                ),
                PersonParsing.Input(
                    "target_parsing",
                    optional=True,
                    tooltip="Which region will be where in the result, for example of a first "
                    "pass. Wins over target_pose.",
                ),
                PoseKeypoint.Input(
                    "target_pose",
                    optional=True,
                    tooltip="Keypoints of the target pose on the result's canvas: regions are "
                    "guessed from its limbs.",
                ),
                io.Boolean.Input(
                    "record",
                    default=False,
                    tooltip="Measure where attention goes, for Attention Maps. Costs some time.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For any sampler."),
                AttentionRecordSocket.Output(
                    display_name="record", tooltip="For Attention Maps, where record is on."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        source_features: SourceFeatures,
        blocks: str,
        strength: float,
        start: float,
        end: float,
        correspondence: float,
        record: bool,
        target_parsing: Parsing | None = None,
        target_pose: Any = None,
        **weights: float,
    ) -> io.NodeOutput:
        from .patches import truepose

        target = _target_regions(target_parsing, target_pose)
        collected = AttentionRecord() if record else None
        guide = truepose.Guide(
            source_features,
            weights,
            strength,
            0.0 if target is None else correspondence,
            target,
            frozenset(BLOCKS[blocks]),
            truepose.sigma_at(model, start),
            truepose.sigma_at(model, end),
            collected,
        )
        return io.NodeOutput(
            truepose.guide_attention(model, guide),
            collected or host.absent("Switch 'record' on in Guide Attention, and sample again."),
        )


class AttentionMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferAttentionMaps",
            display_name="Attention Maps",
            category=CATEGORY,
            description="Shows how much attention went to each region of the source while a "
            "picture was sampled, and where in the picture.",
            search_aliases=["truepose", "attention map", "heat map", "diagnosis"],
            inputs=[
                AttentionRecordSocket.Input(
                    "record", tooltip="From the Guide Attention of the MODEL that was sampled."
                ),
                io.Latent.Input(
                    "latent",
                    tooltip="From the sampler: this node waits until sampling is over. It is "
                    "passed on unchanged.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="maps",
                    tooltip="One heat map for each region, side by side; one row for each picture. "
                    "White is all of the attention that the region gets anywhere.",
                ),
                io.String.Output(
                    display_name="shares", tooltip="Share of all attention by region."
                ),
                io.Latent.Output(tooltip="As it came in."),
            ],
            has_intermediate_output=True,  # its pictures stay when the page is opened again
        )

    @classmethod
    def execute(cls, record: AttentionRecord, latent: dict[str, Any]) -> io.NodeOutput:
        from .attention_sheet import shares, sheet, sheets_by_picture

        maps = record.maps()
        if maps is None:
            raise PoseTransferError(
                "No attention was recorded. Sample with the MODEL that comes out of the same Guide "
                "Attention, with a strength and a range of steps in which it acts."
            )
        height, width = (LATENT_FACTOR * side for side in latent["samples"].shape[-2:])
        shown = previews.shown(sheets_by_picture(maps, height, width))
        return io.NodeOutput(sheet(maps, height, width), shares(maps), latent, ui=shown)


def _seen_by_clip(model: Any, told: list[list[Any]], clip_vision_output: Any) -> list[list[Any]]:
    """CLIP's view in the place of the tokens; whatever else is told, the pose above all, stays."""
    from .patches.truepose_context import REGIONS_KEY

    networks = model.get_attachment(TOKENS_KEY)
    if networks is None:
        raise PoseTransferError(
            "clip_vision_output is for the source_model of a trained pair of this pack, which "
            "knows what to make of it; this MODEL does not. Connect what the source shows as "
            "conditioning instead, or nothing."
        )
    _, settings = told[0]
    rest = {key: value for key, value in settings.items() if key != REGIONS_KEY}
    return [[tokens_of_clip(networks, clip_vision_output), rest]]


def _cropped_to_latents(
    source: torch.Tensor, parsing: Parsing
) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture (B, H, W, 3) and region maps (B, R, H, W), cut evenly to multiples of 8."""
    if parsing.labels.shape[1:] != source.shape[1:3] or len(parsing.labels) != len(source):
        count, height, width = parsing.labels.shape
        raise ParsingError(
            f"The parsing is of {count} pictures of {width}x{height} px, the source is "
            f"{len(source)} of {source.shape[2]}x{source.shape[1]} px. Parse the same picture."
        )
    height, width = (side - side % LATENT_FACTOR for side in source.shape[1:3])
    if not height or not width:
        raise PoseTransferError(
            f"The source is {source.shape[2]}x{source.shape[1]} px, expected at least "
            f"{LATENT_FACTOR}x{LATENT_FACTOR}. Use a larger picture."
        )
    top, left = (source.shape[1] - height) // 2, (source.shape[2] - width) // 2
    rows, columns = slice(top, top + height), slice(left, left + width)
    return source[:, rows, columns], region_maps(parsing)[..., rows, columns]


def _target_regions(parsing: Parsing | None, keypoints: Any) -> torch.Tensor | None:
    """Soft masks (B, R, H, W) of the picture to come, None where nothing is known."""
    if parsing is not None:
        return region_maps(parsing)
    if keypoints is None:
        return None
    poses = read_keypoints(keypoints)
    sizes = sorted({(pose.width, pose.height) for pose in poses})
    if len(sizes) > 1:
        told = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise PoseTransferError(
            f"The frames of target_pose have canvases of different sizes ({told} px), expected "
            "the result's for all. Bring the pictures to one size before Detect Pose."
        )
    return torch.stack([_priors(pose) for pose in poses])


def _priors(pose: Pose) -> torch.Tensor:
    scale = min(1.0, _PRIOR_SIZE / max(pose.height, pose.width))
    size = (max(1, round(scale * side)) for side in (pose.height, pose.width))
    return torch.from_numpy(limb_priors(pose, *size))


def _report(features: SourceFeatures) -> str:
    if features.live is not None:
        return "Looked at again in every step"
    return f"{len(features.hidden)} blocks, {features.megabytes:.1f} MB"
