# SPDX-License-Identifier: GPL-3.0-or-later
"""HPFA: one softmax over the target's own tokens and those of the source.

Xu et al., "TruePose", arXiv 2502.03426. [P] The source's parsing guides how source features are
fused into TargetNet's attention. [D] How: source token j has a gate g_j >= 0 and target token i a
correspondence c_ij with it,

    A = softmax([q K_t^T / sqrt(d), q K_s^T / sqrt(d) + log g_j + c_ij]),  out = A [V_t; V_s],

so that g_j = 0 removes a token and weights act as a prior does. Symbols of shapes: B batch, N_t
target and N_s source tokens, N_k the target's own keys (N_t, or more where something else added
some), C = heads * d.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

# Queries whose logits are held at once where a kernel does not do it for us.
_CHUNK = 512


def fusion_attention(
    q: Tensor,
    k_t: Tensor,
    v_t: Tensor,
    k_s: Tensor,
    v_s: Tensor,
    source_gate: Tensor | None,
    correspondence: Tensor | None,
    heads: int,
) -> Tensor:
    """[D] The fused attention (B, N_t, C), before the output projection.

    q (B, N_t, C); k_t, v_t (B, N_k, C); k_s, v_s (B, N_s, C). `source_gate` (B, N_s) or (1, N_s),
    not negative, None for ones; `correspondence` (B, N_t, N_s) or (1, N_t, N_s) is added to the
    logits, None for none. What is added to logits is one row, or one matrix, that all heads share.
    """
    mask = fusion_mask(source_bias(source_gate, correspondence), k_t.shape[1], q.dtype)
    return masked_fusion_attention(q, k_t, v_t, k_s, v_s, mask, heads)


def fusion_mask(bias: Tensor | None, own: int, dtype: torch.dtype) -> Tensor | None:
    """What is added to all logits, (B, 1, 1 or N_t, own + N_s): zero for the target's own keys.

    `bias` as `source_bias` gives it. The same for all blocks of one size: worth keeping.
    """
    return None if bias is None else F.pad(bias.to(dtype), (own, 0))[:, None]


def masked_fusion_attention(
    q: Tensor, k_t: Tensor, v_t: Tensor, k_s: Tensor, v_s: Tensor, mask: Tensor | None, heads: int
) -> Tensor:
    """`fusion_attention` with its mask already made by `fusion_mask`."""
    out = F.scaled_dot_product_attention(
        _heads(q, heads),
        _heads(torch.cat([k_t, k_s], dim=1), heads),
        _heads(torch.cat([v_t, v_s], dim=1), heads),
        attn_mask=mask,
    )
    return out.transpose(1, 2).flatten(2)


def joined_attention(
    out_t: Tensor,
    q: Tensor,
    k_t: Tensor,
    k_s: Tensor,
    v_s: Tensor,
    source_gate: Tensor | None,
    correspondence: Tensor | None,
    heads: int,
) -> Tensor:
    """[D] `fusion_attention` where `out_t` (B, N_t, C) is somebody else's attention to the target.

    The share of the source is what one softmax would give it; the rest of the weight goes to
    `out_t`. With plain attention for `out_t` this is `fusion_attention`.
    """
    bias = source_bias(source_gate, correspondence)
    parts = []
    for rows, to_target, to_source in _logits(q, k_t, k_s, bias, heads):
        share = torch.sigmoid(to_source.logsumexp(-1) - to_target.logsumexp(-1))[..., None]
        source = to_source.softmax(-1).nan_to_num() @ _heads(v_s, heads).to(to_source.dtype)
        other = _heads(out_t[:, rows], heads)
        parts.append(((1 - share) * other + share * source).to(out_t.dtype))
    return torch.cat(parts, dim=2).transpose(1, 2).flatten(2)


def attention_mass(
    q: Tensor,
    k_t: Tensor,
    k_s: Tensor,
    source_gate: Tensor | None,
    correspondence: Tensor | None,
    source_regions: Tensor,
    heads: int,
) -> Tensor:
    """[P] How much of each target token's attention falls on each region of the source.

    The paper's diagnosis of earlier methods (its Figure 2). `source_regions` (B or 1, N_s, R) are
    soft masks. Returns (B, N_t, R), means over the heads, in [0, 1].
    """
    bias = source_bias(source_gate, correspondence)
    parts = []
    for _, to_target, to_source in _logits(q, k_t, k_s, bias, heads):
        weights = torch.cat([to_target, to_source], dim=-1).softmax(-1)[..., to_target.shape[-1] :]
        parts.append(weights.mean(1) @ source_regions.to(weights.dtype))
    return torch.cat(parts, dim=1)


def source_bias(source_gate: Tensor | None, correspondence: Tensor | None) -> Tensor | None:
    """[D] What is added to the logits of source tokens: (B, 1 or N_t, N_s), or None for nothing."""
    if source_gate is None:
        return correspondence
    gate = source_gate.log()[:, None]
    return gate if correspondence is None else gate + correspondence


def correspondence_logits(
    target_regions: Tensor, source_regions: Tensor, beta: float, eps: float = 1e-3
) -> Tensor:
    """[D] beta * log(eps + sum over r of m_r(i) m_r(j)): (B, N_t, R), (B, N_s, R) -> (B, N_t, N_s).

    Soft masks in [0, 1]; `eps` bounds how strongly another region is shut out: by eps^beta.
    """
    return beta * torch.log(eps + target_regions @ source_regions.mT)


def kept_tokens(source_gate: Tensor) -> Tensor:
    """Indices of the source tokens that any picture of the batch lets through: (B, N_s) -> (K,).

    Leaving out the others changes nothing, for their gates are zero, and saves their share of the
    work: a background is often more than half of a picture.
    """
    return (source_gate > 0).any(0).nonzero()[:, 0]


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, N, d)


def _logits(
    q: Tensor, k_t: Tensor, k_s: Tensor, bias: Tensor | None, heads: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some queries at a time: which, and their logits (B, heads, n, N_k) and (B, heads, n, N_s)."""
    exact = torch.promote_types(q.dtype, torch.float32)
    queries, own, source = (_heads(x, heads).to(exact) for x in (q, k_t, k_s))
    queries = queries * queries.shape[-1] ** -0.5
    for start in range(0, q.shape[1], _CHUNK):
        rows = slice(start, start + _CHUNK)
        to_source = queries[:, :, rows] @ source.mT
        if bias is not None:
            part = bias if bias.shape[1] == 1 else bias[:, rows]
            to_source = to_source + part[:, None].to(exact)
        yield rows, queries[:, :, rows] @ own.mT, to_source
