# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures for the person network, made of rendered mannequins as they may turn up elsewhere.

Most are windows on one person, as the detector cuts them out: nearly filled, or showing a part
only, with neighbours reaching in. The others are scenes of nobody to three people of any size.
Backgrounds, light, sharpness and the picture's edge vary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..demo.architecture import IMAGE_SIZE
from ..demo.person_net import CENTRE_STRIDE, MIRRORED_JOINTS
from ..pose.skeleton import BODY_NAMES
from .batches import Batches

OUTSIDE = 255
"""Label of pixels beyond the picture's edge."""
_HEIGHT, _WIDTH = IMAGE_SIZE
_LAYERS = 3
_CELLS = slice(CENTRE_STRIDE // 2, None, CENTRE_STRIDE)
"""Pixels at the centres of the cells of 8 x 8."""
_MIDDLE = [BODY_NAMES.index(name) for name in ("neck", "right_hip", "left_hip")]
_SEEN_SHARE = 0.3
"""Share of a person that must be seen for them to count."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """A batch of B pictures with up to L people each.

    `pixels` (B, 3, 256, 192) in [0, 1]; `labels` (B, 256, 192) int64, `OUTSIDE` beyond the picture;
    `focused` (B,): a window on its first person, whose joints are `joints` (B, 18, 3), x, y px and
    1 where within the picture; `shown` (B, L) people who count, their `middles` (B, L, 2) and
    `boxes` (B, L, 4) left, top, right, bottom px, and `facing` (B, L, 2), cosine and sine of yaw;
    `places` (B, 3, 32, 24) places on the body, known where `figure` (B, 32, 24).
    """

    pixels: Tensor
    labels: Tensor
    focused: Tensor
    joints: Tensor
    shown: Tensor
    middles: Tensor
    boxes: Tensor
    facing: Tensor
    places: Tensor
    figure: Tensor


class _Dice:
    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def chance(self, share: float, *shape: int) -> Tensor:
        return self.uniform(0, 1, *shape) < share

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)


def draw_scenes(data: Batches, count: int, generator: torch.Generator) -> Scenes:
    """`count` random scenes of the mannequins in `data`."""
    dice = _Dice(generator, data.device)
    focused = dice.chance(0.82, count)
    zoomed = focused & dice.chance(0.13, count)
    used = _who_is_there(dice, focused)
    batch, layer = used.nonzero(as_tuple=True)  # (P,) each
    index = data.draw(len(batch), generator)
    labels = data.rows("parsing", index)
    keypoints = data.rows("keypoints", index)
    figure = _extent(labels > 0)  # (P, 4)
    sizes = torch.zeros(count, _LAYERS, 2, device=data.device)
    sizes[batch, layer] = figure[:, 2:] - figure[:, :2]
    scale, centre = _placed(dice, sizes, focused, zoomed)
    scale, centre = scale[batch, layer], centre[batch, layer]
    turn = dice.uniform(-0.18, 0.18, len(batch)) * dice.chance(0.5, len(batch))
    side = 1.0 - 2.0 * dice.chance(0.5, len(batch)).float()
    anchor = (figure[:, :2] + figure[:, 2:]) / 2
    grid = F.affine_grid(
        _inverse(scale, turn, side, anchor, centre), [len(batch), 1, _HEIGHT, _WIDTH],
        align_corners=False,
    )  # fmt: skip
    pictures = data.pictures("image", index)
    ground = pictures[:, :, :1, :1]
    soft = torch.cat([pictures - ground, (labels > 0).float()[:, None]], dim=1)
    soft = _thinned(soft, scale)
    soft = F.grid_sample(soft, grid, align_corners=False)
    colours, cover = soft[:, :3] + ground, soft[:, 3:]
    # A pixel's own label decides, not a mixture of its neighbours'.
    sampled = F.grid_sample(
        labels.float()[:, None], grid, mode="nearest", align_corners=False
    )[:, 0].long()  # fmt: skip

    inside = _picture_edge(dice, focused, zoomed)
    canvas = _backgrounds(dice, count)
    kept = dice.chance(0.6, count)
    canvas_labels = torch.zeros(count, _HEIGHT, _WIDTH, dtype=torch.long, device=data.device)
    owner = torch.full_like(canvas_labels, -1)
    order = [1, 2, 0]
    front = dice.chance(0.5, count)
    for step, person in enumerate([0, *order]):
        rows = (layer == person).nonzero()[:, 0]
        if person == 0:
            # The first person brings their background, and stands before or behind the others.
            rows = rows[(front[batch[rows]] == (step > 0)) | ((step == 0) & kept[batch[rows]])]
        where = batch[rows]
        alpha = cover[rows]
        if step == 0:
            alpha = torch.where(kept[where][:, None, None, None], torch.ones_like(alpha), alpha)
        canvas[where] = canvas[where] + (colours[rows] - canvas[where]) * alpha
        painted = sampled[rows] > 0
        canvas_labels[where] = torch.where(painted, sampled[rows], canvas_labels[where])
        owner[where] = torch.where(painted, person, owner[where])

    joints = _moved(keypoints, scale, turn, side, anchor, centre)  # (P, 18, 3)
    boxes = torch.zeros(count, _LAYERS, 4, device=data.device)
    middles = torch.zeros(count, _LAYERS, 2, device=data.device)
    shown = torch.zeros(count, _LAYERS, dtype=torch.bool, device=data.device)
    seen = (owner[batch] == layer[:, None, None]) & inside[batch]
    share = seen.sum((1, 2)) / ((labels > 0).sum((1, 2)) * scale * scale)
    extent = _extent((sampled > 0) & inside[batch])
    boxes[batch, layer] = extent
    facing = torch.zeros(count, _LAYERS, 2, device=data.device)
    yaw = data.rows("yaw", index)
    cells = owner[:, _CELLS, _CELLS]  # (B, 32, 24)
    places = _places(data.rows("coordinates", index), grid[:, _CELLS, _CELLS], side)
    places = _owned(places, batch, layer, cells)
    # Turning to the picture's right becomes turning to its left in a mirror.
    facing[batch, layer] = torch.stack([yaw[:, 0], yaw[:, 1] * side], dim=1)
    middles[batch, layer] = joints[:, _MIDDLE, :2].mean(1).clamp(extent[:, :2], extent[:, 2:])
    shown[batch, layer] = (share > _SEEN_SHARE) | ((layer == 0) & focused[batch])
    first = torch.zeros(count, len(BODY_NAMES), 3, device=data.device)
    first[batch[layer == 0]] = joints[layer == 0]
    x, y = first[..., 0], first[..., 1]
    on_canvas = (x >= 0) & (x < _WIDTH) & (y >= 0) & (y < _HEIGHT)
    column, row = x.long().clamp(0, _WIDTH - 1), y.long().clamp(0, _HEIGHT - 1)
    first[..., 2] *= on_canvas & inside[torch.arange(count)[:, None], row, column]

    pixels = _photographed(dice, canvas)
    return Scenes(
        pixels=torch.where(inside[:, None], pixels, 0.5),
        labels=canvas_labels.masked_fill(~inside, OUTSIDE),
        focused=focused,
        joints=first,
        shown=shown,
        middles=middles,
        boxes=boxes,
        facing=facing,
        places=places,
        # Hair that hangs down has no place on the body.
        figure=(cells >= 0) & inside[:, _CELLS, _CELLS] & (places != 0).any(1),
    )


def _who_is_there(dice: _Dice, focused: Tensor) -> Tensor:
    """(B, L) bool."""
    count = len(focused)
    used = dice.chance(0.7, count, _LAYERS) & ~dice.chance(0.4, count, 1)
    neighbour = dice.chance(0.45, count)
    window = torch.stack(
        [torch.ones_like(neighbour), neighbour, neighbour & dice.chance(0.35, count)], dim=1
    )
    return torch.where(focused[:, None], window, used)


def _extent(mask: Tensor) -> Tensor:
    """(P, H, W) bool -> (P, 4) left, top, right, bottom in px; all 0 where nothing is set."""
    sides = []
    for axis in (1, 2):  # columns that hold something, then rows
        line = mask.any(axis).int()  # (P, W) or (P, H)
        low = line.argmax(1)
        high = (line.shape[1] - line.flip(1).argmax(1)) * line.any(1)
        sides.append((low, high))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1).float()


def _placed(dice: _Dice, sizes: Tensor, focused: Tensor, zoomed: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (B, L) of each person and the centre (B, L, 2) of their box, px."""
    count = len(sizes)
    frame = sizes.new_tensor([_WIDTH, _HEIGHT])
    fill = (sizes / frame).amax(2).clamp_min(0.2)  # (B, L): share of the picture as rendered
    window = torch.where(zoomed, dice.uniform(1.05, 2.2, count), dice.uniform(0.74, 1.02, count))
    scene = torch.exp(dice.uniform(math.log(0.18), math.log(0.95), count))
    wanted = torch.where(focused, window, scene)[:, None] * dice.uniform(0.8, 1.25, count, _LAYERS)
    wanted[:, 0] = torch.where(focused, window, wanted[:, 0])
    scale = wanted / fill

    anywhere = dice.uniform(0.05, 0.95, count, _LAYERS, 2) * frame
    middle = (0.5 + dice.uniform(-0.06, 0.06, count, 2)) * frame
    half = sizes[:, 0, 1] * scale[:, 0] / 2
    from_top = half + dice.uniform(-0.02, 0.15, count) * _HEIGHT
    from_bottom = _HEIGHT - half - dice.uniform(-0.02, 0.1, count) * _HEIGHT
    which = dice.uniform(0, 1, count)
    height = torch.where(which < 0.6, from_top, torch.where(which < 0.8, from_bottom, middle[:, 1]))
    width = _WIDTH * (0.5 + dice.uniform(-0.2, 0.2, count))
    middle = torch.where(zoomed[:, None], torch.stack([width, height], dim=1), middle)
    direction = 1.0 - 2.0 * dice.chance(0.5, count, _LAYERS).float()
    direction[:, 2] = -direction[:, 1]
    away = direction * dice.uniform(0.38, 1.0, count, _LAYERS) * _WIDTH
    away = away * wanted[:, :1].clamp(0.8, 1.6)
    beside = torch.stack([away, dice.uniform(-0.12, 0.12, count, _LAYERS) * _HEIGHT], dim=2)
    beside[:, 0] = 0
    centre = torch.where(focused[:, None, None], middle[:, None] + beside, anywhere)
    return scale, centre


def _inverse(scale: Tensor, turn: Tensor, side: Tensor, anchor: Tensor, centre: Tensor) -> Tensor:
    """(P, 2, 3) for `affine_grid`: from the canvas back to the render. Undoes `_moved`."""
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    dx, dy = _WIDTH / 2 - centre[:, 0], _HEIGHT / 2 - centre[:, 1]
    x = anchor[:, 0] + side * (cos * dx + sin * dy)
    y = anchor[:, 1] - sin * dx + cos * dy
    return torch.stack(
        [
            torch.stack([side * cos, side * sin * (_HEIGHT / _WIDTH), x * (2 / _WIDTH) - 1], 1),
            torch.stack([-sin * (_WIDTH / _HEIGHT), cos, y * (2 / _HEIGHT) - 1], 1),
        ],
        dim=1,
    )


def _moved(
    keypoints: Tensor, scale: Tensor, turn: Tensor, side: Tensor, anchor: Tensor, centre: Tensor
) -> Tensor:
    """Keypoints (P, 18, 3) of the render on the canvas; mirrored ones change sides."""
    keypoints = torch.where((side < 0)[:, None, None], keypoints[:, MIRRORED_JOINTS], keypoints)
    offset = keypoints[..., :2] - anchor[:, None]
    x, y = offset[..., 0] * side[:, None], offset[..., 1]
    cos, sin = torch.cos(turn)[:, None], torch.sin(turn)[:, None]
    moved = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=2) * scale[:, None, None]
    return torch.cat([moved + centre[:, None], (keypoints[..., 2:] > 0).float()], dim=2)


