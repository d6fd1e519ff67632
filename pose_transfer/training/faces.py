# SPDX-License-Identifier: GPL-3.0-or-later
"""What the face network is taught: mannequins' faces, told apart by who they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..demo.architecture import FACE_NET, FACE_SIZE, IMAGE_SIZE
from ..demo.face_net import REACH, FaceReading, build_face_net
from ..mannequin import LABELS, BodyPose, Identity, sample_identity, sample_pose, split_seeds
from ..mannequin.figure import Figure
from .batches import Batches
from .world import World

_MOUTH_HEIGHT = 0.56
"""Where the renderer paints the mouth, half heights of the head below its middle."""
_OWN = [LABELS.index(name) for name in ("hair", "face", "arms")]
"""Labels of what belongs to a head and its neck."""
_SCALE, _MARGIN = 20.0, 0.2


@dataclass(frozen=True)
class FaceGeometry:
    """`head` (3,) float32: centre and half height in px; `points` (5, 2) float32 px: eye, eye,
    nose, mouth corner, mouth corner, the person's right one of each pair first; `eyes` are how many
    of the two can be seen, 0 where the nose cannot."""

    head: np.ndarray
    points: np.ndarray
    eyes: int


def face_geometry(identity: Identity, pose: BodyPose, height: int, width: int) -> FaceGeometry:
    """Where the face is when the renderer paints `identity` in `pose`."""
    head = Figure(identity, pose, height, width).head
    keypoints = head.keypoints()
    # The mouth's corners lie on the head's ellipsoid, at a known place across and down.
    across, down, tilt = identity.face.mouth_width, _MOUTH_HEIGHT, head.pitch
    square = 1.0 + tilt * tilt
    inner = (down * tilt) ** 2 - square * (down * down + across * across - 1.0)
    ahead = (math.sqrt(inner) - down * tilt) / square
    corners = [
        (
            head.centre[0] + head.rx * (side * across * head.cos_yaw + ahead * head.sin_yaw),
            head.centre[1] + head.ry * (down + tilt * ahead),
        )
        for side in (-1.0, 1.0)
    ]
    seen = [keypoints[name][0][:2] for name in ("right_eye", "left_eye", "nose")]
    eyes = keypoints["right_eye"][1] + keypoints["left_eye"][1]
    return FaceGeometry(
        np.array([head.centre[0], head.centre[1], head.ry], np.float32),
        np.array(seen + corners, np.float32),
        int(eyes) if keypoints["nose"][1] else 0,
    )


@dataclass(frozen=True, eq=False)
class FaceSet:
    """The F faces of a world: sample numbers (F,), `heads` (F, 3) and `points` (F, 5, 2) in px."""

    samples: Tensor
    heads: Tensor
    points: Tensor


def visible_faces(world: World, count: int, device: torch.device) -> FaceSet:
    """Those of the first `count` samples whose nose and an eye can be seen."""
    samples, heads, points = [], [], []
    poses = split_seeds(world.split, 0, count).tolist()
    identities = world.identity_seeds.tolist()
    for index in range(count):
        identity = sample_identity(identities[index // world.poses_per_identity])
        face = face_geometry(identity, sample_pose(poses[index]), *IMAGE_SIZE)
        if face.eyes:
            samples.append(index)
            heads.append(face.head)
            points.append(face.points)
    return FaceSet(
        torch.tensor(samples, device=device),
        torch.from_numpy(np.stack(heads)).to(device),
        torch.from_numpy(np.stack(points)).to(device),
    )


class FaceTask(nn.Module):
    """The face network and one direction for each identity to be recognised."""

    def __init__(self, identities: int) -> None:
        super().__init__()
        self.net = build_face_net(FACE_NET)
        self.identities = nn.Parameter(0.05 * torch.randn(identities, FACE_NET["embedding"]))

    def forward(self, crops: Tensor) -> tuple[FaceReading, Tensor]:
        """The reading, and its cosines with all identities (B, I)."""
        reading = self.net(crops)
        directions = F.normalize(self.identities, dim=1)
        return reading, F.normalize(reading.embedding.float(), dim=1) @ directions.T


def face_loss(
    module: nn.Module, data: Batches, faces: FaceSet, batch: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """CosFace's loss (arXiv:1801.09414) and the error of head and points, on one batch."""
    row = torch.randint(len(faces.samples), (batch,), device=data.device, generator=generator)
    crops, heads, points = draw_crops(data, faces, row, generator)
    reading, cosines = module(crops.contiguous(memory_format=torch.channels_last))
    who = data.identities(faces.samples[row])
    margin = _MARGIN * F.one_hot(who, cosines.shape[1])
    recognition = F.cross_entropy(_SCALE * (cosines - margin), who)
    place = (reading.points.float() - points).abs().mean()
    head = (reading.head.float() - heads).abs().mean()
    loss = recognition + 40.0 * (place + head)
    return loss, {
        "recognised": (cosines.argmax(1) == who).float().mean(),
        "points": FACE_SIZE * place,
        "head": FACE_SIZE * head,
    }


