# SPDX-License-Identifier: GPL-3.0-or-later
"""The person network: one small U-Net that finds, parses and measures mannequins.

Three things are read from one picture: what each pixel shows (parsing), where the people are and
which way they turn (a centre map with boxes), and where the joints of the person in the middle lie
(heat maps). The first two speak of everybody; the last is meant for a window that one person fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..pose.skeleton import BODY_NAMES

MULTIPLE = 32
"""Height and width of the input are multiples of this."""
HEAT_STRIDE, CENTRE_STRIDE = 4, 8
"""Input pixels per cell of the heat maps and of the centre map."""
MIRRORED_JOINTS = [
    BODY_NAMES.index(
        name.replace("left", "right") if "left" in name else name.replace("right", "left")
    )
    for name in BODY_NAMES
]
"""Which joint each of the 18 becomes in a mirror."""
BOX_UNIT = 32.0
"""Input pixels per unit of the box distances."""


@dataclass(frozen=True)
class PersonNetConfig:
    """`widths` of the levels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size."""

    widths: tuple[int, int, int, int, int]
    labels: int = 8
    joints: int = 18


@dataclass(frozen=True, eq=False)
class PersonMaps:
    """What the network sees in pictures (B, 3, H, W).

    `parsing` (B, labels, H, W) logits; `heat` (B, joints, H/4, W/4) logits of a softmax over the
    cells; `present` (B, joints, H/4, W/4) logits, read where the joint is; `centre` (B, H/8, W/8)
    logits of being a person's middle; `box` (B, 4, H/8, W/8) distances from the cell's centre to
    the left, top, right and bottom of that person, in `BOX_UNIT` pixels, none negative; `facing`
    (B, 2, H/32, W/32) cosine and sine of the yaw of the person there, 0 when they face the camera;
    `places` (B, 3, H/8, W/8) what is seen there as a place on the body (`mannequin.Rendering`).
    """

    parsing: Tensor
    heat: Tensor
    present: Tensor
    centre: Tensor
    box: Tensor
    facing: Tensor
    places: Tensor


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Block(nn.Module):
    """Two convolutions on a residual branch: (B, C, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class PersonNet(nn.Module):
    """Pixels (B, 3, H, W) in [0, 1] -> `PersonMaps`; H and W are multiples of `MULTIPLE`."""

    def __init__(self, config: PersonNetConfig) -> None:
        super().__init__()
        self.config = config
        w2, w4, w8, w16, w32 = config.widths
        # Full-size pixels as channels of the half-size level: nothing ever runs at full size.
        self.stem = convolution(12, w2)
        self.down4 = nn.Sequential(convolution(w2, w4, 2), Block(w4))
        self.down8 = nn.Sequential(convolution(w4, w8, 2), Block(w8), Block(w8))
        self.down16 = nn.Sequential(convolution(w8, w16, 2), Block(w16), Block(w16))
        self.down32 = nn.Sequential(convolution(w16, w32, 2), Block(w32), Block(w32))
        self.lift32 = nn.Conv2d(w32, w16, 1)
        self.up16 = Block(w16)
        self.lift16 = nn.Conv2d(w16, w8, 1)
        self.up8 = Block(w8)
        self.lift8 = nn.Conv2d(w8, w4, 1)
        self.up4 = Block(w4)
        self.lift4 = nn.Conv2d(w4, w2, 1)
        self.up2 = convolution(w2, w2)
        self.parsing = nn.Conv2d(w2, 4 * config.labels, 3, padding=1)
        self.heat = nn.Conv2d(w4, config.joints, 1)
        self.present = nn.Conv2d(w8, config.joints, 1)
        self.people = nn.Sequential(convolution(w8, w8), nn.Conv2d(w8, 5, 1))
        with torch.no_grad():
            # Hardly any cell is a person's middle; started at one half, that swamps the rest.
            people = self.people[1]
            assert isinstance(people, nn.Conv2d) and people.bias is not None
            people.bias[0] = -4.0
        # Left and right of a body depend on which way it turns. Joints alone teach that slowly.
        self.facing = nn.Conv2d(w32, 2, 1)
        self.places = nn.Conv2d(w8, 3, 1)

    def forward(self, pixels: Tensor) -> PersonMaps:
        x2 = self.stem(F.pixel_unshuffle(pixels - 0.5, 2))
        x4 = self.down4(x2)
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        x32 = self.down32(x16)
        x16 = self.up16(x16 + _double(self.lift32(x32)))
        x8 = self.up8(x8 + _double(self.lift16(x16)))
        x4 = self.up4(x4 + _double(self.lift8(x8)))
        x2 = self.up2(x2 + _double(self.lift4(x4)))
        people = self.people(x8)
        return PersonMaps(
            parsing=F.pixel_shuffle(self.parsing(x2), 2),
            heat=self.heat(x4),
            present=_double(self.present(x8)),
            centre=people[:, 0],
            box=F.softplus(people[:, 1:]),
            facing=self.facing(x32),
            places=self.places(x8),
        )


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def mirrored_mean(net: PersonNet, pixels: Tensor) -> PersonMaps:
    """The mean of what `net` sees in pictures and in their mirror images, whose left hands are
    right ones."""
    maps, mirrored = net(pixels), net(pixels.flip(3))
    swapped = torch.tensor(MIRRORED_JOINTS, device=pixels.device)
    return PersonMaps(
        parsing=(maps.parsing + mirrored.parsing.flip(3)) / 2,
        heat=(maps.heat + mirrored.heat.flip(3)[:, swapped]) / 2,
        present=(maps.present + mirrored.present.flip(3)[:, swapped]) / 2,
        centre=maps.centre,
        box=maps.box,
        facing=maps.facing,
        places=maps.places,
    )


def build_person_net(config: dict[str, Any]) -> PersonNet:
    """A network with random weights from its description (`dataclasses.asdict` of a config)."""
    return PersonNet(PersonNetConfig(**{**config, "widths": tuple(config["widths"])})).eval()


def joint_places(heat: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Heat maps -> places (B, joints, 2) as x, y in input pixels, and presence in 0..1.

    The place is the mean over the 5 x 5 cells around the highest one, weighted by the softmax:
    finer than a cell, blind to a second, lower peak elsewhere.
    """
    batch, joints, rows, columns = heat.shape
    flat = heat.flatten(2).float()
    peak = flat.argmax(2)
    row = torch.arange(rows, device=heat.device, dtype=torch.float32)
    column = torch.arange(columns, device=heat.device, dtype=torch.float32)
    peak_row = (peak // columns).float()[..., None]  # (B, joints, 1)
    peak_column = (peak % columns).float()[..., None]
    near = ((row - peak_row).abs() <= 2)[..., :, None] & ((column - peak_column).abs() <= 2)[
        ..., None, :
    ]  # (B, joints, rows, columns)
    weight = flat.view(batch, joints, rows, columns).masked_fill(~near, -torch.inf)
    weight = weight.flatten(2).softmax(2).view(batch, joints, rows, columns)
    x = (weight.sum(2) * (column + 0.5)).sum(2)
    y = (weight.sum(3) * (row + 0.5)).sum(2)
    seen = present.flatten(2).gather(2, peak[..., None])[..., 0].float().sigmoid()
    return torch.stack([x, y], dim=-1) * HEAT_STRIDE, seen
