# SPDX-License-Identifier: GPL-3.0-or-later
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pose_transfer import images
from pose_transfer.errors import PoseTransferError


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_uint8_survives_the_way_through_float():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    floats = images.from_uint8(levels)
    assert floats.dtype == torch.float32 and floats.max() == 1
    assert np.array_equal(images.to_uint8(floats), levels)


def test_to_uint8_clips_what_lies_outside():
    assert images.to_uint8(torch.tensor([-0.5, 0.5, 7.0])).tolist() == [0, 128, 255]


def test_one_picture_becomes_a_batch_and_layouts_swap():
    bhwc = images.from_uint8(picture(5, 7, 3))
    assert bhwc.shape == (1, 5, 7, 3)
    bchw = images.bhwc_to_bchw(bhwc)
    assert bchw.shape == (1, 3, 5, 7)
    assert torch.equal(images.bchw_to_bhwc(bchw), bhwc)


def test_from_uint8_refuses_floats():
    with pytest.raises(ValueError, match="float64"):
        images.from_uint8(np.zeros((4, 4, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(9, 31), (40, 12), (21, 17)])
def test_resize_is_what_pil_does(height, width):
    source = picture(2, 21, 17, 3)
    resized = images.to_uint8(images.resize_bicubic(images.from_uint8(source), height, width))
    for one, original in zip(resized, source, strict=True):
        expected = Image.fromarray(original).resize((width, height), Image.Resampling.BICUBIC)
        assert np.array_equal(one, np.asarray(expected))


def test_resize_keeps_dtype():
    half = images.from_uint8(picture(1, 8, 8, 3)).half()
    assert images.resize_bicubic(half, 4, 4).dtype == torch.float16


def test_as_rgb_takes_grey_and_lays_transparency_over_white():
    rgb = torch.rand(2, 3, 4, 3)
    assert images.as_rgb(rgb) is rgb
    grey = torch.rand(2, 3, 4, 1)
    assert torch.equal(images.as_rgb(grey), grey.repeat(1, 1, 1, 3))
    opaque = torch.cat([rgb, torch.ones(2, 3, 4, 1)], dim=3)
    assert torch.equal(images.as_rgb(opaque), rgb)
    clear = torch.cat([rgb, torch.zeros(2, 3, 4, 1)], dim=3)
    assert torch.equal(images.as_rgb(clear), torch.ones(2, 3, 4, 3))
    grey_alpha = torch.cat([grey, torch.full((2, 3, 4, 1), 0.5)], dim=3)
    assert torch.allclose(images.as_rgb(grey_alpha), (grey / 2 + 0.5).expand(2, 3, 4, 3))


@pytest.mark.parametrize("shape", [(3, 4, 3), (1, 3, 4, 5), (0, 3, 4, 3), (1, 3, 4, 0)])
def test_as_rgb_refuses_what_is_no_picture(shape):
    with pytest.raises(PoseTransferError, match="source image"):
        images.as_rgb(torch.zeros(shape), "source image")


def test_a_single_one_is_broadcast_and_unequal_batches_are_named():
    source, pose = images.broadcast_batches(source=torch.rand(1, 2), pose=torch.rand(3, 4, 5))
    assert source.shape == (3, 2) and pose.shape == (3, 4, 5)
    assert torch.equal(source[0], source[2])
    with pytest.raises(PoseTransferError, match=r"pose map is a batch of 3.*source a batch of 2"):
        images.broadcast_batches(source=torch.rand(2, 2), pose_map=torch.rand(3, 2))


def test_types_errors_and_drawing_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pose_transfer.types, pose_transfer.errors, pose_transfer.images\n"
        "from pose_transfer.pose import draw\n"
        "draw(pose_transfer.types.Pose(8, 8), 8, 8, 'fpdm')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": _root()})


def _root() -> str:
    from pathlib import Path

    return str(Path(__file__).parents[2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_read_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    shot = Image.fromarray(picture(16, 24, 3))
    shot.save(tmp_path / "photo.png", exif=exif)
    read = images.open_picture(tmp_path / "photo.png")
    # What each value says of the picture's rows and columns.
    turned = np.asarray(shot)
    turned = turned.transpose(1, 0, 2) if orientation >= 5 else turned
    turned = turned[::-1] if orientation in (3, 4, 7, 8) else turned
    turned = turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
    assert np.array_equal(np.asarray(read), turned)
    assert images.picture_size(tmp_path / "photo.png") == read.size


def test_transparency_of_a_file_lies_over_white(tmp_path):
    half = Image.new("RGBA", (4, 4), (200, 100, 0, 0))
    half.paste((200, 100, 0, 255), (0, 0, 2, 4))
    half.save(tmp_path / "rgba.png")
    half.convert("P").save(
        tmp_path / "palette.gif", transparency=half.convert("P").getpixel((3, 0))
    )
    grey = Image.new("LA", (4, 4), (7, 0))
    grey.save(tmp_path / "grey.png")
    for name in ("rgba.png", "palette.gif", "grey.png"):
        pixels = np.asarray(images.open_picture(tmp_path / name))
        assert pixels.shape == (4, 4, 3) and (pixels[:, 2:] == 255).all(), name


def test_a_picture_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "vast.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    for read in (images.open_picture, images.picture_size):
        with pytest.raises(PoseTransferError, match=r"vast\.png has too many pixels"):
            read(tmp_path / "vast.png")