def _places(coordinates: Tensor, grid: Tensor, side: Tensor) -> Tensor:
    """Body coordinates (P, h, w, 3) of renders at the cells (P, 32, 24): (P, 3, 32, 24)."""
    maps = coordinates.permute(0, 3, 1, 2).float()  # (P, 3, h, w)
    sampled = F.grid_sample(maps, grid, mode="nearest", align_corners=False)
    # A mirror makes a left hand a right one.
    flip = torch.stack([side, torch.ones_like(side), torch.ones_like(side)], dim=1)
    return sampled * flip[:, :, None, None]


def _owned(places: Tensor, batch: Tensor, layer: Tensor, cells: Tensor) -> Tensor:
    """Of each cell the place on the person whom it shows, (B, 3, 32, 24); 0 where nobody."""
    out = torch.zeros(len(cells), 3, *cells.shape[1:], device=places.device)
    shown = cells[batch] == layer[:, None, None]  # (P, 32, 24)
    return out.index_add(0, batch, places * shown[:, None])


def _thinned(pictures: Tensor, scale: Tensor) -> Tensor:
    """Blur what will be drawn small, so that it looks like a reduced picture."""
    for low, high, factor in ((0.33, 0.6, 2), (0.0, 0.33, 4)):
        rows = ((scale >= low) & (scale < high)).nonzero()[:, 0]
        if len(rows):
            small = F.avg_pool2d(pictures[rows], factor)
            pictures[rows] = F.interpolate(small, scale_factor=float(factor), mode="bilinear")
    return pictures


