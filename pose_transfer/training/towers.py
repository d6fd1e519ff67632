# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's towers for pictures and poses, taught with the labels that the renderer knows.

FPDM leans on frozen DINOv2 and CLIP towers that saw hundreds of millions of pictures. In the
mannequin world their part is played by small convolutional towers that learn, per cell, what is
seen there (parsing, place on the body, colours) and, per picture, what the person wears and how
they stand.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..demo.architecture import EMBED_SIZE, IMAGE_SIZE, IMAGE_TOWER, POSE_ENCODER, SOURCE_TOWER
from ..fpdm.conv_towers import build_image_tower, build_pose_encoder, build_source_tower
from ..fpdm.preprocess import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from ..mannequin import LABELS, PATTERNS
from .batches import Batches, normalised
from .labels import CLASS_SIZES, COLOURS

_SUB = 4
"""Colour cells along each side of a token's cell of 8 x 8 pixels."""
_CELLS = (IMAGE_SIZE[0] // 8, IMAGE_SIZE[1] // 8)
_WAVELENGTHS = (0.8, 0.3, 0.12)
"""Of the waves that a place is told in, body heights; a cell is about 0.037."""
PLACE_WIDTH = 4 + 4 * 2 * len(_WAVELENGTHS)


class SourceTowerTask(nn.Module):
    """The source tower with heads for what each cell shows and who is in the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = build_source_tower(SOURCE_TOWER)
        width = SOURCE_TOWER["hidden_size"]
        self.parsing = nn.Linear(width, len(LABELS))
        self.places = nn.Linear(width, PLACE_WIDTH)
        self.colours = nn.Linear(width, _SUB**2 * 3)
        self.textures = nn.Linear(width, len(PATTERNS) + 2)
        self.person = _PersonHead(width)

    def forward(self, pixels: Tensor):
        states = self.tower(pixels).last_hidden_state
        cells = states[:, 1:]
        return (
            _unfold(self.parsing(cells), 1),
            _unfold(self.places(cells), 1),
            _unfold(self.colours(cells), _SUB),
            _unfold(self.textures(cells), 1),
            self.person(states[:, 0]),
        )


class ImageTowerTask(nn.Module):
    """The image tower with heads for the person and the pose, on photos and on pose maps."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = build_image_tower(IMAGE_TOWER)
        width = IMAGE_TOWER["projection_dim"]
        self.person = _PersonHead(width)
        self.stance = nn.Linear(width, 18 * 3 + 2)

    def forward(self, photos: Tensor, maps: Tensor):
        embeds = self.tower(torch.cat([photos, maps])).image_embeds
        return self.person(embeds[: len(photos)]), self.stance(embeds)


class PoseTowerTask(nn.Module):
    """The pose encoder with heads for what each cell of the figure in that pose shows."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build_pose_encoder(POSE_ENCODER)
        width = POSE_ENCODER["hidden_size"]
        self.parsing = nn.Conv2d(width, len(LABELS), 1)
        self.places = nn.Conv2d(width, PLACE_WIDTH, 1)

    def forward(self, pose_map: Tensor) -> tuple[Tensor, Tensor]:
        states = self.encoder.states(pose_map)
        return self.parsing(states), self.places(states)


def place_features(cloth: Tensor) -> Tensor:
    """Places (B, 4, h, w) and their waves: (B, PLACE_WIDTH, h, w).

    The inner product of two places' waves is a bump of their distance, which is what attention
    needs to find the one in the other. Where a place is uncertain the mean of a short wave fades:
    the bump becomes wide instead of wrong.
    """
    angles = torch.cat([cloth * (2 * math.pi / length) for length in _WAVELENGTHS], dim=1)
    return torch.cat([cloth, angles.sin(), angles.cos()], dim=1)


def place_loss(guessed: Tensor, cloth: Tensor, figure: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of `place_features`, and the mean error of a coordinate in body heights.

    `guessed` (B, PLACE_WIDTH, h, w), `cloth` (B, 4, h, w), `figure` (B, 1, h, w) 1 on the person.
    """
    wanted = place_features(cloth)
    cells = figure.sum() + 1
    guessed = guessed.float()
    error = ((guessed[:, :4] - cloth).abs() * figure).sum() / (4 * cells)
    waves = ((guessed[:, 4:] - wanted[:, 4:]).square() * figure).sum() / cells
    return 12.0 * error + 0.2 * waves, error


class _PersonHead(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU())
        self.colours = nn.Linear(2 * width, 3 * COLOURS)
        self.classes = nn.Linear(2 * width, sum(CLASS_SIZES))

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(state)
        return self.colours(hidden), self.classes(hidden)


def _unfold(values: Tensor, sub: int) -> Tensor:
    """Per-cell predictions (B, cells, sub^2 C) -> a map (B, C, rows sub, columns sub)."""
    batch, _, width = values.shape
    rows, columns = _CELLS
    grid = values.view(batch, rows, columns, sub, sub, width // sub**2)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * sub, columns * sub)


def _person_loss(prediction, colours: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and the share of garment patterns named rightly."""
    guessed_colours, logits = prediction
    loss = F.l1_loss(guessed_colours.float(), colours)
    hits = []
    for part, wanted in zip(logits.float().split(CLASS_SIZES, dim=1), classes.T, strict=True):
        loss = loss + 0.15 * F.cross_entropy(part, wanted)
        hits.append((part.argmax(1) == wanted).float().mean())
    return loss, (hits[0] + hits[1]) / 2


def _texture_loss(logits: Tensor, labels: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and hits of each cell's garment pattern (of its direction too, where it has one).

    `logits` (B, patterns + 2, h, w); `labels` (B, h, w); `classes` (B, 7) as in `IdentityLabels`.
    """
    upper, lower = labels == LABELS.index("upper"), labels == LABELS.index("lower")

    def worn(of_upper: Tensor, of_lower: Tensor) -> Tensor:
        value = torch.where(upper, of_upper[:, None, None], of_lower[:, None, None])
        return value.masked_fill(~(upper | lower), -100)

    pattern = worn(classes[:, 0], classes[:, 1])
    direction = worn(classes[:, 5], classes[:, 6])
    direction = direction.masked_fill(pattern != PATTERNS.index("stripes"), -100)
    logits = logits.float()
    which, way = logits[:, : len(PATTERNS)], logits[:, len(PATTERNS) :]
    loss = F.cross_entropy(which, pattern)
    # Without any stripes in the batch the mean over nothing would be no number.
    striped = (direction >= 0).sum().clamp_min(1)
    loss = loss + 0.3 * F.cross_entropy(way, direction, reduction="sum") / striped
    known = pattern >= 0
    return loss, ((which.argmax(1) == pattern) & known).sum() / known.sum().clamp_min(1)


def source_tower_loss(
    module: nn.Module, data: Batches, batch: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """One batch of the source tower's task."""
    index = data.draw(batch, generator)
    pictures = data.pictures("image", index)
    pixels = normalised(pictures, IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD)
    parsing, places, colours, textures, person = module(pixels)
    labels = data.cell_labels(index)
    figure = (labels > 0).float()[:, None]
    wanted_colours = F.interpolate(pictures, colours.shape[-2:], mode="area")
    parsing_loss = F.cross_entropy(parsing.float(), labels)
    place, place_error = place_loss(places, data.cloth(index), figure)
    weight = 0.3 + F.interpolate(figure, colours.shape[-2:], mode="nearest")
    colour_loss = ((colours.float() - wanted_colours).abs() * weight).mean()
    who = data.identities(index)
    classes = data.labels.classes[who]
    person_loss, right = _person_loss(person, data.labels.colours[who], classes)
    texture_loss, texture = _texture_loss(textures, labels, classes)
    loss = 0.5 * parsing_loss + place + 3.0 * colour_loss + person_loss
    loss = loss + 0.5 * texture_loss
    return loss, {
        "parsing": (parsing.argmax(1) == labels).float().mean(),
        "place": place_error,
        "colour": colour_loss,
        "texture": texture,
        "patterns": right,
    }


def pose_tower_loss(
    module: nn.Module, data: Batches, batch: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """One batch of the pose encoder's task."""
    index = data.draw(batch, generator)
    parsing, places = module(data.pictures("pose_map", index))
    labels = data.cell_labels(index)
    figure = (labels > 0).float()[:, None]
    parsing_loss = F.cross_entropy(parsing.float(), labels)
    place, place_error = place_loss(places, data.cloth(index), figure)
    return parsing_loss + place, {
        "parsing": (parsing.argmax(1) == labels).float().mean(),
        "place": place_error,
    }


def image_tower_loss(
    module: nn.Module, data: Batches, batch: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """One batch of the image tower's task: half photos, half pose maps of other samples."""
    index = data.draw(batch, generator)
    photos, maps = index[: batch // 2], index[batch // 2 :]
    size = EMBED_SIZE
    person, stance = module(
        normalised(data.pictures("image", photos), size, CLIP_MEAN, CLIP_STD),
        normalised(data.pictures("pose_map", maps), size, CLIP_MEAN, CLIP_STD),
    )
    who = data.identities(photos)
    person_loss, right = _person_loss(person, data.labels.colours[who], data.labels.classes[who])
    stance = stance.float()
    keypoints = data.rows("keypoints", torch.cat([photos, maps]))
    height, width = IMAGE_SIZE
    seen = keypoints[..., 2]
    places = keypoints[..., :2] / keypoints.new_tensor([width, height])
    guessed = stance[:, :54].view(-1, 18, 3)
    joints = ((guessed[..., :2] - places).abs().sum(-1) * seen).sum() / seen.sum()
    visible = F.binary_cross_entropy_with_logits(guessed[..., 2], seen)
    yaw = F.mse_loss(stance[:, 54:], data.rows("yaw", torch.cat([photos, maps])))
    loss = person_loss + 2.0 * joints + 0.2 * visible + 0.5 * yaw
    return loss, {"patterns": right, "joints": joints, "yaw": yaw}
