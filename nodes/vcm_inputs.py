# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is plugged into Apply VCM to what rides on its CONDITIONINGs."""

from __future__ import annotations

from typing import Any

import torch

from ..pose_transfer.errors import PoseTransferError
from ..pose_transfer.images import as_rgb
from ..pose_transfer.oneposetrans.vcm_adapter import FACE_WIDTH, average_face
from ..pose_transfer.oneposetrans.vcm_plan import Plan
from ..pose_transfer.types import FaceEmbedding
from . import host
from .sockets import VCMCondition, VCMModel

# CLIP's mean colour: what its preprocessing turns into zeros.
_NEUTRAL = (0.48145466, 0.4578275, 0.40821073)


def face_of(vcm: VCMModel, embedding: FaceEmbedding | None) -> torch.Tensor | None:
    """The person's face (1, 512), or None where there is none."""
    if embedding is None or not embedding.found.any():
        return None
    if vcm.vcm.face is None:
        raise PoseTransferError(
            f"The VCM weights {vcm.name!r} have no face part, and a face embedding is connected. "
            "Choose InstantID's ip-adapter.bin as face weights in Load VCM, or disconnect it."
        )
    from ..pose_transfer.detectors.demo import DemoFaceEncoder  # needs its networks' modules

    if (embedding.encoder == DemoFaceEncoder.name) != (vcm.tower is not None):
        wanted = "the demo's encoder" if vcm.tower is not None else "insightface's antelopev2"
        raise PoseTransferError(
            f"The face embedding was made by {embedding.encoder!r}, the VCM weights {vcm.name!r} "
            f"need {wanted}. Choose that encoder in Face Embedding."
        )
    return average_face(torch.from_numpy(embedding.raw), torch.from_numpy(embedding.found))


def picture_embeds(
    vcm: VCMModel, source: torch.Tensor | None, clip_vision: Any, output: Any, crop: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the image projection takes, of the pictures (n, ...) and of no picture (1, ...).

    Raises PoseTransferError that says what to connect.
    """
    image = vcm.vcm.image
    if output is None and source is None:
        raise PoseTransferError(
            "There is no picture of the person. Connect source, or a clip_vision_output."
        )
    if vcm.tower is not None:
        if source is None:
            raise PoseTransferError(
                "The demo looks at pictures with its own image tower and cannot use a "
                "clip_vision_output. Connect the picture to source."
            )
        host.on_device(vcm.tower)
        embeds = vcm.tower.model(as_rgb(source, "source"))
        return embeds, torch.zeros_like(embeds[:1])
    if output is None and clip_vision is None:
        raise PoseTransferError(
            f"The VCM weights {vcm.name!r} see pictures through CLIP Vision, and none is "
            "connected. Connect Load CLIP Vision to clip_vision (ViT-H for SD 1.5 and vit-h "
            "files, ViT-bigG for other SDXL ones), or a clip_vision_output."
        )
    seen = output
    if seen is None:
        assert source is not None, "one of both is there"
        seen = clip_vision.encode_image(as_rgb(source, "source"), crop=crop == "center")
    embeds = seen.penultimate_hidden_states if image.reads_states else seen.image_embeds
    if embeds.shape[-1] != image.embed_width:
        raise PoseTransferError(
            f"CLIP Vision gives {embeds.shape[-1]} numbers for a picture, the VCM weights "
            f"{vcm.name!r} need {image.embed_width}. Connect the encoder that the IP-Adapter was "
            "made for: ViT-H (1024; 1280 for plus files), or ViT-bigG (1280)."
        )
    if image.reads_states and clip_vision is not None:
        neutral = torch.tensor(_NEUTRAL).expand(
            1, clip_vision.image_size, clip_vision.image_size, 3
        )
        return embeds, clip_vision.encode_image(neutral).penultimate_hidden_states
    return embeds, torch.zeros_like(embeds[:1])


def conditions(
    vcm: VCMModel,
    pictures: tuple[torch.Tensor, torch.Tensor],
    face: torch.Tensor | None,
    scales: tuple[float, ...],
    face_scale: float,
    words: tuple[int, ...],
) -> tuple[Plan, list[VCMCondition]]:
    """The plan, and what positive and negative carry."""
    module, device = vcm.vcm, host.on_device(vcm.patcher)
    # One person in several pictures: all their tokens side by side.
    shown, empty = (
        module.image.tokens(x.to(device, torch.float32)).flatten(0, 1)[None] for x in pictures
    )
    faces: list[torch.Tensor | None] = [None, None]
    if face is not None and module.face is not None:
        no_face = torch.zeros(1, FACE_WIDTH)
        faces = [module.face.tokens(x.to(device)) for x in (face, no_face)]
    per_picture = empty.shape[1]
    empty = empty.repeat(1, shown.shape[1] // per_picture, 1)
    first = faces[0]
    plan = Plan(
        module.image.widths, scales, shown.shape[1],
        0 if first is None else first.shape[1], face_scale,
    )  # fmt: skip
    packed = [
        plan.pack(module, image, one) for image, one in zip((shown, empty), faces, strict=True)
    ]
    return plan, [VCMCondition(host.keep(values), words) for values in packed]
