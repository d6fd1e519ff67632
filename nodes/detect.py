# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding people and their keypoints in pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..pose_transfer.detectors.boxes import read_boxes, write_boxes
from ..pose_transfer.detectors.people import (
    CHOICES,
    ON_MISSING,
    ORDERS,
    Choice,
    OnMissing,
    Order,
    choose_people,
    describe_people,
    keep_parts,
)
from ..pose_transfer.detectors.views import Found, detect_at
from ..pose_transfer.images import as_rgb, from_uint8, to_uint8
from ..pose_transfer.pose import STYLES, Style, draw, overlay, write_keypoints
from ..pose_transfer.types import Pose
from . import host, previews
from .pose_detectors import DEMO, DETECTORS, DWPOSE, load_detector
from .sockets import PoseKeypoint


class DetectPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferDetectPose",
            display_name="Detect Pose",
            category="pose transfer/pose",
            description="Finds people in pictures or video frames: their keypoints, the drawn pose "
            "map, and a box around each.",
            search_aliases=[
                "openpose",
                "dwpose",
                "pose estimation",
                "preprocessor",
                "keypoints",
                "person detection",
                "skeleton",
            ],
            inputs=[
                io.Image.Input("image", tooltip="Pictures or video frames, of any size."),
                io.Combo.Input(
                    "detector",
                    options=list(DETECTORS),
                    default=DWPOSE,
                    tooltip="DWPose: body, hands, face and feet; needs onnxruntime and its two "
                    "files. OpenPose: body, hands and face; needs controlnet_aux and its files. "
                    f"{DEMO}: comes with the pack, finds bodies of rendered mannequins only.",
                ),
                io.Boolean.Input(
                    "hands", default=False, tooltip="Find the 21 points of each hand as well."
                ),
                io.Boolean.Input(
                    "face", default=False, tooltip="Find the 70 points of the face as well."
                ),
                io.Boolean.Input(
                    "feet", default=False, tooltip="Find toes and heels as well (DWPose only)."
                ),
                io.Int.Input(
                    "resolution",
                    default=768,
                    min=0,
                    max=8192,
                    step=64,
                    tooltip="Length in px of the shorter side at which a larger picture is looked "
                    "at. More finds smaller hands and faces and takes longer. 0 looks at every "
                    "picture at its own size. Keypoints and map keep the picture's size.",
                ),
                io.Combo.Input(
                    "people",
                    options=list(CHOICES),
                    default="all",
                    tooltip="Whom to keep in each picture: everybody, the one with the largest "
                    "box, or the one at the index below.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="For people 'by index': 0 is the first in the order below.",
                ),
                io.Combo.Input(
                    "order",
                    options=list(ORDERS),
                    default="area",
                    tooltip="In what order people come: largest box first, from left to right, or "
                    "the surest first.",
                ),
                io.Combo.Input(
                    "on_missing",
                    options=list(ON_MISSING),
                    default="error",
                    tooltip="What to do with a picture in which nobody is found: stop, leave its "
                    "pose empty (a black map), or repeat the pose of the picture before.",
                ),
                io.Combo.Input(
                    "style",
                    options=list(STYLES),
                    default="openpose",
                    tooltip="How the map is drawn. FPDM needs 'fpdm'. ControlNets for OpenPose "
                    "take 'openpose', or 'dwpose' to see hands and face.",
                ),
                io.BoundingBox.Input(
                    "boxes",
                    optional=True,
                    force_input=True,
                    tooltip="Look for people in these boxes only. Boxes for one picture count for "
                    "all; otherwise there must be some for each picture.",
                ),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="pose",
                    tooltip="Keypoints in px of the picture, one frame for each picture.",
                ),
                io.Image.Output(
                    display_name="pose_map", tooltip="The drawn pose, of the picture's size."
                ),
                io.BoundingBox.Output(
                    display_name="boxes", tooltip="A box around each person, for each picture."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The detector, what it really runs on, and who was found where.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # its pictures stay when the page is opened again
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        detector: str,
        hands: bool,
        face: bool,
        feet: bool,
        resolution: int,
        people: Choice,
        index: int,
        order: Order,
        on_missing: OnMissing,
        style: Style,
        boxes: Any = None,
    ) -> io.NodeOutput:
        wanted = {"hands": hands, "face": face, "feet": feet}
        parts = [part for part, is_wanted in wanted.items() if is_wanted]
        image = as_rgb(image)
        count, height, width, _ = image.shape
        inside = [None] * count if boxes is None else read_boxes(boxes, count)
        backend = load_detector(detector, parts)

        def find() -> Iterator[list[Found]]:
            for number, allowed in enumerate(host.each(inside, count)):
                picture = to_uint8(image[number])
                yield keep_parts(detect_at(backend, picture, resolution, allowed), parts)

        frames = choose_people(find(), people, index, order, on_missing)
        poses = [Pose(width, height, tuple(person for person, _ in f.people)) for f in frames]
        report = f"{detector} on {backend.provider}\n{describe_people(frames, parts)}"
        host.say(cls.hidden.unique_id, report)
        nobody = Pose(width, height, ())
        return io.NodeOutput(
            write_keypoints(poses),
            from_uint8(np.stack([draw(pose, height, width, style) for pose in poses])),
            write_boxes([[box for _, box in frame.people] for frame in frames]),
            report,
            ui=previews.shown(
                [overlay(to_uint8(image[i]), nobody, poses[i]) for i in previews.chosen(count)]
            ),
        )
