# SPDX-License-Identifier: GPL-3.0-or-later
"""FID: the formula against SciPy, and both Inception files, with random weights."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn
from torchvision.models import inception_v3

from pose_transfer.errors import CheckpointError, MissingDependencyError
from pose_transfer.evaluation.frechet import (
    FrechetDistance,
    TensorflowInception,
    TorchvisionInception,
    load_inception,
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False, transform_input=False).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            # From PyTorch's usual scale to one that keeps the signal alive through 90 layers.
            module.weight.data *= 6**0.5
    return network


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, 48, 32), generator=generator, dtype=torch.uint8)


def naive(x: np.ndarray, y: np.ndarray) -> float:
    root: Any = linalg.sqrtm(np.cov(x, rowvar=False) @ np.cov(y, rowvar=False))
    traces = np.trace(np.cov(x, rowvar=False)) + np.trace(np.cov(y, rowvar=False))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + traces - 2 * np.trace(root).real)


def distance(x: np.ndarray, y: np.ndarray, part: int) -> float:
    found = FrechetDistance(x.shape[1])
    for start in range(0, len(x), part):
        found.add(torch.from_numpy(x[start : start + part]), reference=True)
    for start in range(0, len(y), part):
        found.add(torch.from_numpy(y[start : start + part]), reference=False)
    assert (found.references, found.generated) == (len(x), len(y))
    return found.value()


def test_distance_is_the_formula_however_the_pictures_arrive() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(0, 1, (12, 12))
    x, y = rng.normal(3, 1, (60, 12)) @ mixing, rng.normal(2.5, 1.4, (45, 12))
    assert distance(x, y, 7) == pytest.approx(naive(x, y), rel=1e-9)
    assert distance(x, y, 60) == pytest.approx(distance(x, y, 1), rel=1e-9)
    assert distance(x, x, 7) == pytest.approx(0, abs=1e-4)


def test_distance_of_fewer_pictures_than_features_is_a_number() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (5, 16)), rng.normal(1, 1, (4, 16))
    assert distance(x, y, 2) == pytest.approx(naive(x, y), rel=1e-5)
    assert np.isnan(distance(x, y[:1], 2))


def test_torchvision_file_is_recognised_and_prepared_as_by_the_released_code(
    network: nn.Module, pictures: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "any_name.pth"
    torch.save(network.state_dict(), path)
    loaded = load_inception(path)
    assert isinstance(loaded, TorchvisionInception)
    got = loaded(pictures)
    # By another way: ImageNet's normalisation undone, on pictures that never had it.
    x = nn.functional.interpolate(pictures.float() / 255, (299, 299), mode="bilinear")
    for channel, (mean, deviation) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        x[:, channel] = (x[:, channel] * deviation + mean - 0.5) / 0.5
    kept: list[Any] = []
    pool = network.get_submodule("avgpool")
    hook = pool.register_forward_hook(lambda m, i, out: kept.append(out))
    with torch.no_grad():
        network(x)
    hook.remove()
    assert got.shape == (1, 2048) and 1e-2 < got.std() < 1e3
    torch.testing.assert_close(got, kept[0].flatten(1), atol=1e-4, rtol=1e-4)


def test_tensorflow_file_is_recognised_and_works_without_a_download(
    network: nn.Module, pictures: Tensor, tmp_path: Path
) -> None:
    tensors = {n: x for n, x in network.state_dict().items() if not n.startswith("AuxLogits")}
    tensors["fc.weight"], tensors["fc.bias"] = torch.zeros(1008, 2048), torch.zeros(1008)
    path = tmp_path / "any_name.pth"
    torch.save(tensors, path)
    loaded = load_inception(path)
    assert isinstance(loaded, TensorflowInception)
    got = loaded(pictures)
    assert got.shape == (1, 2048) and 1e-2 < got.std() < 1e3


def test_missing_file_says_which_one_and_from_where(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"inception_v3_google-0cc3c7bd\.pth.*--fid-weights"):
        load_inception(tmp_path / "nothing.pth")


def test_other_and_malicious_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no Inception v3"):
        load_inception(path)

    class Evil:
        def __reduce__(self) -> tuple[Callable, tuple]:
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"fc.weight": Evil()}, path)
    with pytest.raises(CheckpointError, match="refused"):
        load_inception(path)
    assert not (tmp_path / "written").exists()


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(MissingDependencyError, match="pip install torchmetrics"):
        FrechetDistance(4)
