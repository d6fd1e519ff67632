# SPDX-License-Identifier: GPL-3.0-or-later
"""The source's colours, carried to where the target pose wants them: of the demo, not of FPDM.

FPDM's cross-attention finds by itself which cell of the source belongs to a cell of the target,
given millions of pairs. The demo's small UNet sees a few ten thousand. Its two towers know for each
cell which place on the body it shows; here each quarter of a target cell takes the colours of the
source's quarters that show the same place, and the UNet is told them with the pose. Whoever wears
what, and what is not seen in the source, remains the matter of FPDM's three conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLACE = 4
"""Coordinates of a place, body heights; see `mannequin.Rendering.cloth`."""
_SUB = 2
"""Quarters along each side of a cell."""
_NOWHERE = 1e3
"""Squared distance of what is no place: weighs nothing, and if all are, is still a number."""


@dataclass(frozen=True)
class TransportConfig:
    """Widths of the source tower's and the pose tower's states, of the heads, of the features.

    `sharpness`: how far a place may be off to be taken for the same, body heights.
    """

    source_width: int
    pose_width: int
    hidden: int
    out_channels: int
    sharpness: float


class PlaceHead(nn.Module):
    """States (B, C, h, w) -> places (B, 4, 2h, 2w) and logits of a body there (B, 1, 2h, 2w)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, hidden, 3, padding=1), nn.GELU(),
            nn.Conv2d(hidden, (PLACE + 1) * _SUB**2, 1),
        )  # fmt: skip

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        fine = F.pixel_shuffle(self.net(states), _SUB)
        return fine[:, :PLACE], fine[:, PLACE:]


class SourceTransport(nn.Module):
    """Adds to FPDM's pose features what the source shows of each place; at first nothing."""

    def __init__(self, config: TransportConfig) -> None:
        super().__init__()
        self.config = config
        self.source_places = PlaceHead(config.source_width, config.hidden)
        self.pose_places = PlaceHead(config.pose_width, config.hidden)
        self.conv_out = nn.Conv2d(4 * _SUB**2, config.out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    @torch.no_grad()
    def carry(self, photo: Tensor, source_states: Tensor, pose_states: Tensor) -> Tensor:
        """Colours at their places in the target pose, and how surely they were seen.

        Args: `photo` (B, 3, H, W) in [0, 1]; `source_states` (B, C, h, w), the source tower's
        cells; `pose_states` (B, C', h', w'), the pose encoder's. Returns (B, 4, 2h', 2w'): RGB in
        [-1, 1] times the last channel, which is 1 where the source shows the place and 0 where it
        does not, or where there is no body. One source goes with many poses, and the reverse.
        """
        shown = torch.cat(self.source_places(source_states), dim=1)
        meant = torch.cat(self.pose_places(pose_states), dim=1)
        return self.carry_between(quarter_colours(photo, shown), shown, meant)

    @torch.no_grad()
    def carry_between(self, colours: Tensor, shown: Tensor, meant: Tensor) -> Tensor:
        """`carry` from what the heads said: places with their logits, (B, 5, 2h, 2w).

        `colours` (B, 3, 2h, 2w) in [-1, 1] are those of the places `shown`.
        """
        scale = -0.5 / self.config.sharpness**2
        batch = max(len(shown), len(meant))
        colours, shown, meant = (x.expand(batch, -1, -1, -1) for x in (colours, shown, meant))
        where, here = _on_body(meant)
        source, there = _on_body(shown)
        squared = _squared(_listed(meant[:, :PLACE], where), _listed(shown[:, :PLACE], source))
        squared = squared.masked_fill(~there[:, None], _NOWHERE)
        # What is five widths away is another place.
        seen = torch.exp(squared.amin(2, keepdim=True) * (scale / 25.0))  # (B, N, 1)
        rgb = torch.softmax(squared * scale, dim=2) @ _listed(colours, source)
        found = torch.cat([rgb * seen, seen], dim=2) * here[..., None]
        out = found.new_zeros(batch, 4, meant[0, 0].numel())
        out.scatter_(2, where[:, None].expand(-1, 4, -1), found.mT)
        return out.unflatten(2, meant.shape[-2:])

    def features(self, carried: Tensor) -> Tensor:
        """`carry`'s output -> (B, C0, h', w'), to be added to the pose features."""
        return self.conv_out(F.pixel_unshuffle(carried, _SUB))

    def forward(self, photo: Tensor, source_states: Tensor, pose_states: Tensor) -> Tensor:
        return self.features(self.carry(photo, source_states, pose_states))


def quarter_colours(photo: Tensor, places: Tensor) -> Tensor:
    """Mean colours (B, 3, 2h, 2w) in [-1, 1] of a photo (B, 3, H, W) in [0, 1], at `places`."""
    return F.interpolate(photo, places.shape[-2:], mode="area") * 2 - 1


def _on_body(places: Tensor) -> tuple[Tensor, Tensor]:
    """Flat numbers (B, N) of each map's quarters with a body; N fits the fullest map.

    The second (B, N) says which of them are: maps with fewer have others behind theirs.
    """
    body = (places[:, PLACE] > 0).flatten(1)
    most = max(int(body.sum(1).amax()), 1)
    order = body.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    return order, body.gather(1, order)


def _listed(maps: Tensor, where: Tensor) -> Tensor:
    """Maps (B, C, h, w) at flat numbers (B, N): (B, N, C)."""
    flat = maps.flatten(2)
    return flat.gather(2, where[:, None].expand(-1, flat.shape[1], -1)).mT


def _squared(first: Tensor, second: Tensor) -> Tensor:
    """Squared distances (B, N, M) of places (B, N, 4) and (B, M, 4), exact where small."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(first.float(), second.float(), compute_mode=exact).square()


def describe(transport: SourceTransport) -> dict[str, Any]:
    """The description that `build_transport` needs to build the same."""
    return asdict(transport.config)


def build_transport(config: Mapping[str, Any]) -> SourceTransport:
    """A transport with random weights from its description."""
    return SourceTransport(TransportConfig(**config)).eval()
