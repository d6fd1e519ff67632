# SPDX-License-Identifier: GPL-3.0-or-later
"""The pose editor's node: what was drawn in the browser becomes POSE_KEYPOINT."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..pose_transfer.errors import PoseError
from ..pose_transfer.images import as_rgb, from_uint8
from ..pose_transfer.pose import draw, read_keypoints, write_keypoints
from ..pose_transfer.types import Pose
from . import previews
from .pose import CATEGORY, MAX_SIDE
from .sockets import PoseKeypoint

# The editor's own file, so that an untouched node and an untouched editor show the same figure.
PRESETS = Path(__file__).parents[1] / "web" / "pose_editor" / "presets.json"
# Of all frames together, as in web/pose_editor/scene.mjs: as an IMAGE that is 1.6 GB.
MAX_PIXELS = 2**27


class EditPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferEditPose",
            display_name="Edit Pose",
            category=CATEGORY,
            description="Pose people by hand: drag joints, start from a preset or from a detected "
            "pose, with the photo underneath. Click the figure to open the editor.",
            search_aliases=[
                "pose editor",
                "openpose editor",
                "skeleton editor",
                "drag joints",
                "posing",
                "manual pose",
            ],
            inputs=[
                io.String.Input(
                    "pose",
                    default="",
                    socketless=True,
                    tooltip="What the editor made, as OpenPose JSON; a script may write any "
                    "dialect of it here. While it is empty the node passes the wired pose on, or "
                    "an A-pose where none is wired.",
                    extra_dict={"widgetType": "POSE_TRANSFER_EDITOR"},
                ),
                PoseKeypoint.Input(
                    "detected_pose",
                    optional=True,
                    tooltip="A pose to start from, such as Detect Pose's. It reaches the editor "
                    "when the node has run; 'Take wired pose' starts again from it.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture to lay under the figure, such as the photo that the pose "
                    "was detected in. It reaches the editor when the node has run.",
                ),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="pose",
                    tooltip="The edited keypoints in pixels, for Draw Pose or Retarget Pose.",
                ),
                io.Image.Output(
                    display_name="pose_map",
                    tooltip="The pose drawn with hands and face in the size of its canvas, as "
                    "ControlNets for OpenPose take it.",
                ),
            ],
            is_output_node=True,  # so that Run fetches the photo and the wired pose
        )

    @classmethod
    def validate_inputs(cls, pose: str = "") -> bool | str:
        try:
            _checked(_read(pose))
        except PoseError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, pose: str, detected_pose: Any = None, image: torch.Tensor | None = None
    ) -> io.NodeOutput:
        wired = None if detected_pose is None else read_keypoints(detected_pose)
        frames = _checked(_read(pose) or wired or [_standing()])
        height, width = frames[0].height, frames[0].width
        drawn = np.stack([draw(frame, height, width, "dwpose") for frame in frames])
        shown: dict[str, Any] = {}
        if wired is not None:
            shown["pose_transfer_wired_pose"] = [json.dumps(write_keypoints(wired[:1]))]
        if image is not None:
            shown["pose_transfer_wired_image"] = previews.files(as_rgb(image, "image")[:1])
        return io.NodeOutput(write_keypoints(frames), from_uint8(drawn), ui=shown)


def _read(pose: str) -> list[Pose]:
    """The frames of the editor's text, none where it is empty; PoseError for what is no pose."""
    return read_keypoints(pose) if pose.strip() else []


def _checked(frames: list[Pose]) -> list[Pose]:
    """The frames, if they can be drawn on the canvas of the first; PoseError otherwise."""
    for frame in frames:
        if max(frame.width, frame.height) > MAX_SIDE:
            raise PoseError(
                f"The pose's canvas is {frame.width}x{frame.height} px, expected at most "
                f"{MAX_SIDE} px a side. Make it smaller in the editor, at 'Canvas'."
            )
    if frames and len(frames) * frames[0].width * frames[0].height > MAX_PIXELS:
        raise PoseError(
            f"{len(frames)} pose map(s) of {frames[0].width}x{frames[0].height} px would fill the "
            f"memory: expected at most {MAX_PIXELS // 10**6} megapixels in all. Make the canvas "
            "smaller in the editor, at 'Canvas', or take fewer frames in Load Pose."
        )
    return frames


@lru_cache(maxsize=1)
def _standing() -> Pose:
    """The editor's first preset on the presets' canvas."""
    presets = json.loads(PRESETS.read_text(encoding="utf-8"))
    body = [value for point in presets["presets"][0]["body"] for value in point]
    canvas = presets["width"], presets["height"]
    return read_keypoints({"people": [{"pose_keypoints_2d": body}]}, canvas)[0]
