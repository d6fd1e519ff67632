# SPDX-License-Identifier: GPL-3.0-or-later
"""What the visual consistency module adds to a UNet: image tokens, face tokens, their projections.

IP-Adapter's networks give the image tokens, InstantID's the face tokens; both are one kind of
thing here, a `TokenAdapter`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CheckpointError
from .resampler import ImageProjection, Resampler

FACE_WIDTH = 512
"""Numbers in a face embedding; that an adapter reads faces shows in this width alone."""


class TokenAdapter(nn.Module):
    """Tokens from an embedding, and a key and value for each cross-attention of the UNet.

    Args:
        projection: makes the tokens (B, T, D).
        to_v: (C, D) for each cross-attention, in diffusers' order (down, up, middle).
        to_k: the same for the keys; None: `to_v` gives the keys as well.

    Projections of the attentions may be stored in half precision; arithmetic is float32.
    """

    def __init__(
        self,
        projection: ImageProjection | Resampler,
        to_v: Sequence[Tensor],
        to_k: Sequence[Tensor] | None,
    ) -> None:
        super().__init__()
        self.projection = projection
        self.to_v = nn.ParameterList([nn.Parameter(x) for x in to_v])
        self.to_k = None if to_k is None else nn.ParameterList([nn.Parameter(x) for x in to_k])

    @property
    def widths(self) -> tuple[int, ...]:
        """C of each cross-attention."""
        return tuple(weight.shape[0] for weight in self.to_v)

    @property
    def embed_width(self) -> int:
        """Width of what `tokens` takes."""
        if isinstance(self.projection, Resampler):
            return self.projection.proj_in.in_features
        return self.projection.proj.in_features

    @property
    def reads_states(self) -> bool:
        """Whether it takes all states of a picture (B, N, E), not one embedding (B, E)."""
        return isinstance(self.projection, Resampler) and not self.reads_faces

    @property
    def reads_faces(self) -> bool:
        return isinstance(self.projection, Resampler) and self.embed_width == FACE_WIDTH

    def tokens(self, embeds: Tensor) -> Tensor:
        """Image embeddings (B, E), states (B, N, E) or face embeddings (B, 512) -> (B, T, D)."""
        if self.reads_faces:
            embeds = embeds[:, None]
        return self.projection(embeds.float())

    def key(self, tokens: Tensor, index: int) -> Tensor:
        """(B, T, D) -> (B, T, C) for the cross-attention of that number."""
        if self.to_k is None:
            return self.value(tokens, index)
        return F.linear(tokens, self.to_k[index].to(tokens.dtype))

    def value(self, tokens: Tensor, index: int) -> Tensor:
        """(B, T, D) -> (B, T, C) for the cross-attention of that number."""
        return F.linear(tokens, self.to_v[index].to(tokens.dtype))


class VCM(nn.Module):
    """The module as a whole; without `face` it is plain image attention.

    Raises CheckpointError where the two were made for different UNets.
    """

    def __init__(self, image: TokenAdapter, face: TokenAdapter | None = None) -> None:
        super().__init__()
        if face is not None and face.widths != image.widths:
            raise CheckpointError(
                f"The image weights are for a UNet with {describe_widths(image.widths)}, the face "
                f"weights for one with {describe_widths(face.widths)}. Choose two files that were "
                "made for the same base model, for example both for SDXL."
            )
        self.image = image
        self.face = face


def describe_widths(widths: Sequence[int]) -> str:
    """In words, for messages."""
    by_size = ", ".join(str(width) for width in sorted(set(widths)))
    return f"{len(widths)} cross-attentions of widths {by_size}"


def average_face(raw: Tensor, found: Tensor) -> Tensor | None:
    """One embedding (1, 512) of a person from several pictures (B, 512), None without any face.

    `found` (B,) bool: which pictures show it. Of one picture it is the encoder's raw embedding, as
    the released code uses it; of several the mean direction at the mean length.
    """
    faces = raw[found]
    if len(faces) < 2:
        return faces if len(faces) else None
    mean = F.normalize(F.normalize(faces, dim=1).mean(0, keepdim=True), dim=1)
    return mean * torch.linalg.vector_norm(faces, dim=1).mean()