def _picture_edge(dice: _Dice, focused: Tensor, zoomed: Tensor) -> Tensor:
    """(B, H, W) bool: what lies within the picture; windows may reach over its edge."""
    count = len(focused)
    cut = dice.chance(0.35, count) | (zoomed & dice.chance(0.6, count))
    deep = torch.where(focused, 0.12, 0.3)[:, None] * dice.uniform(0, 1, count, 4)
    deep = deep * (dice.chance(0.4, count, 4) & cut[:, None])
    x = (torch.arange(_WIDTH, device=dice.device) + 0.5) / _WIDTH
    y = (torch.arange(_HEIGHT, device=dice.device) + 0.5) / _HEIGHT
    columns = (x >= deep[:, :1]) & (x <= 1 - deep[:, 1:2])
    rows = (y >= deep[:, 2:3]) & (y <= 1 - deep[:, 3:])
    return rows[:, :, None] & columns[:, None, :]


def _backgrounds(dice: _Dice, count: int) -> Tensor:
    """(B, 3, H, W): tinted, often light, some with a slope, some with a texture."""
    light = dice.uniform(0.78, 1.0, count, 1, 1, 1) + dice.uniform(-0.06, 0.06, count, 3, 1, 1)
    free = dice.uniform(0.0, 1.0, count, 3, 1, 1)
    ground = torch.where(dice.chance(0.65, count, 1, 1, 1), light, free)
    x = torch.linspace(-1, 1, _WIDTH, device=dice.device)
    y = torch.linspace(-1, 1, _HEIGHT, device=dice.device)[:, None]
    slope = (
        dice.uniform(-0.1, 0.1, count, 3, 1, 1) * x + dice.uniform(-0.1, 0.1, count, 3, 1, 1) * y
    )
    rough = F.interpolate(dice.normal(count, 3, 16, 12), (_HEIGHT, _WIDTH), mode="bilinear")
    blocks = F.interpolate(dice.normal(count, 3, 8, 6), (_HEIGHT, _WIDTH), mode="nearest")
    rough_share = dice.uniform(0, 0.15, count, 1, 1, 1) * dice.chance(0.3, count, 1, 1, 1)
    block_share = dice.uniform(0, 0.3, count, 1, 1, 1) * dice.chance(0.15, count, 1, 1, 1)
    fine = dice.normal(count, 3, _HEIGHT, _WIDTH)
    fine_share = dice.uniform(0, 1.0, count, 1, 1, 1) * dice.chance(0.2, count, 1, 1, 1)
    pattern = rough * rough_share + blocks * block_share + fine * fine_share
    return (ground + slope + pattern).clamp(0, 1)


