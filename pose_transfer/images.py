# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures between the layouts that meet here, and the checks on what an artist plugs in.

The host's IMAGE is float (B, H, W, C) in [0, 1] ("bhwc"), networks want (B, C, H, W) ("bchw"),
drawing and metrics want uint8 arrays (B, H, W, C).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import PoseTransferError

if TYPE_CHECKING:
    from torch import Tensor

_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
"""EXIF's tag and those of its values by which width and height change places."""


def open_picture(path: Path) -> Image.Image:
    """A picture file in RGB: upright as EXIF says, as Load Image has it; transparency over white.

    Raises PoseTransferError for what cannot be read, or is so large that reading it is not safe.
    """
    with _opened(path) as file:
        upright = ImageOps.exif_transpose(file)
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            rgba = upright.convert("RGBA")
            white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            upright = Image.alpha_composite(white, rgba)
        return upright.convert("RGB")


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) in px of what `open_picture` would give, from the file's head.

    Raises PoseTransferError.
    """
    with _opened(path) as file:
        on_its_side = file.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
        return (file.height, file.width) if on_its_side else file.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as file:
            yield file
    except Image.DecompressionBombError as error:
        raise PoseTransferError(
            f"The picture {path} has too many pixels to be read safely ({error}). Shrink it."
        ) from error
    except (OSError, ValueError, SyntaxError) as error:  # PNG: SyntaxError where damaged
        raise PoseTransferError(
            f"The picture {path} cannot be read ({error}). Replace it, or leave it out."
        ) from error


def bhwc_to_bchw(image_bhwc: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), a view."""
    return image_bhwc.movedim(-1, 1)


def bchw_to_bhwc(image_bchw: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view."""
    return image_bchw.movedim(1, -1)


def to_uint8(image_bhwc: Tensor) -> NDArray[np.uint8]:
    """Float [0, 1] of any shape -> uint8 on the CPU: clipped, rounded to the nearest level.

    Undoes `from_uint8` exactly.
    """
    return image_bhwc.detach().float().mul(255).round().clamp(0, 255).byte().cpu().numpy()


def from_uint8(picture: NDArray[np.uint8]) -> Tensor:
    """uint8 (H, W, C) or (B, H, W, C) -> float32 (B, H, W, C) in [0, 1] on the CPU."""
    import torch  # drawing and keypoints use this module's neighbours without torch

    if picture.dtype != np.uint8 or picture.ndim not in (3, 4):
        raise ValueError(
            f"Got a picture of {picture.dtype} and shape {picture.shape}, expected uint8 of "
            "shape (H, W, C) or (B, H, W, C)."
        )
    batch = picture if picture.ndim == 4 else picture[None]
    return torch.from_numpy(np.ascontiguousarray(batch)).float().div(255)


def resize_bicubic(image_bhwc: Tensor, height: int, width: int) -> Tensor:
    """Resize as PIL's BICUBIC does (cubic a = -0.5, anti-aliased, on 8-bit levels).

    The released models were trained on pictures resized by PIL, so the 8-bit rounding is part
    of what they expect. (B, H, W, 3) in [0, 1] -> (B, height, width, 3), same device and dtype;
    no gradient flows. A picture that has the size already is returned as it is.
    """
    if tuple(image_bhwc.shape[1:3]) == (height, width):
        return image_bhwc
    resized = [
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
        for picture in to_uint8(image_bhwc)
    ]
    return from_uint8(np.stack(resized)).to(image_bhwc)


def as_rgb(image_bhwc: Tensor, name: str = "image") -> Tensor:
    """Any picture an artist may plug in -> (B, H, W, 3).

    Grey becomes three equal channels; transparency is laid over white, the background of the
    photos that the released models were trained on. Raises PoseTransferError, with `name` in
    its text, for what is no picture.
    """
    if image_bhwc.ndim != 4 or 0 in image_bhwc.shape:
        raise PoseTransferError(
            f"The {name} has shape {tuple(image_bhwc.shape)}, expected a batch of pictures "
            "(batch, height, width, channels). Connect an IMAGE; turn a mask into one with "
            "'Convert Mask to Image'."
        )
    channels = image_bhwc.shape[-1]
    if channels == 3:
        return image_bhwc
    if channels not in (1, 2, 4):
        raise PoseTransferError(
            f"The {name} has {channels} channels, expected 3 (RGB), 4 (RGB and alpha), 1 (grey) "
            "or 2 (grey and alpha). Connect an ordinary picture, not a latent or feature map."
        )
    colour = image_bhwc[..., :3] if channels == 4 else image_bhwc[..., :1]
    if channels in (2, 4):
        alpha = image_bhwc[..., -1:]
        colour = colour * alpha + (1 - alpha)
    return colour.expand(*colour.shape[:-1], 3)


def broadcast_batches(**tensors: Tensor) -> tuple[Tensor, ...]:
    """Give all tensors one batch size: a batch of 1 is repeated (as a view) to the largest.

    Call it as `source, pose = broadcast_batches(source=source, pose=pose)`; the results keep
    the order of the arguments. Raises PoseTransferError, naming two inputs and their sizes,
    when batches other than 1 differ.
    """
    longest = max(tensors, key=lambda name: tensors[name].shape[0])
    batch = tensors[longest].shape[0]
    for name, tensor in tensors.items():
        if tensor.shape[0] not in (1, batch):
            raise PoseTransferError(
                f"The {longest.replace('_', ' ')} is a batch of {batch} and the "
                f"{name.replace('_', ' ')} a batch of {tensor.shape[0]}, expected equal batches "
                "or a single one of either. Make the batches equally long, or use one only."
            )
    return tuple(
        tensor.expand(batch, *tensor.shape[1:]) if tensor.shape[0] == 1 else tensor
        for tensor in tensors.values()
    )
