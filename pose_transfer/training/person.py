# SPDX-License-Identifier: GPL-3.0-or-later
"""What the person network is taught, on the scenes of `scenes.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..demo.person_net import (
    BOX_UNIT,
    CENTRE_STRIDE,
    HEAT_STRIDE,
    MULTIPLE,
    PersonMaps,
    joint_places,
)
from .batches import Batches
from .scenes import OUTSIDE, Scenes, draw_scenes

_SPREAD = 1.0
"""Standard deviation of a joint's target, cells."""
_CENTRE_SPREAD = 0.055
"""Standard deviation of a centre's target in heights of the person; at least 0.8 cells."""


def person_loss(
    module: nn.Module, data: Batches, batch: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """One batch of scenes; figures: pixels named rightly, joint error in px, presence, centres."""
    scenes = draw_scenes(data, batch, generator)
    maps: PersonMaps = module(scenes.pixels.contiguous(memory_format=torch.channels_last))
    parsing = F.cross_entropy(maps.parsing.float(), scenes.labels, ignore_index=OUTSIDE)
    heat, present = _joint_losses(maps, scenes)
    centre, box = _people_losses(maps, scenes)
    facing = _facing_loss(maps, scenes)
    figure = scenes.figure[:, None]
    places = ((maps.places.float() - scenes.places).abs() * figure).sum() / (3 * figure.sum() + 1)
    loss = 2.0 * parsing + 0.3 * heat + 0.2 * present + 0.5 * centre + 0.3 * box
    loss = loss + facing + 5.0 * places
    with torch.no_grad():
        within = scenes.labels != OUTSIDE
        right = (maps.parsing.argmax(1) == scenes.labels)[within].float().mean()
        guess, _ = joint_places(maps.heat, maps.present)
        known = scenes.joints[..., 2] * scenes.focused[:, None]
        off = (guess - scenes.joints[..., :2]).square().sum(2).sqrt()
        joints = (off * known).sum() / known.sum().clamp_min(1)
    return loss, {
        "parsing": parsing, "right": right, "heat": heat, "joints": joints, "present": present,
        "centre": centre, "box": box, "facing": facing, "places": places,
    }  # fmt: skip


def _joint_losses(maps: PersonMaps, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Divergence of the heat maps from Gaussians at the joints, and the presence's cross-entropy.

    Both of the windows on one person only: elsewhere nobody says whose joints are meant.
    """
    heat = maps.heat.float()
    batch, joints, rows, columns = heat.shape
    known = scenes.joints[..., 2] * scenes.focused[:, None]  # (B, joints)
    place = scenes.joints[..., :2] / HEAT_STRIDE
    column = torch.arange(columns, device=heat.device) + 0.5
    row = torch.arange(rows, device=heat.device) + 0.5
    # Softmax of the exponent, not the Gaussian itself: far off the map it would be all zeros.
    across = (-(column - place[..., :1]).square() / (2 * _SPREAD**2)).softmax(2)
    down = (-(row - place[..., 1:]).square() / (2 * _SPREAD**2)).softmax(2)
    target = (down[..., :, None] * across[..., None, :]).flatten(2)
    guess = heat.flatten(2).log_softmax(2)
    divergence = (target * (target.clamp_min(1e-9).log() - guess)).sum(2)
    where = guess.detach().exp().view(batch, joints, rows, columns)
    presence = (where * maps.present.float()).sum((2, 3))
    truth = scenes.joints[..., 2]
    doubt = F.binary_cross_entropy_with_logits(presence, truth, reduction="none").mean(1)
    return (
        (divergence * known).sum() / known.sum().clamp_min(1),
        (doubt * scenes.focused).sum() / scenes.focused.sum().clamp_min(1),
    )


def _people_losses(maps: PersonMaps, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """The centre map's focal loss (as in CenterNet, arXiv:1904.07850) and the boxes' error."""
    logits = maps.centre.float()
    _, rows, columns = logits.shape
    column = (torch.arange(columns, device=logits.device) + 0.5) * CENTRE_STRIDE
    row = (torch.arange(rows, device=logits.device) + 0.5) * CENTRE_STRIDE
    left, top, right, bottom = scenes.boxes[..., None, None].unbind(2)  # (B, L, 1, 1)
    spread = (_CENTRE_SPREAD * (bottom - top)).clamp_min(0.8 * CENTRE_STRIDE)
    x, y = scenes.middles[..., 0, None, None], scenes.middles[..., 1, None, None]
    gaussian = torch.exp(
        -((column - x).square() + (row[:, None] - y).square()) / (2 * spread.square())
    )
    gaussian = gaussian * scenes.shown[..., None, None]  # (B, L, rows, columns)
    nearest, whose = gaussian.max(1)
    peak = ((column - x).abs() <= CENTRE_STRIDE / 2) & (
        (row[:, None] - y).abs() <= CENTRE_STRIDE / 2
    )
    peak = (peak & scenes.shown[..., None, None]).any(1)
    share = logits.sigmoid()
    hit = (1 - share).square() * F.logsigmoid(logits)
    miss = (1 - nearest).pow(4) * share.square() * F.logsigmoid(-logits)
    people = scenes.shown.sum().clamp_min(1)
    centre = -(hit * peak + miss * ~peak).sum() / people

    distances = torch.stack(
        [
            (column - left).expand_as(gaussian), (row[:, None] - top).expand_as(gaussian),
            (right - column).expand_as(gaussian), (bottom - row[:, None]).expand_as(gaussian),
        ],
        dim=2,
    )  # (B, L, 4, rows, columns)  # fmt: skip
    height = (bottom - top).clamp_min(16.0)
    chosen = whose[:, None, None].expand(-1, 1, 4, -1, -1)
    wanted = distances.gather(1, chosen)[:, 0].clamp_min(0)
    height = height.expand_as(gaussian).gather(1, whose[:, None])
    weight = (nearest * (nearest > 0.4))[:, None]
    error = (maps.box.float() * BOX_UNIT - wanted).abs() / height
    box = (error * weight).sum() / (4 * weight.sum()).clamp_min(1)
    return centre, 10.0 * box


def _facing_loss(maps: PersonMaps, scenes: Scenes) -> Tensor:
    """Squared error of every person's yaw, read where their middle is."""
    _, _, rows, columns = maps.facing.shape
    size = scenes.middles.new_tensor([columns * MULTIPLE, rows * MULTIPLE])
    grid = (2.0 * scenes.middles / size - 1.0)[:, :, None]  # (B, L, 1, 2)
    guess = F.grid_sample(maps.facing.float(), grid, padding_mode="border", align_corners=False)
    error = (guess[..., 0].mT - scenes.facing).square().sum(2)  # (B, L)
    return (error * scenes.shown).sum() / scenes.shown.sum().clamp_min(1)
