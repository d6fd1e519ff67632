# SPDX-License-Identifier: GPL-3.0-or-later
"""The visual consistency module's arithmetic, in every cross-attention of the UNet.

Fan et al., OnePoseTrans (arXiv 2409.09593), checked against numbers of the released code
(reference/vcm_attention). Symbols: B batch, N places in the picture, L text tokens, T extra
tokens, C width of the attention. Queries, keys and values are projected already, heads side by
side in C.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_FACE_GAIN = 4.0
"""Written as 16 x 4 times a mean over 16 tokens in the released code: a sum, times 4."""


def face_value(face_v: Tensor) -> Tensor:
    """What stands for the face in the text's values: (B, T, C) -> (B, 1, C).

    `r = 4 sum_t w_t v_t` with w the softmax over the tokens, for each channel by itself.
    """
    weights = torch.softmax(face_v, dim=1)
    return _FACE_GAIN * (weights * face_v).sum(dim=1, keepdim=True)


def replace_value(v: Tensor, value: Tensor, words: Tensor) -> Tensor:
    """Text values (B, L, C) with `value` (B, 1, C) where `words` (B or 1, L) is true.

    Tokens that came in behind the L that `words` knows are left as they are.
    """
    words = F.pad(words, (0, v.shape[1] - words.shape[1]))
    return torch.where(words[..., None], value, v)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q k' / sqrt(d)) v: (B, N, C), (B, T, C), (B, T, C) -> (B, N, C)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def vcm_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ip_k: Tensor | None,
    ip_v: Tensor | None,
    face_k: Tensor | None,
    face_v: Tensor | None,
    token_index: int | Sequence[int],
    scale_ip: float,
    scale_face: float,
    heads: int,
) -> Tensor:
    """Cross-attention of a picture to text, image tokens and face tokens, before `to_out`.

    Args:
        q: (B, N, C); k, v: (B, L, C) of the text.
        ip_k, ip_v: (B, T, C) of the image tokens, or None.
        face_k, face_v: (B, T, C) of the face tokens; with None the text is left alone. The released
            code gives the face's value projection for both.
        token_index: the text token or tokens whose value, not key, becomes `face_value(face_v)`.
        scale_ip, scale_face: weights of the two added attentions; the paper's is 0 for the face.
        heads: C is `heads` times the width of a head.
    """
    if face_v is not None:
        words = torch.zeros(1, v.shape[1], dtype=torch.bool, device=v.device)
        words[:, [token_index] if isinstance(token_index, int) else list(token_index)] = True
        v = replace_value(v, face_value(face_v), words)
    out = attention(q, k, v, heads)
    if ip_k is not None and ip_v is not None:
        out = out + scale_ip * attention(q, ip_k, ip_v, heads)
    if scale_face and face_k is not None and face_v is not None:
        out = out + scale_face * attention(q, face_k, face_v, heads)
    return out
