# SPDX-License-Identifier: GPL-3.0-or-later
"""Linear layers by oneDNN: the same numbers, and only where they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pose_transfer import cpu_linear
from pose_transfer.cpu_linear import onednn_linear

CPU = torch.device("cpu")


def by_pytorch(x: Tensor, weight: Tensor, bias: Tensor | None, *_: object) -> Tensor:
    """Stands in for oneDNN where PyTorch has none."""
    return F.linear(x, weight, bias)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what oneDNN was asked to multiply, however small."""
    product: Callable[..., Tensor] = cpu_linear._find_product() or by_pytorch
    shapes: list[tuple[int, ...]] = []

    def counted(x: Tensor, *others: object) -> Tensor:
        shapes.append(tuple(x.shape))
        return product(x, *others)

    monkeypatch.setattr(cpu_linear, "_find_product", lambda: counted)
    monkeypatch.setattr(cpu_linear, "WORTH", 1)
    return shapes


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (2, 2, 3, 5)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("width_out", [3, 7])
def test_numbers_and_gradients_are_those_of_pytorch(
    asked: list[tuple[int, ...]], shape: tuple[int, ...], has_bias: bool, width_out: int
) -> None:
    def run() -> list[Tensor | None]:
        x = random(*shape).requires_grad_()
        layer = nn.Linear(5, width_out, bias=has_bias)
        layer.load_state_dict(
            {name: random(*value.shape, seed=1) for name, value in layer.state_dict().items()}
        )
        y = layer(x)
        (y * random(*y.shape, seed=2)).sum().backward()
        return [y.detach(), x.grad, *(weight.grad for weight in layer.parameters())]

    expected = run()
    with onednn_linear(CPU):
        got = run()
    assert len(asked) == 3  # forward, for the input, for the weight
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_frozen_weights_cost_no_gradient(asked: list[tuple[int, ...]]) -> None:
    layer, x = nn.Linear(5, 7).requires_grad_(False), random(2, 5).requires_grad_()
    with onednn_linear(CPU):
        layer(x).sum().backward()
    assert asked == [(2, 5), (2, 7)] and x.grad is not None


def test_slices_and_expanded_tensors_will_do(asked: list[tuple[int, ...]]) -> None:
    weight = random(7, 10, seed=1)[:, ::2]
    for x in (random(4, 10)[:, ::2], random(1, 5).expand(3, 5), random(5, 4).t()):
        with onednn_linear(CPU):
            got = F.linear(x, weight)
        torch.testing.assert_close(got, F.linear(x, weight), atol=1e-5, rtol=1e-5)
    assert len(asked) == 3


@pytest.mark.parametrize(
    "inputs",
    [
        lambda: (random(2, 5).double(), random(7, 5).double()),
        lambda: (random(2, 5).bfloat16(), random(7, 5).bfloat16()),
        lambda: (random(0, 5), random(7, 5)),
        lambda: (random(2, 5).to("meta"), random(7, 5).to("meta")),
    ],
    ids=["float64", "bfloat16", "empty", "another device"],
)
def test_all_else_is_left_to_pytorch(
    asked: list[tuple[int, ...]], inputs: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    x, weight = inputs()
    with onednn_linear(CPU):
        got = F.linear(x, weight)
    assert not asked and (got.dtype, got.device) == (x.dtype, x.device)


def test_small_layers_are_left_to_pytorch(
    asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_linear, "WORTH", 4 * 5 * 7)
    with onednn_linear(CPU):
        F.linear(random(3, 5), random(7, 5))
        F.linear(random(4, 5), random(7, 5))
    assert asked == [(4, 5)]


def test_autocast_chooses_the_precision(asked: list[tuple[int, ...]]) -> None:
    with onednn_linear(CPU), torch.autocast("cpu", torch.bfloat16):
        assert F.linear(random(2, 5), random(7, 5)).dtype == torch.bfloat16
    assert not asked


def test_on_another_device_nothing_changes(asked: list[tuple[int, ...]]) -> None:
    with onednn_linear(torch.device("cuda")):
        F.linear(random(2, 5), random(7, 5))
    assert not asked


def test_what_does_not_fit_is_pytorchs_error(asked: list[tuple[int, ...]]) -> None:
    with onednn_linear(CPU), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        F.linear(random(2, 5), random(7, 6))
    assert not asked


def test_it_ends_with_its_block(asked: list[tuple[int, ...]]) -> None:
    with pytest.raises(KeyError), onednn_linear(CPU):
        raise KeyError
    F.linear(random(2, 5), random(7, 5))
    assert not asked


def test_without_onednn_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert cpu_linear._find_product() is None
    x, weight = random(2, 5), random(7, 5)
    with onednn_linear(CPU):
        assert torch.equal(F.linear(x, weight), x @ weight.t())
