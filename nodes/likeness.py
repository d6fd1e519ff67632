# SPDX-License-Identifier: GPL-3.0-or-later
"""How like the person a tuning's previews are: by the face, by the whole picture, or by both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..pose_transfer.images import to_uint8
from ..pose_transfer.oneposetrans.crops import person_square
from ..pose_transfer.types import FaceEmbedding
from .face_encoders import load_named


def face_likeness(face: FaceEmbedding, previews: Tensor) -> list[float]:
    """Cosine of the likest face in each preview (N, H, W, 3) and the person's mean embedding.

    -1 for a preview without a face where another has one. No number for a preview that is no
    picture; nowhere a number where no preview has a face, or `face` has none.
    """
    if not face.found.any():
        return [math.nan] * len(previews)
    person = face.normalised[face.found].mean(0)
    encoder = load_named(face.encoder)
    scores, seen = [], False
    for preview in previews.float():
        if not preview.isfinite().all():
            scores.append(math.nan)
            continue
        faces = [one.raw for one in encoder.faces(to_uint8(preview[None].clamp(0, 1))[0])]
        seen = seen or bool(faces)
        scores.append(max((_cosine(one, person) for one in faces), default=-1.0))
    return scores if seen else [math.nan] * len(scores)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def picture_likeness(
    clip_vision: Any, photos: Tensor, mask: Tensor | None, previews: Tensor
) -> list[float]:
    """Cosine of each preview's image embedding and the mean one of the photos' person."""

    def embeds(pictures: Tensor) -> Tensor:
        return clip_vision.encode_image(pictures)["image_embeds"].float()

    if mask is None:
        shown = embeds(photos)
    else:
        size = photos.shape[1:3]
        soft = F.interpolate(mask[:, None].float(), size=size, mode="area")[:, 0]
        pairs = zip(photos, soft.to(photos).expand(len(photos), *size), strict=True)
        shown = torch.cat([embeds(person_square(*pair)[None]) for pair in pairs])
    return F.cosine_similarity(embeds(previews), shown.mean(0, keepdim=True)).tolist()


def together(judged: Sequence[Sequence[float]]) -> list[float]:
    """The mean of what one or more judges say of each preview, without those who say nothing."""
    telling = [one for one in judged if any(map(math.isfinite, one))] or [judged[0]]
    return [sum(scores) / len(scores) for scores in zip(*telling, strict=True)]
