# SPDX-License-Identifier: GPL-3.0-or-later
"""Poses as the skeleton pictures that pose-conditioned models were trained on.

| style | trained with it | body | more |
| --- | --- | --- | --- |
| `openpose` | ControlNet OpenPose models | limbs at 60 % brightness, points on top | |
| `dwpose` | the same, whole-body | as `openpose` | hands, face |
| `fpdm` | FPDM's released checkpoints | points, limbs blended over them, red and blue swapped | |

Limbs are ellipses of half-width 4 px and points circles of radius 4 px on the canvas that a style
was made on: a height of 512 for `fpdm`, a shorter side of 512 for the other two. Elsewhere both
scale with the canvas, to whole pixels and at least 1. On that canvas `openpose` and `dwpose` are
what controlnet_aux 0.0.10 draws of the same points, pixel for pixel.
"""

from __future__ import annotations

import colorsys
import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import PoseError
from ..types import Person, Pose
from .raster import Patch, circle, circles, ellipses, strokes
from .skeleton import COLOURS, HAND_LIMBS, LIMBS

Style = Literal["openpose", "dwpose", "fpdm"]
STYLES: tuple[Style, ...] = get_args(Style)

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Points further out than this are left out: no part of their limbs' shape says anything any more.
_FAR = 2**14

# The authors' colours were RGB values on a BGR canvas, later taken for RGB.
_SWAPPED: tuple[Colour, ...] = tuple((blue, green, red) for red, green, blue in COLOURS)
_SIX_TIMES_SWAPPED_PLUS_FIVE = np.array(_SWAPPED, dtype=np.uint16) * 6 + 5

_HAND_LIMB_COLOURS: tuple[Colour, ...] = tuple(
    tuple(round(255 * c) for c in colorsys.hsv_to_rgb(i / len(HAND_LIMBS), 1, 1))
    for i in range(len(HAND_LIMBS))
)  # type: ignore[assignment]
_HAND_POINT_COLOUR = (0, 0, 255)
_FACE_POINT_COLOUR = (255, 255, 255)


def draw(pose: Pose, height: int, width: int, style: Style) -> Canvas:
    """The pose on a black canvas: uint8 (height, width, 3), RGB.

    Coordinates scale from the pose's canvas to this one. Absent points (confidence 0) are left
    out, with their limbs. An empty pose gives a black map; where a method needs a person, call
    `require_person` first. Raises ValueError for an unknown style or an impossible size.
    """
    if style not in STYLES:
        raise ValueError(f"Got pose style {style!r}, expected one of {', '.join(STYLES)}.")
    if height < 1 or width < 1:
        raise ValueError(f"Got a pose map of {width}x{height} px, expected at least 1x1 px.")
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    scale_x, scale_y = width / pose.width, height / pose.height
    for person in pose.people:
        body = _on_canvas(person.body, scale_x, scale_y)
        if style == "fpdm":
            _draw_body_fpdm(canvas, body)
            continue
        _draw_body_openpose(canvas, body)
        if style == "dwpose":
            _draw_hands_and_face(canvas, person, scale_x, scale_y)
    return canvas


def first_person(pose: Pose) -> Person | None:
    """The first person with a body point on the canvas."""
    for person in pose.people:
        x, y, confidence = person.body.T
        seen = (confidence > 0) & (x >= 0) & (x < pose.width) & (y >= 0) & (y < pose.height)
        if seen.any():
            return person
    return None


def require_person(pose: Pose) -> Person:
    """`first_person`; PoseError when there is none."""
    if (person := first_person(pose)) is not None:
        return person
    found = f"{len(pose.people)} without a body point on it" if pose.people else "none"
    raise PoseError(
        f"Expected a person on the pose's canvas of {pose.width}x{pose.height} px, found {found}. "
        "Use a picture that shows the person for pose detection, or check that the keypoints "
        "belong to this canvas size."
    )


Points = list[tuple[float, float] | None]


def _on_canvas(keypoints: NDArray[np.float32], scale_x: float, scale_y: float) -> Points:
    """(N, 3) keypoints -> N pairs (x, y) in pixels of the canvas, None where absent."""
    x, y = keypoints[:, 0] * np.float64(scale_x), keypoints[:, 1] * np.float64(scale_y)
    # A comparison with NaN is false, so a point that is no number counts as absent too.
    present = (keypoints[:, 2] > 0) & (np.abs(x) < _FAR) & (np.abs(y) < _FAR)
    rows = zip(present.tolist(), x.tolist(), y.tolist(), strict=True)
    return [(px, py) if seen else None for seen, px, py in rows]


