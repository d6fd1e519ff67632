# SPDX-License-Identifier: GPL-3.0-or-later
"""Faces: who somebody is, as numbers, and where the face is."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from comfy_api.latest import io

from ..pose_transfer.detectors import FaceEncoder
from ..pose_transfer.detectors.boxes import write_boxes
from ..pose_transfer.detectors.face import InsightFaceEncoder
from ..pose_transfer.detectors.face_choice import (
    FACE_ORDERS,
    NEAREST,
    ON_MISSING_FACE,
    FaceOrder,
    OnMissingFace,
    as_embedding,
    choose_faces,
    describe_faces,
    face_keypoints,
)
from ..pose_transfer.detectors.face_crops import (
    ALIGNED,
    MASK_SHAPES,
    MaskShape,
    aligned_crop,
    crops,
    face_masks,
    loose_crop,
)
from ..pose_transfer.errors import PoseError
from ..pose_transfer.images import as_rgb, from_uint8, to_uint8
from ..pose_transfer.pose import read_keypoints
from ..pose_transfer.types import Pose
from . import host
from .face_encoders import DEMO, ENCODERS, load_encoder
from .sockets import FaceEmbeddings, InsightFace, InstantIDFace, PoseKeypoint

NON_COMMERCIAL = "insightface's models are for non-commercial research only."


class FaceEmbeddingNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferFaceEmbedding",
            display_name="Face Embedding",
            category="pose transfer/person",
            description="Finds one face in each picture: who it is, as numbers that methods keep "
            "the person by, and where it is, as crop, mask and box.",
            search_aliases=[
                "insightface",
                "face id",
                "identity",
                "arcface",
                "antelopev2",
                "buffalo_l",
                "face crop",
                "face mask",
                "face detection",
            ],
            inputs=[
                io.Image.Input("image", tooltip="Pictures or video frames, of any size."),
                io.Combo.Input(
                    "encoder",
                    options=list(ENCODERS),
                    default=ENCODERS[0],
                    tooltip="antelopev2 for OnePoseTrans and InstantID, buffalo_l for IP-Adapter "
                    "FaceID; both need the package insightface and their files. "
                    f"{NON_COMMERCIAL} {DEMO}: comes with the pack, knows rendered mannequins "
                    "only. Embeddings of different encoders must not be mixed.",
                ),
                io.Combo.Input(
                    "face",
                    options=list(FACE_ORDERS),
                    default="largest",
                    tooltip="Which face, where there are several: counted from the largest, from "
                    "left to right, or the one at the nose of the connected pose.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="0 is the first in that order: the largest or the leftmost. For "
                    "'nearest to pose' it says which person of the pose.",
                ),
                io.Combo.Input(
                    "on_missing",
                    options=list(ON_MISSING_FACE),
                    default="error",
                    tooltip="What to do with a picture without that face: stop, or go on with an "
                    "embedding of zeros, a black crop, an empty mask and no box.",
                ),
                io.Int.Input(
                    "crop_size",
                    default=512,
                    min=16,
                    max=4096,
                    step=8,
                    tooltip="Width and height of the crop in px.",
                ),
                io.Float.Input(
                    "crop_margin",
                    default=1.6,
                    min=1.0,
                    max=10.0,
                    step=0.1,
                    tooltip="Side of the crop in lengths of the face's box; 1 cuts close. The crop "
                    "never reaches beyond the picture.",
                ),
                io.Combo.Input(
                    "mask_shape",
                    options=list(MASK_SHAPES),
                    default="ellipse",
                    tooltip="Shape of the mask; it is turned with the face.",
                ),
                io.Float.Input(
                    "mask_grow",
                    default=0.0,
                    min=-1024.0,
                    max=1024.0,
                    step=1.0,
                    tooltip="Moves the mask's edge outwards by so many px, inwards below 0.",
                ),
                io.Float.Input(
                    "mask_feather",
                    default=16.0,
                    min=0.0,
                    max=1024.0,
                    step=1.0,
                    tooltip="Width in px of the mask's soft edge. 0: hard.",
                ),
                PoseKeypoint.Input(
                    "pose",
                    optional=True,
                    tooltip="For 'nearest to pose': the pose of these pictures, one frame for each "
                    "or one for all.",
                ),
                io.MultiType.Input(
                    "face_analysis",
                    types=[InsightFace, InstantIDFace],
                    optional=True,
                    tooltip="What 'IPAdapter InsightFace Loader' or 'InstantID Face Analysis' "
                    "loaded. It is used in place of the encoder above, so that nothing is loaded "
                    "twice.",
                ),
            ],
            outputs=[
                FaceEmbeddings.Output(
                    display_name="face_embedding",
                    tooltip="One embedding for each picture, raw and normalised, with box, five "
                    "points and whether there was a face.",
                ),
                io.Image.Output(
                    display_name="crop", tooltip="A square around the face, as in the picture."
                ),
                io.Image.Output(
                    display_name="aligned",
                    tooltip=f"The upright face, {ALIGNED}x{ALIGNED} px: what the encoder sees.",
                ),
                io.Mask.Output(
                    display_name="mask", tooltip="The face in the picture, of the picture's size."
                ),
                io.BoundingBox.Output(
                    display_name="boxes",
                    tooltip="The box around the face, for each picture; none where there is none.",
                ),
                io.Boolean.Output(
                    display_name="found", tooltip="True when every picture shows the face."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The encoder, what it really runs on, and what was found where.",
                ),
                InsightFace.Output(
                    display_name="insightface",
                    tooltip="The loaded encoder for nodes of IPAdapter_plus; insightface only.",
                ),
                InstantIDFace.Output(
                    display_name="faceanalysis",
                    tooltip="The loaded encoder for nodes of InstantID; insightface only.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        encoder: str,
        face: FaceOrder,
        index: int,
        on_missing: OnMissingFace,
        crop_size: int,
        crop_margin: float,
        mask_shape: MaskShape,
        mask_grow: float,
        mask_feather: float,
        pose: Any = None,
        face_analysis: Any = None,
    ) -> io.NodeOutput:
        pictures = to_uint8(as_rgb(image))
        count, height, width, _ = pictures.shape
        keypoints = None
        if face == NEAREST:
            keypoints = face_keypoints(_required(pose), index, count, height, width)
        given = face_analysis is not None
        backend = InsightFaceEncoder(face_analysis) if given else load_encoder(encoder)
        found = (backend.faces(picture) for picture in host.each(pictures, count))
        chosen = choose_faces(found, face, index, on_missing, keypoints)
        faces = [one.face for one in chosen]
        loose = partial(loose_crop, margin=crop_margin, size=crop_size)
        embedding = as_embedding(chosen, backend.name)
        report = f"{backend.name} on {backend.provider}\n{describe_faces(chosen)}"
        host.say(cls.hidden.unique_id, report)
        return io.NodeOutput(
            embedding,
            from_uint8(crops(pictures, faces, crop_size, loose)),
            from_uint8(crops(pictures, faces, ALIGNED, aligned_crop)),
            torch.from_numpy(face_masks(faces, mask_shape, height, width, mask_grow, mask_feather)),
            write_boxes([[] if one is None else [one.box] for one in faces], "face"),
            bool(embedding.found.all()),
            report,
            *[_analysis(backend)] * 2,
        )


def _required(pose: Any) -> list[Pose]:
    if pose is None:
        raise PoseError(
            f"The face '{NEAREST}' needs a pose and none is connected. Connect the pose of these "
            "pictures, or choose the face another way."
        )
    return read_keypoints(pose)


def _analysis(backend: FaceEncoder) -> Any:
    """insightface's object, for other packs."""
    if isinstance(backend, InsightFaceEncoder):
        return backend.analysis
    return host.absent(
        f"The encoder '{backend.name}' is no insightface model, so it cannot be handed to nodes of "
        "IPAdapter_plus or InstantID. Choose an insightface encoder."
    )
