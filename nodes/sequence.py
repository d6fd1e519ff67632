# SPDX-License-Identifier: GPL-3.0-or-later
"""Films: one person through many poses, and poses that do not tremble."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from comfy_api.latest import io

from ..pose_transfer.errors import PoseTransferError
from ..pose_transfer.images import as_rgb
from ..pose_transfer.pose import read_keypoints, write_keypoints
from ..pose_transfer.pose.frames import ON_EMPTY, OnEmpty, size_of, with_people
from ..pose_transfer.pose.smoothing import OneEuro, smooth
from . import host
from .fpdm import CATEGORY
from .guidance import more_inputs, read_guidance, weight_inputs
from .pose import CATEGORY as POSE_CATEGORY
from .pose import MAX_SIDE, MIN_CONFIDENCE, min_confidence_input
from .sockets import FPDMModel, FPDMWeights, PoseKeypoint

SHARED, OWN = "the same for all frames", "its own for each frame"
MOST_AT_ONCE = 256


class FPDMSequence(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferFPDMSequence",
            display_name="FPDM Sequence",
            category=CATEGORY,
            description="Draws one person in every pose of a film. Stopped films go on where they "
            "were when they are queued again.",
            search_aliases=[
                "fpdm",
                "animate",
                "animation",
                "video",
                "dance",
                "sign language",
                "pose sequence",
                "motion transfer",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The UNet that came with this FPDM, with or without LoRAs. FPDM is "
                    "applied here: Apply FPDM is not needed.",
                ),
                FPDMWeights.Input("fpdm", tooltip="From Load FPDM or Demo Models."),
                io.Vae.Input("vae", tooltip="Makes pictures of what is drawn."),
                io.Image.Input("source", tooltip="The person: one picture, of any size."),
                PoseKeypoint.Input(
                    "pose",
                    tooltip="The poses, one for each frame, from Detect Pose, Smooth Pose, Load "
                    "Pose or Demo Motion.",
                ),
                io.Noise.Input("noise", tooltip="From Random Noise."),
                io.Sampler.Input(
                    "sampler",
                    tooltip="From KSampler Select. One that adds no noise of its own (euler, "
                    "dpmpp_2m, ddim) keeps frames alike.",
                ),
                io.Sigmas.Input("sigmas", tooltip="The steps, from Basic Scheduler."),
                *weight_inputs(),
                io.Combo.Input(
                    "noise_of_frames",
                    options=[SHARED, OWN],
                    default=SHARED,
                    tooltip="Frames that start from the same noise flicker less. With noise of "
                    "their own, a frame's noise depends on its number only, so that a longer film "
                    "starts like a shorter one.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=MAX_SIDE,
                    step=8,
                    tooltip="Width of the pictures in pixels; poses are scaled to it. 0 keeps the "
                    "width of the canvas that the poses were made on.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=MAX_SIDE,
                    step=8,
                    tooltip="Height of the pictures in pixels; poses are scaled to it. 0 keeps the "
                    "height of the canvas that the poses were made on.",
                ),
                io.Int.Input(
                    "frames_at_once",
                    default=0,
                    min=0,
                    max=MOST_AT_ONCE,
                    tooltip="How many frames are drawn together. 0 takes as many as fit into the "
                    "memory of the graphics card, 16 at most. Fewer lose less when the film is "
                    "stopped.",
                ),
                io.Combo.Input(
                    "on_missing",
                    options=list(ON_EMPTY),
                    default="error",
                    tooltip="What to do with a frame that shows nobody: stop, leave it out, so "
                    "that the film gets shorter, or hold the pose of the frame before.",
                ),
                min_confidence_input(),
                *more_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="frames",
                    tooltip="The film, one picture for each frame: for Save Animated WEBP, Create "
                    "Video and the like.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        fpdm: FPDMModel,
        vae: Any,
        source: torch.Tensor,
        pose: Any,
        noise: Any,
        sampler: Any,
        sigmas: torch.Tensor,
        source_weight: float,
        fusion_weight: float,
        noise_of_frames: str,
        width: int,
        height: int,
        frames_at_once: int,
        on_missing: OnEmpty,
        min_confidence: float = MIN_CONFIDENCE,
        **more: Any,
    ) -> io.NodeOutput:
        from .patches.sequence import Scene, make_frames, plan_frames

        poses = with_people(read_keypoints(pose, min_confidence=min_confidence), on_missing)
        scene = Scene(
            model,
            fpdm,
            vae,
            source=_one_picture(as_rgb(source, "source")),
            size=size_of(poses, width, height),
            guidance=read_guidance(source_weight, fusion_weight, **more),
            sampler=sampler,
            sigmas=_some_steps(sigmas),
            seed=noise.seed,
            at_once=frames_at_once,
        )
        frames = plan_frames(scene, poses, noise, noise_of_frames == SHARED)
        return io.NodeOutput(make_frames(scene, frames, partial(host.say, cls.hidden.unique_id)))


class SmoothPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferSmoothPose",
            display_name="Smooth Pose",
            category=POSE_CATEGORY,
            description="Takes the jitter out of the keypoints of a film: what stands still stops "
            "trembling, what moves fast does not lag.",
            search_aliases=[
                "jitter",
                "temporal smoothing",
                "one euro filter",
                "stabilise keypoints",
                "flicker",
                "denoise pose",
            ],
            inputs=[
                PoseKeypoint.Input(
                    "pose", tooltip="Keypoints of consecutive frames. Several people are fine."
                ),
                io.Float.Input(
                    "frame_rate",
                    default=25.0,
                    min=0.1,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frames a second (Hz) of the film that the poses were detected in.",
                ),
                io.Float.Input(
                    "min_cutoff",
                    default=1.0,
                    min=0.01,
                    max=100.0,
                    step=0.05,
                    tooltip="Trembling of resting points that is faster than this (Hz) goes. Lower "
                    "it until nothing trembles that should rest.",
                ),
                io.Float.Input(
                    "speed_response",
                    default=10.0,
                    min=0.0,
                    max=1000.0,
                    step=0.5,
                    tooltip="How much less a moving point is smoothed: Hz added to min_cutoff for "
                    "each canvas height a second of speed. Raise it where fast moves are cut "
                    "short.",
                ),
                io.Boolean.Input(
                    "centred",
                    default=True,
                    tooltip="Look forward and backward in time, so that nothing lags behind. Off: "
                    "look back only, as live filters do.",
                ),
                min_confidence_input(),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="pose",
                    tooltip="The same frames, people and points, in px; absent points stay absent.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        pose: Any,
        frame_rate: float,
        min_cutoff: float,
        speed_response: float,
        centred: bool,
        min_confidence: float = MIN_CONFIDENCE,
    ) -> io.NodeOutput:
        settings = OneEuro(frame_rate, min_cutoff, speed_response, centred=centred)
        poses = read_keypoints(pose, min_confidence=min_confidence)
        return io.NodeOutput(write_keypoints(smooth(poses, settings)))


def _one_picture(source: torch.Tensor) -> torch.Tensor:
    if source.shape[0] > 1:
        raise PoseTransferError(
            f"The source is a batch of {source.shape[0]} pictures, expected one picture of the "
            "person. Choose one with 'Get Image from Batch'; several people take several films."
        )
    return source


def _some_steps(sigmas: torch.Tensor) -> torch.Tensor:
    if len(sigmas) < 2:
        raise PoseTransferError(
            "The sigmas hold no step, so there is nothing to draw. Set the scheduler to at least "
            "one step and a denoise above 0."
        )
    return sigmas
