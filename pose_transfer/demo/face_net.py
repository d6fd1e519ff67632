# SPDX-License-Identifier: GPL-3.0-or-later
"""The face network: whose head this is, and where its features lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .architecture import FACE_SIZE
from .person_net import Block, convolution

REACH = 1.45
"""Half the side of a crop in half heights of the bare head: hair and chin are well inside."""
_SQUEEZED = 64


@dataclass(frozen=True)
class FaceNetConfig:
    """`widths` of the levels at 1/2, 1/4, 1/8 and 1/16 of the input's size."""

    widths: tuple[int, int, int, int]
    embedding: int


@dataclass(frozen=True, eq=False)
class FaceReading:
    """What the network reads from crops (B, 3, 64, 64).

    `embedding` (B, 512), of any length; `points` (B, 5, 2) x, y as shares of the crop: eye, eye,
    nose, mouth corner, mouth corner, the person's right one of each pair first; `head` (B, 3):
    the head's centre, as points are, and its half height as a share of the crop.
    """

    embedding: Tensor
    points: Tensor
    head: Tensor


class FaceNet(nn.Module):
    """Crops (B, 3, 64, 64) in [0, 1] around a head -> `FaceReading`."""

    def __init__(self, config: FaceNetConfig) -> None:
        super().__init__()
        self.config = config
        w2, w4, w8, w16 = config.widths
        self.features = nn.Sequential(
            convolution(12, w2), Block(w2),
            convolution(w2, w4, 2), Block(w4),
            convolution(w4, w8, 2), Block(w8),
            convolution(w8, w16, 2), Block(w16),
            nn.Conv2d(w16, _SQUEEZED, 1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        flat = _SQUEEZED * (FACE_SIZE // 16) ** 2
        self.embedding = nn.Linear(flat, config.embedding)
        self.places = nn.Linear(flat, 5 * 2 + 3)

    def forward(self, crops: Tensor) -> FaceReading:
        features = self.features(nn.functional.pixel_unshuffle(crops - 0.5, 2))
        places = self.places(features)
        points, head = places[:, :10].view(-1, 5, 2) + 0.5, places[:, 10:]
        # A crop that is centred on the head gives zeros here.
        centred = head.new_tensor([0.5, 0.5, 0.5 / REACH])
        return FaceReading(self.embedding(features), points, head + centred)


def build_face_net(config: dict[str, Any]) -> FaceNet:
    """A network with random weights from its description (`dataclasses.asdict` of a config)."""
    return FaceNet(FaceNetConfig(tuple(config["widths"]), config["embedding"])).eval()
