# SPDX-License-Identifier: GPL-3.0-or-later
"""LPIPS on a random trunk of AlexNet's layout, against torchmetrics' own code."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as other

from pose_transfer.errors import CheckpointError, MissingDependencyError
from pose_transfer.evaluation.perceptual import PerceptualDistance, load_perceptual_distance

SHAPES = ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3))
LAYERS = (0, 3, 6, 8, 10)


def trunk() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer, (outputs, inputs, side) in zip(LAYERS, SHAPES, strict=True):
        scale = (2 / (inputs * side * side)) ** 0.5
        weight = torch.randn(outputs, inputs, side, side, generator=generator) * scale
        tensors[f"features.{layer}.weight"] = weight
        tensors[f"features.{layer}.bias"] = torch.randn(outputs, generator=generator) * 0.1
    return tensors | {"classifier.6.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def distance(tmp_path_factory: pytest.TempPathFactory) -> PerceptualDistance:
    def refuse(*args: Any) -> None:
        raise AssertionError("reached for the network")

    path = tmp_path_factory.mktemp("lpips") / "any_name.pth"
    torch.save(trunk(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return load_perceptual_distance(path)


def noise(seed: int, height: int = 80, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)


def test_distance_agrees_with_another_implementation(
    distance: PerceptualDistance, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trunk(nn.Module):
        """torchmetrics' slices over our trunk, without torchvision's classifier."""

        def __init__(self, **options: bool) -> None:
            super().__init__()
            weights, self.layers = trunk(), nn.ModuleList()
            for number, (outputs, inputs, side) in zip(LAYERS, SHAPES, strict=True):
                stride, padding = (4, 2) if side == 11 else (1, side // 2)
                layer = nn.Conv2d(inputs, outputs, side, stride, padding)
                layer.weight.data = weights[f"features.{number}.weight"]
                layer.bias.data = weights[f"features.{number}.bias"]  # type: ignore[union-attr]
                self.layers.append(layer)

        def forward(self, x: Tensor) -> list[Tensor]:
            out = []
            for number, layer in enumerate(self.layers):
                if number in (1, 2):
                    x = nn.functional.max_pool2d(x, 3, 2)
                x = layer(x).relu()
                out.append(x)
            return out

    monkeypatch.setattr(other, "Alexnet", Trunk)
    reference = other._LPIPS(net="alex")
    x, y = noise(1), noise(2)
    with torch.no_grad():
        expected = reference(x.float() / 255, y.float() / 255, normalize=True).flatten()
    got = distance(x, y)
    assert got.shape == (2,) and (got > 0.01).all()
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)
    assert distance(x, x).abs().max() == 0


def test_small_pictures_and_wrong_files_are_refused(
    distance: PerceptualDistance, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"63 x 63.*\(40, 64\)"):
        distance(noise(1, 40), noise(2, 40))
    with pytest.raises(CheckpointError, match=r"alexnet-owt-7be5be79\.pth.*--lpips-weights"):
        load_perceptual_distance(tmp_path / "nothing.pth")
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"not torchvision's AlexNet: it lacks features"):
        load_perceptual_distance(tmp_path / "other.pth")


def test_smallest_size_is_as_said(distance: PerceptualDistance) -> None:
    assert torch.isfinite(distance(noise(1, 63, 63), noise(2, 63, 63))).all()


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trunk.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingDependencyError, match="pip install lpips"):
        load_perceptual_distance(tmp_path / "trunk.pth")
