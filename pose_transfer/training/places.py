# SPDX-License-Identifier: GPL-3.0-or-later
"""Loss of the heads that tell `SourceTransport` which place on the body each quarter cell shows."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..fpdm.transport import PlaceHead, SourceTransport


def places_loss(
    module: SourceTransport, source_states: Tensor, pose_states: Tensor, cloth: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """One batch: states (B, C, h, w) of photos and of their poses; `cloth` (B, 4, 2h, 2w)."""
    of_source, source_error = _head_loss(module.source_places, source_states, cloth)
    of_pose, pose_error = _head_loss(module.pose_places, pose_states, cloth)
    return of_source + of_pose, {"source": source_error, "pose": pose_error}


def _head_loss(head: PlaceHead, states: Tensor, cloth: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and the mean error of a coordinate in body heights."""
    places, body = head(states)
    figure = (cloth.abs().sum(1, keepdim=True) > 0).float()
    # Where two places are possible the median is one of them; the mean would be neither.
    error = ((places.float() - cloth).abs() * figure).sum() / (4 * figure.sum() + 1)
    loss = 20.0 * error + F.binary_cross_entropy_with_logits(body.float(), figure)
    return loss, error.detach()
