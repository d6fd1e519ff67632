# SPDX-License-Identifier: GPL-3.0-or-later
"""What each cross-attention adds, worked out once for a whole run.

Tokens do not change while a picture is sampled, so neither do their keys and values. All of them
together are one vector, which a host can batch like any other condition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .vcm import attention, face_value
from .vcm_adapter import VCM


@dataclass(frozen=True, eq=False)
class Added:
    """What one cross-attention adds, for B samples; None for what it does not.

    `value` (B, 1, C) for the face word; the others are keys and values (B, T, C) of the image and
    face tokens, scales included.
    """

    value: Tensor | None
    image: tuple[Tensor, Tensor] | None
    face: tuple[Tensor, Tensor] | None

    def attend(self, q: Tensor, heads: int) -> Tensor | None:
        """What is added to the attention to the text: (B, N, C) -> (B, N, C)."""
        looks = [attention(q, *pair, heads) for pair in (self.image, self.face) if pair is not None]
        return sum(looks[1:], looks[0]) if looks else None


@dataclass(frozen=True)
class Plan:
    """Settings of a run.

    `widths`: C of each cross-attention, in diffusers' order; `image_scales` for each of them;
    `image_tokens` and `face_tokens` are how many there are, 0 for no face; `face_scale` for all.
    """

    widths: tuple[int, ...]
    image_scales: tuple[float, ...]
    image_tokens: int
    face_tokens: int
    face_scale: float

    def acts(self, index: int) -> bool:
        """Whether that cross-attention does anything beyond attending to the text."""
        return bool(self._tokens(index))

    @property
    def size(self) -> int:
        """How many numbers `pack` makes."""
        return sum(sum(self._tokens(i)) * width for i, width in enumerate(self.widths))

    def pack(self, vcm: VCM, image_tokens: Tensor, face_tokens: Tensor | None) -> Tensor:
        """Keys and values from tokens (1, T, D) of the picture and of the face: (1, `size`)."""
        parts: list[Tensor] = []
        for i, scale in enumerate(self.image_scales):
            if vcm.face is not None and face_tokens is not None:
                face_v = vcm.face.value(face_tokens, i)
                parts.append(face_value(face_v))
                if self.face_scale:
                    parts += [vcm.face.key(face_tokens, i), self.face_scale * face_v]
            if scale:
                parts.append(vcm.image.key(image_tokens, i))
                parts.append(scale * vcm.image.value(image_tokens, i))
        flat = [part.reshape(1, -1) for part in parts]
        return torch.cat(flat, dim=1) if flat else image_tokens.new_zeros(1, 0)

    def unpack(self, packed: Tensor) -> list[Added]:
        """(B, `size`) -> what each cross-attention adds, as views."""
        sizes = [
            (tokens, width) for i, width in enumerate(self.widths) for tokens in self._tokens(i)
        ]
        pieces = iter(packed.split([tokens * width for tokens, width in sizes], dim=1))
        shapes = iter(sizes)

        def take() -> Tensor:
            return next(pieces).unflatten(1, next(shapes))

        added = []
        for scale in self.image_scales:
            value = take() if self.face_tokens else None
            face = (take(), take()) if self.face_tokens and self.face_scale else None
            image = (take(), take()) if scale else None
            added.append(Added(value, image, face))
        return added

    def _tokens(self, index: int) -> list[int]:
        """How many rows each of the tensors of a cross-attention has, in the order of `pack`."""
        face = [1, *([self.face_tokens] * 2 if self.face_scale else [])] if self.face_tokens else []
        return face + ([self.image_tokens] * 2 if self.image_scales[index] else [])
