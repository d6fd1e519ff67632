# SPDX-License-Identifier: GPL-3.0-or-later
"""Poses from files and text, and poses into files."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..pose_transfer.errors import PoseError, PoseTransferError
from ..pose_transfer.pose import read_keypoints, write_keypoints
from ..pose_transfer.pose.files import write_text
from ..pose_transfer.types import Pose
from . import host
from .pose import CATEGORY, MAX_SIDE, MIN_CONFIDENCE, min_confidence_input
from .sockets import PoseKeypoint

MAX_FRAMES = 2**31 - 1
NO_FILE = "none (use the text)"
POSE_FILES = (".json", ".txt", ".csv")
EACH, ALL = "one file for each frame", "one file for all frames"


class LoadPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferLoadPose",
            display_name="Load Pose",
            category=CATEGORY,
            description="Reads keypoints from a file or from pasted text: OpenPose, COCO, "
            "MediaPipe, MMPose, pose editors, DeepFashion annotations.",
            search_aliases=[
                "openpose json",
                "load keypoints",
                "pose from file",
                "paste pose",
                "coco",
                "mediapipe",
                "deepfashion",
            ],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[NO_FILE, *host.input_files(POSE_FILES)],
                    default=NO_FILE,
                    tooltip="A .json, .txt or .csv file in ComfyUI's input folder.",
                ),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    placeholder="or paste a pose here: OpenPose JSON, ...",
                    tooltip="The pose itself, when no file is chosen: what another program or a "
                    "pose editor wrote.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=MAX_SIDE,
                    tooltip="Width in px of the picture that the pose was made on. Used only where "
                    "the file does not say it; 0 makes the canvas as large as the figure needs.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=MAX_SIDE,
                    tooltip="Height in px of the picture that the pose was made on, as for width.",
                ),
                io.Int.Input(
                    "first_frame",
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="The frame, or line of a table, to begin with. 0 is the first.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="How many frames to read. 0 reads all.",
                ),
                min_confidence_input(),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="pose",
                    tooltip="The keypoints in px, complete, one for each frame.",
                ),
                io.Int.Output(display_name="width", tooltip="Width of the first frame in px."),
                io.Int.Output(display_name="height", tooltip="Height of the first frame in px."),
                io.Int.Output(display_name="frames", tooltip="How many frames there are."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = NO_FILE, text: str | None = "") -> bool | str:
        if text is None or file is None:  # connected, and known only when the node runs
            return True
        try:
            _require_one(file, text)
            if file != NO_FILE:
                host.input_path(file)
        except PoseTransferError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **others: Any) -> str:
        """A file that was changed under the same name is read again."""
        if file == NO_FILE:
            return file
        found = host.input_path(file).stat()
        return f"{file} {found.st_size} {found.st_mtime_ns}"

    @classmethod
    def execute(
        cls,
        file: str,
        text: str,
        width: int,
        height: int,
        first_frame: int,
        frames: int,
        min_confidence: float = MIN_CONFIDENCE,
    ) -> io.NodeOutput:
        _require_one(file, text)
        content = text if file == NO_FILE else _content(file)
        poses = read_keypoints(content, _canvas(width, height), min_confidence)
        poses = _chosen(poses, first_frame, frames)
        return io.NodeOutput(write_keypoints(poses), poses[0].width, poses[0].height, len(poses))


class SavePose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferSavePose",
            display_name="Save Pose",
            category=CATEGORY,
            description="Writes keypoints as OpenPose JSON into ComfyUI's output folder.",
            search_aliases=["openpose json", "save keypoints", "export pose", "write pose"],
            inputs=[
                PoseKeypoint.Input("pose", tooltip="Keypoints of one or more frames."),
                io.String.Input(
                    "filename_prefix",
                    default="pose",
                    tooltip="Begin of the file's name, as in Save Image: folders with /, %width%, "
                    "%height%, %date:yyyy-MM-dd% and the like. A number follows.",
                ),
                io.Combo.Input(
                    "files",
                    options=[EACH, ALL],
                    default=EACH,
                    tooltip="A file for each frame, as OpenPose writes them and pose editors read "
                    "them, or one with the list of all frames.",
                ),
                io.Boolean.Input(
                    "binary_confidence",
                    default=False,
                    tooltip="Write the confidence of every point as 0 or 1. Switch it on for "
                    "comfyui_controlnet_aux, which drops any point that is less than sure.",
                ),
            ],
            outputs=[
                PoseKeypoint.Output(display_name="pose", tooltip="The keypoints as written."),
                io.String.Output(
                    display_name="files", tooltip="Paths of the files, one in each line."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        if filename_prefix is not None and not filename_prefix.strip():
            return "The filename_prefix is empty, expected the begin of a name, such as 'pose'."
        return True

    @classmethod
    def execute(
        cls, pose: Any, filename_prefix: str, files: str, binary_confidence: bool
    ) -> io.NodeOutput:
        poses = read_keypoints(pose)
        written = write_keypoints(poses, binary_confidence)
        documents = written if files == EACH else [written]
        size = poses[0].width, poses[0].height
        paths = host.next_output_files(filename_prefix, ".json", len(documents), *size)
        for path, document in zip(paths, documents, strict=True):
            write_text(path, json.dumps(document))
        listed = "\n".join(str(path) for path in paths)
        return io.NodeOutput(written, listed, ui={"text": (listed,)})


def _require_one(file: str, text: str) -> None:
    if file == NO_FILE and not text.strip():
        raise PoseError("There is neither a file nor text. Choose a file or paste a pose.")
    if file != NO_FILE and text.strip():
        raise PoseError(
            f"There are both the file {file!r} and text, expected one. Clear the text, or set the "
            f"file to '{NO_FILE}'."
        )


def _content(file: str) -> bytes:
    path = host.input_path(file)
    try:
        return path.read_bytes()
    except OSError as error:
        raise PoseError(f"{path} cannot be read ({error}). Choose another file.") from error


def _canvas(width: int, height: int) -> tuple[int, int] | None:
    if bool(width) != bool(height):
        raise PoseError(
            f"Got a canvas of {width}x{height} px. Give both width and height, or 0 for both."
        )
    return (width, height) if width else None


def _chosen(poses: list[Pose], first: int, count: int) -> list[Pose]:
    if first >= len(poses):
        raise PoseError(
            f"The pose has {len(poses)} frames, expected first_frame below that, got {first}."
        )
    return poses[first : first + count] if count else poses[first:]
