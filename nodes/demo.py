# SPDX-License-Identifier: GPL-3.0-or-later
"""The mannequin world in a graph: the embedded models, and people to try them on.

The renderer is imported where it draws: it is most of what importing this module would cost.
"""

from __future__ import annotations

import numpy as np
from comfy_api.latest import io

from ..pose_transfer.images import from_uint8
from ..pose_transfer.mannequin.names import HELD_OUT_PATTERNS, LABELS, PATTERNS
from ..pose_transfer.pose import write_keypoints
from ..pose_transfer.types import Parsing
from .sockets import FPDMWeights, PersonParsing, PoseKeypoint

CATEGORY = "pose transfer/demo"
MAX_SEED = 2**31 - 1
OWN_PATTERN = "the person's own"


class DemoModels(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferDemoModels",
            display_name="Demo Models",
            category=CATEGORY,
            description="The small models that come with the pack: a Stable Diffusion of rendered "
            "mannequins, and the FPDM that re-poses them. They know nothing of photos.",
            search_aliases=["mannequin", "embedded", "example models", "fpdm demo"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="A small Stable Diffusion UNet, v-prediction, 256x192 px."),
                io.Clip.Output(
                    tooltip="Understands captions of the form that Demo Person puts out."
                ),
                io.Vae.Output(tooltip="A tiny autoencoder, 8 channels at an eighth of the size."),
                FPDMWeights.Output(
                    display_name="fpdm", tooltip="For Fusion Embedding and Apply FPDM."
                ),
                io.ControlNet.Output(
                    tooltip="FPDM's pose encoder alone, for Apply ControlNet: takes a pose map of "
                    "Draw Pose, style fpdm."
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from .loading import load_demo  # diffusers takes seconds to import

        demo = load_demo()
        return io.NodeOutput(demo.model, demo.clip, demo.vae, demo.fpdm, demo.control_net)


class DemoPerson(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferDemoPerson",
            display_name="Demo Person",
            category=CATEGORY,
            description="Renders one made-up person in two poses: the source to start from, and "
            "the truth to compare a result with. 256 px high, 192 px wide.",
            search_aliases=["mannequin", "test image", "example person", "render"],
            inputs=[
                _seed(
                    "identity",
                    19,
                    "Seed of the person: skin, hair, face, proportions, clothes and their "
                    "patterns, shoes, background. Numbers that end in 9 were never trained on.",
                ),
                _seed("source_pose", 29, "Seed of the pose in the source picture."),
                _seed("target_pose", 9, "Seed of the pose that the person shall take."),
                io.Combo.Input(
                    "upper_pattern",
                    options=[OWN_PATTERN, *PATTERNS, *HELD_OUT_PATTERNS],
                    default=OWN_PATTERN,
                    optional=True,
                    tooltip="Pattern of the upper garment in place of the person's own. No model "
                    f"was trained on {' or '.join(HELD_OUT_PATTERNS)}: one-shot tuning learns it.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="source", tooltip="The person in the source pose."),
                PoseKeypoint.Output(
                    display_name="target_pose",
                    tooltip="Keypoints of the target pose, for Draw Pose.",
                ),
                io.Image.Output(
                    display_name="truth",
                    tooltip="The same person in the target pose, for Compare.",
                ),
                io.String.Output(
                    display_name="caption", tooltip="What the source picture shows, in words."
                ),
                PoseKeypoint.Output(
                    display_name="source_pose", tooltip="Keypoints of the source picture."
                ),
                PersonParsing.Output(
                    display_name="source_parsing",
                    tooltip="Which pixel of the source picture is hair, face, upper or lower "
                    "garment, arms, legs, shoes, background.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, identity: int, source_pose: int, target_pose: int, upper_pattern: str = OWN_PATTERN
    ) -> io.NodeOutput:
        from ..pose_transfer.mannequin import render

        pattern = None if upper_pattern == OWN_PATTERN else upper_pattern
        source, truth = (
            render(identity, pose, upper_pattern=pattern) for pose in (source_pose, target_pose)
        )
        return io.NodeOutput(
            from_uint8(source.image),
            write_keypoints([truth.pose]),
            from_uint8(truth.image),
            source.caption,
            write_keypoints([source.pose]),
            Parsing(source.parsing[None], LABELS),
        )


class DemoMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferDemoMotion",
            display_name="Demo Motion",
            category=CATEGORY,
            description="A made-up person who moves from one pose to another: keypoints of every "
            "frame, and the rendered film to compare a result with. 256 px high, 192 px wide.",
            search_aliases=["mannequin", "test video", "example motion", "animation", "film"],
            inputs=[
                _seed(
                    "identity",
                    19,
                    "Seed of the person, as in Demo Person. The keypoints have this "
                    "person's proportions.",
                ),
                _seed(
                    "start_pose",
                    29,
                    "Seed of the first frame's pose. Numbers that end in 9 were never trained on.",
                ),
                _seed("end_pose", 9, "Seed of the last frame's pose."),
                io.Int.Input(
                    "frames", default=12, min=2, max=1000, tooltip="How many frames the film has."
                ),
                io.Boolean.Input(
                    "loop",
                    default=False,
                    tooltip="Go there and back, so that the film can be repeated without a jump.",
                ),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="pose",
                    tooltip="Keypoints of every frame, for FPDM Sequence and Draw Pose.",
                ),
                io.Image.Output(
                    display_name="truth", tooltip="The person in every frame, for Compare."
                ),
                PersonParsing.Output(
                    display_name="parsing",
                    tooltip="Which pixel of each truth is hair, face, upper or lower garment, "
                    "arms, legs, shoes, background.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, identity: int, start_pose: int, end_pose: int, frames: int, loop: bool
    ) -> io.NodeOutput:
        from ..pose_transfer.mannequin.motion import render_motion

        film = render_motion(identity, start_pose, end_pose, frames, loop)
        return io.NodeOutput(
            write_keypoints([sample.pose for sample in film]),
            from_uint8(np.stack([sample.image for sample in film])),
            Parsing(np.stack([sample.parsing for sample in film]), LABELS),
        )


def _seed(name: str, default: int, tooltip: str) -> io.Int.Input:
    return io.Int.Input(
        name, default=default, min=0, max=MAX_SEED, control_after_generate=True, tooltip=tooltip
    )
