# SPDX-License-Identifier: GPL-3.0-or-later
"""SCHP's ONNX exports, with stand-ins that know the labels by their colours."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from pose_transfer.detectors import schp
from pose_transfer.detectors.schp import ATR, LIP, Variant, load_schp
from pose_transfer.errors import CheckpointError
from pose_transfer.parsing import ATR_LABELS, LIP_LABELS

networks = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "schp_networks.py")))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parsing")
    return {
        variant.name: networks.write_schp(
            folder / f"{variant.name}.onnx", len(variant.labels), variant.side
        )
        for variant in (ATR, LIP)
    }


def blocks(height: int, width: int, labels: int, columns: int = 4) -> np.ndarray:
    """The labels in reading order: (height, width)."""
    rows = -(-labels // columns)
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    return np.minimum(row[:, None] * columns + column, labels - 1)


def away_from_edges(labels: np.ndarray, px: int) -> np.ndarray:
    """Where all pixels within `px` have the same label; beside the picture is something else."""
    tensor = torch.from_numpy(labels).float()[None, None]
    padded = F.pad(tensor, (px,) * 4, value=-1)
    highest = F.max_pool2d(padded, 2 * px + 1, 1)
    lowest = -F.max_pool2d(-padded, 2 * px + 1, 1)
    return (highest == lowest)[0, 0].numpy()


def test_the_label_orders_are_the_released_ones() -> None:
    assert (ATR.side, ATR.labels) == (512, ATR_LABELS)
    assert (LIP.side, LIP.labels) == (473, LIP_LABELS)


@pytest.mark.parametrize("variant", [ATR, LIP], ids=["atr", "lip"])
@pytest.mark.parametrize("size", [(300, 200), (220, 400), (512, 512), (900, 701)])
def test_every_label_is_found_where_its_colour_is(
    files: dict[str, Path], variant: Variant, size: tuple[int, int]
) -> None:
    expected = blocks(*size, len(variant.labels))
    parser = load_schp(files[variant.name], variant)
    labels, names = parser.parse(networks.colours(len(variant.labels))[expected])
    assert names == variant.labels
    assert labels.dtype == np.uint8
    assert labels.shape == size
    # The network's own grid has one point for about four pixels of its input.
    certain = away_from_edges(expected, 1 + max(size) * 4 // variant.side)
    assert certain.mean() > 0.4
    np.testing.assert_array_equal(labels[certain], expected[certain])
    # In the middle between the borders of the blocks on either side: no shift.
    assert (labels == expected).mean() > 0.93


def by_the_released_steps(file: Path, variant: Variant, picture: np.ndarray) -> np.ndarray:
    """The same with torch: warp onto the square, run, enlarge with aligned corners, warp back."""
    height, width = picture.shape[:2]
    side, longest = variant.side, max(height, width) - 1
    at = (torch.arange(side) - (side - 1) / 2) * longest / (side - 1)
    x, y = at / ((width - 1) / 2), at / ((height - 1) / 2)
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None].float()
    image = torch.from_numpy(picture[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    square = F.grid_sample(image, grid, align_corners=True).round() / 255
    mean, deviation = (
        torch.tensor(v)[None, :, None, None] for v in ([0.406, 0.456, 0.485], [0.225, 0.224, 0.229])
    )
    batch = ((square - mean) / deviation).numpy().astype(np.float32)
    fusion = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(
        ["fusion"], {"input.1": batch}
    )[0]
    logits = F.interpolate(
        torch.from_numpy(fusion), (side, side), mode="bilinear", align_corners=True
    )
    back_x = torch.linspace(-1, 1, width) * (width - 1) / longest
    back_y = torch.linspace(-1, 1, height) * (height - 1) / longest
    grid = torch.stack(torch.meshgrid(back_y, back_x, indexing="ij")[::-1], -1)[None]
    return F.grid_sample(logits, grid, align_corners=True)[0].argmax(0).numpy()


@pytest.mark.parametrize("size", [(640, 431), (211, 377)])
def test_it_agrees_with_the_released_steps(files: dict[str, Path], size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(x / 19 + y / 61), np.cos(x / 43 - y / 17), np.sin((x + y) / 33)]
    picture = np.stack([127 + 120 * w for w in waves], -1).astype(np.uint8)
    labels, _ = load_schp(files["SCHP ATR"], ATR).parse(picture)
    expected = by_the_released_steps(files["SCHP ATR"], ATR, picture)
    assert len(np.unique(expected)) > 8
    # Enlarging in one step instead of two moves borders by fractions of a pixel.
    assert (labels == expected).mean() > 0.995


@pytest.mark.parametrize("outputs", [("fusion",), ("parsing", "fusion"), ("edge", "fusion")])
def test_exports_with_other_outputs_are_read_too(tmp_path: Path, outputs: tuple[str, ...]) -> None:
    file = networks.write_schp(tmp_path / "a.onnx", 18, 512, outputs)
    expected = blocks(300, 200, 18)
    labels, _ = load_schp(file, ATR).parse(networks.colours(18)[expected])
    assert (labels == expected).mean() > 0.9


def test_strips_join_without_a_seam(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = networks.colours(18)[blocks(130, 90, 18)]
    parser = load_schp(files["SCHP ATR"], ATR)
    whole, _ = parser.parse(picture)
    monkeypatch.setattr(schp, "STRIP", 7)
    np.testing.assert_array_equal(parser.parse(picture)[0], whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2)])
def test_the_smallest_pictures_are_parsed(files: dict[str, Path], size: tuple[int, int]) -> None:
    picture = np.broadcast_to(networks.colours(18)[11], (*size, 3))
    labels, _ = load_schp(files["SCHP ATR"], ATR).parse(np.ascontiguousarray(picture))
    assert labels.shape == size


def test_the_wrong_file_for_a_parser_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"473, 473\), expected \(1, 3, 512, 512\).*ATR"):
        load_schp(files["SCHP LIP"], ATR)
    fewer = networks.write_schp(tmp_path / "a.onnx", 7, 512)
    with pytest.raises(CheckpointError, match=r"\(1, 7, 128, 128\).*expected \(1, 18, height"):
        load_schp(fewer, ATR).parse(np.zeros((9, 9, 3), np.uint8))


def test_the_provider_is_that_of_the_network(files: dict[str, Path]) -> None:
    assert load_schp(files["SCHP ATR"], ATR).provider.startswith("CPUExecutionProvider")