def _photographed(dice: _Dice, pixels: Tensor) -> Tensor:
    """Light, colour and sharpness as they vary between pictures."""
    count = len(pixels)
    shape = (count, 1, 1, 1)
    soft = dice.chance(0.3, count).nonzero()[:, 0]
    if len(soft):
        factor = 2.0 if bool(dice.chance(0.6)) else 3.5
        small = F.interpolate(pixels[soft], scale_factor=1 / factor, mode="area")
        pixels[soft] = F.interpolate(small, (_HEIGHT, _WIDTH), mode="bilinear")
    grey = pixels.mean(1, keepdim=True)
    colourful = torch.where(dice.chance(0.1, *shape), 0.0, dice.uniform(0.6, 1.3, *shape))
    colourful = torch.where(dice.chance(0.5, *shape), 1.0, colourful)
    pixels = grey + (pixels - grey) * colourful
    gain = torch.where(
        dice.chance(0.12, *shape), dice.uniform(0.2, 0.55, *shape), dice.uniform(0.6, 1.25, *shape)
    )
    gain = torch.where(dice.chance(0.4, *shape), 1.0, gain)
    cast = 1.0 + dice.uniform(-0.08, 0.08, count, 3, 1, 1) * dice.chance(0.4, *shape)
    noise = dice.uniform(0, 0.03, *shape) * dice.chance(0.3, *shape)
    return (pixels * gain * cast + dice.normal(*pixels.shape) * noise).clamp(0, 1)