def _draw_body_openpose(canvas: Canvas, body: Points) -> None:
    size = _pixels(4 * min(canvas.shape[:2]) / 512)
    for limb, patch in _limb_patches(canvas, body, size):
        red, green, blue = COLOURS[limb]
        _paint(canvas, patch, (red * 3 // 5, green * 3 // 5, blue * 3 // 5))
    _draw_points(canvas, body, size, COLOURS)


def _draw_body_fpdm(canvas: Canvas, body: Points) -> None:
    size = _pixels(4 * canvas.shape[0] / 512)
    _draw_points(canvas, body, size, _SWAPPED)
    for limb, patch in _limb_patches(canvas, body, size):
        box = canvas[patch.rows, patch.columns]
        # 0.4 old + 0.6 new, rounded; a fifth never is a half, so any rounding rule agrees.
        old = box[patch.mask].astype(np.uint16)
        box[patch.mask] = (4 * old + _SIX_TIMES_SWAPPED_PLUS_FIVE[limb]) // 10


def _draw_hands_and_face(canvas: Canvas, person: Person, scale_x: float, scale_y: float) -> None:
    scale = min(canvas.shape[:2]) / 512
    hands = (person.left_hand, person.right_hand)
    points = [_on_canvas(hand, scale_x, scale_y) for hand in hands if hand is not None]
    bones = [_hand_bones(hand) for hand in points]
    ends = np.array([ends for hand in bones for ends, _ in hand], dtype=np.int64).reshape(-1, 4)
    patches = iter(strokes(ends, _pixels(2 * scale), *canvas.shape[:2]))
    for hand, its_bones in zip(points, bones, strict=True):
        for _, colour in its_bones:
            _paint(canvas, next(patches), colour)
        _draw_equal_points(canvas, hand, _pixels(4 * scale), _HAND_POINT_COLOUR)
    if person.face is not None:
        face = _on_canvas(person.face, scale_x, scale_y)
        _draw_equal_points(canvas, face, _pixels(3 * scale), _FACE_POINT_COLOUR)


def _hand_bones(points: Points) -> list[tuple[tuple[int, int, int, int], Colour]]:
    """Ends x, y, x, y in whole pixels, and colour, of the bones whose two ends are present."""
    bones = []
    for (start, end), colour in zip(HAND_LIMBS, _HAND_LIMB_COLOURS, strict=True):
        a, b = points[start], points[end]
        if a is not None and b is not None:
            bones.append(((int(a[0]), int(a[1]), int(b[0]), int(b[1])), colour))
    return bones


def _limb_patches(canvas: Canvas, body: Points, half_width: int) -> list[tuple[int, Patch]]:
    """(index of the limb, its ellipse) for the limbs whose two ends are present."""
    limbs, centres, half_lengths, angles = [], [], [], []
    for limb, (start, end) in enumerate(LIMBS):
        a, b = body[start], body[end]
        if a is None or b is None:
            continue
        dx, dy = a[0] - b[0], a[1] - b[1]
        limbs.append(limb)
        # Whole pixels and degrees by truncation, as in the programs that drew the training maps.
        centres.append((int((a[0] + b[0]) / 2), int((a[1] + b[1]) / 2)))
        half_lengths.append(int(math.sqrt(dx * dx + dy * dy) / 2))
        angles.append(int(math.degrees(math.atan2(dy, dx))))
    if not limbs:
        return []
    patches = ellipses(
        np.array(centres), np.array(half_lengths), half_width, np.array(angles), *canvas.shape[:2]
    )
    return [(limb, patch) for limb, patch in zip(limbs, patches, strict=True) if patch is not None]


def _draw_points(canvas: Canvas, points: Points, radius: int, colours: tuple[Colour, ...]) -> None:
    for point, colour in zip(points, colours, strict=True):
        if point is not None:
            centre = int(point[0]), int(point[1])
            _paint(canvas, circle(*centre, radius, *canvas.shape[:2]), colour)


def _draw_equal_points(canvas: Canvas, points: Points, radius: int, colour: Colour) -> None:
    centres = [(int(point[0]), int(point[1])) for point in points if point is not None]
    if centres:
        canvas[circles(np.array(centres), radius, *canvas.shape[:2])] = colour


def _paint(canvas: Canvas, patch: Patch | None, colour: Colour) -> None:
    if patch is not None:
        canvas[patch.rows, patch.columns][patch.mask] = colour


def _pixels(size: float) -> int:
    return max(1, round(size))
