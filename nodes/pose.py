# SPDX-License-Identifier: GPL-3.0-or-later
"""Poses: keypoints in the ecosystem's form, changed, and drawn as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from numpy.typing import NDArray

from ..pose_transfer.errors import PoseError
from ..pose_transfer.images import as_rgb, from_uint8, to_uint8
from ..pose_transfer.pose import (
    HANDS,
    POSITIONS,
    SCALES,
    STYLES,
    Hands,
    Position,
    Scale,
    Style,
    draw,
    first_person,
    overlay,
    read_keypoints,
    retarget,
    write_keypoints,
)
from ..pose_transfer.types import Pose
from .sockets import PoseKeypoint

MAX_SIDE = 16384
MIN_CONFIDENCE = 0.1
CATEGORY = "pose transfer/pose"
FREE, TARGETS_GROUND, GROUND_LINE = "anywhere", "on the target's ground", "on the ground line"


def min_confidence_input() -> io.Float.Input:
    """The input by which doubtful points are left out."""
    return io.Float.Input(
        "min_confidence",
        optional=True,  # workflows made before it was there go on
        default=MIN_CONFIDENCE,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="Points that the detector was less sure of count as absent. 0.1 suits OpenPose, "
        "0.3 ComfyUI's SDPose, 0.5 MediaPipe, which guesses what it does not see.",
    )


class DrawPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferDrawPose",
            display_name="Draw Pose",
            category=CATEGORY,
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
                min_confidence_input(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="pose_map",
                    tooltip="One picture for each frame, black where there is nobody.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        pose: Any,
        width: int,
        height: int,
        style: Style,
        min_confidence: float = MIN_CONFIDENCE,
    ) -> io.NodeOutput:
        frames = read_keypoints(pose, min_confidence=min_confidence)
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


class RetargetPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferRetargetPose",
            display_name="Retarget Pose",
            category=CATEGORY,
            description="Puts a pose on another person's proportions: the target's angles, the "
            "source person's bone lengths.",
            search_aliases=[
                "proportions",
                "pose align",
                "bone length",
                "skeleton retargeting",
                "fit pose",
                "body shape",
            ],
            inputs=[
                PoseKeypoint.Input(
                    "source_pose",
                    tooltip="Keypoints of the person whose proportions are wanted, as detected in "
                    "their picture. One frame, or one for each of the target.",
                ),
                PoseKeypoint.Input(
                    "target_pose",
                    tooltip="Keypoints of the pose that the person shall take. Several frames are "
                    "retargeted one by one; frames that show nobody's body stay as they are.",
                ),
                io.Combo.Input(
                    "scale",
                    options=list(SCALES),
                    default="target",
                    tooltip="How large the person becomes: with a torso as long as the target's, "
                    "or as tall in the picture as the source person is in theirs.",
                ),
                io.Combo.Input(
                    "position",
                    options=list(POSITIONS),
                    default="target",
                    tooltip="Where the neck is: where the target has it, or where the source "
                    "person has it in their picture.",
                ),
                io.Combo.Input(
                    "feet",
                    options=[FREE, TARGETS_GROUND, GROUND_LINE],
                    default=FREE,
                    tooltip="Longer or shorter legs move the feet. Put the lowest foot back on the "
                    "height of the target's, or on the ground line, by moving the whole person.",
                ),
                io.Float.Input(
                    "ground_line",
                    default=0.95,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Height of the ground for feet on the ground line: 0 is the top of the "
                    "target's canvas, 1 its bottom.",
                ),
                io.Combo.Input(
                    "hands",
                    options=list(HANDS),
                    default="follow",
                    tooltip="Hands follow the wrist and keep their shape, or get the source's "
                    "finger lengths as well, or are left out.",
                ),
                min_confidence_input(),
                io.Image.Input(
                    "source_image",
                    optional=True,
                    tooltip="The source person's picture, as background of the overlay.",
                ),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="pose",
                    tooltip="The retargeted keypoints on the target's canvas, for Draw Pose.",
                ),
                io.Image.Output(
                    display_name="overlay",
                    tooltip="To judge by: the target as given in grey, retargeted in colours, over "
                    "the source picture.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        source_pose: Any,
        target_pose: Any,
        scale: Scale,
        position: Position,
        feet: str,
        ground_line: float,
        hands: Hands,
        min_confidence: float = MIN_CONFIDENCE,
        source_image: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        sources = read_keypoints(source_pose, min_confidence=min_confidence)
        targets = read_keypoints(target_pose, min_confidence=min_confidence)
        pictures = _pictures_below(targets, source_image)
        grounds = {FREE: None, TARGETS_GROUND: "target", GROUND_LINE: ground_line}
        results = _retargeted(
            sources, targets, grounds[feet], {"scale": scale, "position": position, "hands": hands}
        )
        overlays = [overlay(*trio) for trio in zip(pictures, targets, results, strict=True)]
        return io.NodeOutput(write_keypoints(results), from_uint8(np.stack(overlays)))


def _retargeted(
    sources: list[Pose], targets: list[Pose], ground: Any, options: dict[str, Any]
) -> list[Pose]:
    """Each target on its source's proportions; frames that show no body stay as they are.

    `ground` is as `retarget` takes it, but a fraction of the height.
    """
    if len(sources) not in (1, len(targets)):
        raise PoseError(
            f"The source pose has {len(sources)} frames and the target pose {len(targets)}, "
            "expected one source frame or as many as the target has."
        )
    shown = [first_person(target) is not None for target in targets]
    if not any(shown):
        raise PoseError(
            f"The target pose shows nobody in any of its {len(targets)} frames. Detect it in a "
            "picture that shows a person, or connect another pose."
        )
    results = []
    for i, target in enumerate(targets):
        height = ground * target.height if isinstance(ground, float) else ground
        source = sources[min(i, len(sources) - 1)]
        done = retarget(source, target, ground=height, **options) if shown[i] else target
        results.append(done)
    return results


def _pictures_below(targets: list[Pose], image: torch.Tensor | None) -> NDArray[np.uint8]:
    """A picture (B, H, W, 3) for each target; black and of the first one's size where none is."""
    if image is None:
        return np.zeros((len(targets), targets[0].height, targets[0].width, 3), dtype=np.uint8)
    pictures = to_uint8(as_rgb(image, "source image"))
    if len(pictures) not in (1, len(targets)):
        raise PoseError(
            f"The source image is a batch of {len(pictures)} and the target pose has "
            f"{len(targets)} frames, expected one picture or as many as there are frames."
        )
    return np.broadcast_to(pictures, (len(targets), *pictures.shape[1:]))
