# SPDX-License-Identifier: GPL-3.0-or-later
"""Poses: keypoints in the ecosystem's form, and pictures of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from comfy_api.latest import io

from ..pose_transfer.errors import PoseError
from ..pose_transfer.images import from_uint8
from ..pose_transfer.pose import STYLES, Style, draw, read_keypoints
from .sockets import PoseKeypoint

MAX_SIDE = 16384


class DrawPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferDrawPose",
            display_name="Draw Pose",
            category="pose transfer/pose",
            description="Draws keypoints as the coloured stick figure that a model was trained on.",
            search_aliases=[
                "openpose",
                "dwpose",
                "skeleton",
                "pose map",
                "stick figure",
                "keypoints",
            ],
            inputs=[
                PoseKeypoint.Input(
                    "pose",
                    tooltip="Keypoints of one or more frames, from Demo Person or any node that "
                    "puts out POSE_KEYPOINT. Every frame becomes one picture of the batch.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=MAX_SIDE,
                    step=8,
                    tooltip="Width of the picture in pixels; the pose is scaled to it. 0 keeps the "
                    "width of the canvas that the pose was made on.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=MAX_SIDE,
                    step=8,
                    tooltip="Height of the picture in pixels; the pose is scaled to it. 0 keeps "
                    "the height of the canvas that the pose was made on.",
                ),
                io.Combo.Input(
                    "style",
                    options=list(STYLES),
                    default="openpose",
                    tooltip="How it is drawn. FPDM needs 'fpdm'. ControlNets for OpenPose take "
                    "'openpose', or 'dwpose' where they were trained on DWPose.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="pose_map",
                    tooltip="One picture for each frame, black where there is nobody.",
                )
            ],
        )

    @classmethod
    def execute(cls, pose: Any, width: int, height: int, style: Style) -> io.NodeOutput:
        frames = read_keypoints(pose)
        if not any(frame.people for frame in frames):
            raise PoseError(
                f"The pose holds nobody in any of its {len(frames)} frames, so there is nothing to "
                "draw. Detect it in a picture that shows a person, or connect another pose."
            )
        sizes = {(height or frame.height, width or frame.width) for frame in frames}
        if len(sizes) > 1:
            raise PoseError(
                f"The frames of the pose have {len(sizes)} different canvas sizes and cannot be "
                "one batch of pictures. Set width and height to the size that you want for all."
            )
        (size,) = sizes
        return io.NodeOutput(from_uint8(np.stack([draw(frame, *size, style) for frame in frames])))
