# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures and masks of a face that was found.

Both lean on the upright face that ArcFace networks take: 112x112 px with the five points at fixed
places (InsightFace, python-package/insightface/utils/face_align.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .base import Face, Picture

ALIGNED = 112
MaskShape = Literal["ellipse", "box"]
MASK_SHAPES: tuple[MaskShape, ...] = get_args(MaskShape)

# Eye, eye, nose, mouth corner, mouth corner, px of the upright face.
_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]],
)  # fmt: skip
# A whole face there, of about 2.3 by 3.1 distances between the eyes: ear to ear, hairline to chin.
_CENTRE = (56.0, 66.0)
_HALF_WIDTH, _HALF_HEIGHT = 40.0, 54.0


def alignment(points: NDArray[np.float32]) -> tuple[complex, complex]:
    """The similarity a, b that puts a picture's five points (5, 2) px onto the upright face's.

    A place x + iy in the picture goes to a (x + iy) + b: least squares over turn, scale and shift,
    without mirroring (Umeyama 1991). Raises ValueError where all points are one.
    """
    source, target = (p[:, 0] + 1j * p[:, 1] for p in (points.astype(np.float64), _TEMPLATE))
    centred, wanted = source - source.mean(), target - target.mean()
    spread = float((abs(centred) ** 2).sum())
    if spread == 0:
        raise ValueError("All five points of the face are in one place.")
    a = complex((centred.conj() * wanted).sum()) / spread
    return a, complex(target.mean() - a * source.mean())


def aligned_crop(picture: Picture, face: Face) -> Picture:
    """The upright face (112, 112, 3) uint8, as an ArcFace network sees it; black beyond edges."""
    a, b = alignment(face.points)
    back, shift = 1 / a, -b / a
    # PIL counts from the pixels' corners, the points from their centres.
    shift += (0.5 + 0.5j) - back * (0.5 + 0.5j)
    upright = Image.fromarray(picture).transform(
        (ALIGNED, ALIGNED),
        Image.Transform.AFFINE,
        (back.real, -back.imag, shift.real, back.imag, back.real, shift.imag),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(upright)


def loose_crop(picture: Picture, face: Face, margin: float, size: int) -> Picture:
    """A square around the face (size, size, 3) uint8, upright in the picture.

    Its side is `margin` times the longer side of the face's box, but no longer than the picture's
    shorter side; at an edge it is moved inwards, so it shows nothing but the picture.
    """
    height, width = picture.shape[:2]
    side = min(max(margin * max(face.box.width, face.box.height), 1.0), height, width)
    x, y = face.box.centre
    left = min(max(x - side / 2, 0.0), width - side)
    top = min(max(y - side / 2, 0.0), height - side)
    crop = Image.fromarray(picture).resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.asarray(crop)


def crops(
    pictures: Iterable[Picture],
    faces: Sequence[Face | None],
    size: int,
    crop: Callable[[Picture, Face], Picture],
) -> NDArray[np.uint8]:
    """One crop for each picture, (B, size, size, 3); black where there is no face."""
    black = np.zeros((size, size, 3), dtype=np.uint8)
    pairs = zip(pictures, faces, strict=True)
    return np.stack([black if face is None else crop(picture, face) for picture, face in pairs])


def face_masks(
    faces: Sequence[Face | None],
    shape: MaskShape,
    height: int,
    width: int,
    grow_px: float = 0.0,
    feather_px: float = 0.0,
) -> NDArray[np.float32]:
    """Where each face is: (B, H, W) float32 in [0, 1], ear to ear and hairline to chin, turned with
    it; empty where there is none.

    "box" is the rectangle around the "ellipse". As in `parsing.region_mask` the edge is moved
    outwards by `grow_px` and becomes a ramp `feather_px` wide, half of it to either side; distances
    are measured along the line to the centre of the face.
    """
    masks = np.zeros((len(faces), height, width), dtype=np.float32)
    for mask, face in zip(masks, faces, strict=True):
        if face is not None:
            _paint(mask, face, shape, grow_px, feather_px)
    return masks


def _paint(
    mask: NDArray[np.float32], face: Face, shape: MaskShape, grow_px: float, feather_px: float
) -> None:
    a, b = alignment(face.points)
    centre, tall = (complex(*_CENTRE) - b) / a, _HALF_HEIGHT / abs(a)
    reach = 1.5 * tall + max(grow_px, 0.0) + feather_px + 1  # nothing of the mask is beyond
    rows = _span(centre.imag, reach, mask.shape[0])
    columns = _span(centre.real, reach, mask.shape[1])
    y, x = np.mgrid[rows, columns]
    away = (x - centre.real) + 1j * (y - centre.imag)
    across, down = (a * away).real / _HALF_WIDTH, (a * away).imag / _HALF_HEIGHT
    # 1 at the edge, 0 at the centre, and growing evenly between and beyond.
    share = np.hypot(across, down) if shape == "ellipse" else np.maximum(abs(across), abs(down))
    distance = abs(away)
    radius = np.divide(distance, share, out=np.full_like(distance, tall), where=share > 0)
    beyond = distance - radius - grow_px
    ramp = 0.5 - beyond / feather_px if feather_px else beyond < 0
    mask[rows, columns] = np.clip(ramp, 0.0, 1.0)


def _span(middle: float, reach: float, size: int) -> slice:
    first, last = (int(min(max(edge, 0), size)) for edge in (middle - reach, middle + reach + 1))
    return slice(first, last)