def draw_crops(
    data: Batches, faces: FaceSet, row: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Crops (B, 3, 64, 64) about as well placed as keypoints place them, with other clothes,
    backgrounds and light; heads (B, 3) and points (B, 5, 2) as shares of the crops."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=data.device)

    count = len(row)
    shape = (count, 1, 1, 1)
    index = faces.samples[row]
    head, points = faces.heads[row], faces.points[row]
    reach = REACH * head[:, 2] * torch.exp(uniform(-0.14, 0.14, count))  # px
    centre = head[:, :2] + 0.16 * head[:, 2:] * uniform(-1, 1, count, 2)
    turn = uniform(-0.12, 0.12, count)
    cos, sin = torch.cos(turn), torch.sin(turn)
    half = head.new_tensor([IMAGE_SIZE[1] / 2, IMAGE_SIZE[0] / 2])
    rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    grid = torch.cat(
        [
            rotation * reach[:, None, None] / half[:, None],
            ((centre - half) / half)[..., None],
        ],
        dim=2,
    )
    grid = F.affine_grid(grid, [count, 1, FACE_SIZE, FACE_SIZE], align_corners=False)
    pictures = data.pictures("image", index)
    labels = data.rows("parsing", index)[:, None]
    own = torch.isin(labels, torch.tensor(_OWN, device=data.device, dtype=labels.dtype))
    ground = pictures[:, :, :1, :1]
    layers = torch.cat([pictures - ground, own.float(), (labels == 0).float() - 1.0], dim=1)
    crops = F.grid_sample(layers, grid, align_corners=False)
    picture, own, empty = crops[:, :3] + ground, crops[:, 3:4], crops[:, 4:] + 1.0
    # Neither clothes nor background may tell who this is.
    clothes = torch.where(uniform(0, 1, *shape) < 0.7, 0.9 * uniform(0, 1, count, 3, 1, 1), picture)
    light = uniform(0.75, 1.0, *shape) + uniform(-0.07, 0.07, count, 3, 1, 1)
    free = torch.where(uniform(0, 1, *shape) < 0.7, light, uniform(0, 1, count, 3, 1, 1))
    around = torch.where(empty > 0.5, torch.where(uniform(0, 1, *shape) < 0.8, free, picture),
                         clothes)  # fmt: skip
    picture = around + (picture - around) * own

    soft = (uniform(0, 1, count) < 0.35).nonzero()[:, 0]
    if len(soft):
        size = int(uniform(22, 48))
        small = F.interpolate(picture[soft], (size, size), mode="area")
        picture[soft] = F.interpolate(small, (FACE_SIZE, FACE_SIZE), mode="bilinear")
    gain = torch.where(uniform(0, 1, *shape) < 0.5, uniform(0.65, 1.2, *shape), 1.0)
    cast = torch.where(uniform(0, 1, *shape) < 0.4, uniform(0.94, 1.06, count, 3, 1, 1), 1.0)
    picture = (picture * gain * cast).clamp(0, 1)

    def share(places: Tensor) -> Tensor:
        offset = (places - centre[:, None]) @ rotation / reach[:, None, None]
        return 0.5 + 0.5 * offset

    size = head[:, 2:] / (2 * reach[:, None])
    return picture, torch.cat([share(head[:, None, :2])[:, 0], size], dim=1), share(points)
