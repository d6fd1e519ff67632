# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening ONNX files: what runs them, what is said about it, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from pose_transfer.detectors.onnx_model import OnnxModel
from pose_transfer.errors import CheckpointError, MissingDependencyError, PoseTransferError


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Doubles a picture (1, 3, 4, 6)."""

    def value(name: str):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 4, 6])

    nodes = [helper.make_node("Add", ["picture", "picture"], ["double"])]
    graph = helper.make_graph(nodes, "double", [value("picture")], [value("double")])
    path = tmp_path / "double.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def pretend_onnxruntime(
    monkeypatch: pytest.MonkeyPatch, available: list[str], working: list[str]
) -> list[list[str]]:
    """An onnxruntime whose providers are `available`, of which `working` start. Returns the list
    of the providers that were asked for.
    """
    asked: list[list[str]] = []

    class Session:
        def __init__(self, path: str, providers: list[str]) -> None:
            asked.append(providers)
            self.providers = [p for p in providers if p in working]

        def get_providers(self) -> list[str]:
            return self.providers

        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="picture", shape=["batch", 3, 4, 6])]

        def get_outputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="double")]

    runtime = SimpleNamespace(get_available_providers=lambda: available, InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    return asked


def test_a_network_runs_and_tells_its_layout(network: Path) -> None:
    model = OnnxModel(network)
    picture = np.arange(72, dtype=np.float32).reshape(1, 3, 4, 6)

    (doubled,) = model.run(picture)
    assert np.array_equal(doubled, 2 * picture)
    assert model.input_shape == (None, 3, 4, 6)
    assert model.picture_size == (4, 6)
    assert model.output_names == ("double",)


@pytest.mark.parametrize(
    ("available", "used"),
    [
        (["CPUExecutionProvider", "CUDAExecutionProvider"], "CUDAExecutionProvider"),
        (["DmlExecutionProvider", "CPUExecutionProvider"], "DmlExecutionProvider"),
        (["CoreMLExecutionProvider", "CPUExecutionProvider"], "CoreMLExecutionProvider"),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            "CUDAExecutionProvider",
        ),
    ],
)
def test_the_graphics_card_is_preferred(
    network: Path, monkeypatch: pytest.MonkeyPatch, available: list[str], used: str
) -> None:
    asked = pretend_onnxruntime(monkeypatch, available, working=available)

    assert OnnxModel(network).provider == used
    assert asked == [[used, "CPUExecutionProvider"]]


def test_falling_back_to_the_cpu_is_said(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    pretend_onnxruntime(monkeypatch, available, working=["CPUExecutionProvider"])

    provider = OnnxModel(network).provider
    assert provider.startswith("CPUExecutionProvider")
    assert "CUDAExecutionProvider" in provider
    assert "did not start" in provider


def test_a_runtime_without_a_card_says_so(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available = ["AzureExecutionProvider", "CPUExecutionProvider"]
    asked = pretend_onnxruntime(monkeypatch, available, working=available)

    assert "no provider for a graphics card" in OnnxModel(network).provider
    assert asked == [["CPUExecutionProvider"]], "a picture must not leave for the cloud"


def test_without_onnxruntime_it_says_what_to_install(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime"):
        OnnxModel(network)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.onnx"
    page.write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"page\.onnx"):
        OnnxModel(page)
    with pytest.raises(CheckpointError, match=r"absent\.onnx"):
        OnnxModel(tmp_path / "absent.onnx")


def test_a_network_that_stops_says_which(network: Path) -> None:
    with pytest.raises(PoseTransferError, match=r"double\.onnx stopped on CPU"):
        OnnxModel(network).run(np.zeros((1, 3, 5, 5), dtype=np.float32))
