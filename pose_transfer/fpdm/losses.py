# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 1's contrastive losses and the retrieval rank that measures them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    target: Tensor,
    source: Tensor,
    fused: Tensor,
    temperature: float = 0.07,
    lambda_l1: float = 1e-4,
    source_enhanced: bool = True,
) -> Tensor:
    """InfoNCE of fusion embeddings against target embeddings, plus a pull towards the source.

    `mean_i(-log softmax_j(cos(t_i, f_j) / temperature)[i]) + lambda_l1 mean|s - f|`

    The rows are targets, the columns fusions, the positives lie on the diagonal. In the
    source-enhanced form every source also is a target whose fusion is itself: `t = [target;
    source]`, `f = [fused; source]`, `s = [source; source]`, a 2B x 2B matrix; the sources then are
    negatives that keep a fusion from falling back on the source.

    Args: `target`, `source`, `fused` are (B, E); lengths matter for the L1 term only.
    Returns a scalar in float32 or wider, whatever autocast says.
    """
    if not target.shape == source.shape == fused.shape or target.dim() != 2:
        raise ValueError(
            "info_nce needs target, source and fused of one shape (B, E), got "
            f"{tuple(target.shape)}, {tuple(source.shape)} and {tuple(fused.shape)}"
        )
    if source_enhanced:
        target, fused, source = (
            torch.cat([target, source]),
            torch.cat([fused, source]),
            torch.cat([source, source]),
        )
    with torch.autocast(target.device.type, enabled=False):
        target, source, fused = (_at_least_float(x) for x in (target, source, fused))
        logits = F.normalize(target, dim=-1) @ F.normalize(fused, dim=-1).T / temperature
        positives = torch.arange(len(logits), device=logits.device)
        return F.cross_entropy(logits, positives) + lambda_l1 * F.l1_loss(fused, source)


def retrieval_ranks(queries: Tensor, gallery: Tensor, positives: Tensor | None = None) -> Tensor:
    """Rank (1 is best) of each query's own item in the gallery, by cosine similarity.

    `queries` (Q, E), `gallery` (G, E), `positives` (Q,) indices into the gallery, by default
    0..Q-1. Items exactly as near as the positive count as nearer, so that a constant embedding
    does not look perfect. Returns (Q,) int64; R@k is `(ranks <= k).float().mean()`.
    """
    queries, gallery = _at_least_float(queries), _at_least_float(gallery)
    similarity = F.normalize(queries, dim=-1) @ F.normalize(gallery, dim=-1).T  # (Q, G)
    own_index = torch.arange(len(queries)) if positives is None else positives
    own = similarity.gather(1, own_index.to(queries.device).unsqueeze(1))  # (Q, 1)
    return (similarity >= own).sum(dim=1)


def _at_least_float(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
