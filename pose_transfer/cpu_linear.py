# SPDX-License-Identifier: GPL-3.0-or-later
"""Linear layers in float32 on a CPU, by oneDNN instead of by the BLAS that PyTorch was built with.

PyTorch asks oneDNN for its convolutions but MKL for its matrix products, and MKL leaves AMD's
processors half unused: on an EPYC with AVX-512 a layer takes 2.2 times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

WORTH = 2_000_000
"""Multiplications of a layer; for fewer, the way to oneDNN takes longer than PyTorch's product."""


def _find_product() -> Callable[..., Tensor] | None:
    """x W^T + bias of oneDNN; an operator that PyTorch keeps for its own compiler."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


@contextmanager
def onednn_linear(device: torch.device) -> Iterator[None]:
    """While this is open, `F.linear` of this thread goes through oneDNN wherever it can.

    That is: float32 on the CPU, outside of autocast, and large enough to be worth it. All else is
    computed as ever, and so is everything where `device`, on which the work is done, is another,
    or PyTorch has no oneDNN. Results differ by rounding only; gradients (of the first order) go
    the same way.
    """
    product = _find_product() if device.type == "cpu" else None
    if product is None:
        yield
        return
    with _Linear(product):
        yield


class _Linear(TorchFunctionMode):
    def __init__(self, product: Callable[..., Tensor]) -> None:
        super().__init__()
        self.product = product

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.linear and _is_worth_it(*args, **(kwargs or {})):
            return _linear(self.product, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _is_worth_it(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether oneDNN can and should; wrong shapes are left to PyTorch, which says what is wrong."""
    tensors = [input, weight] if bias is None else [input, weight, bias]
    return (
        all(type(x) in (Tensor, torch.nn.Parameter) for x in tensors)
        and all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)
        and input.ndim > 0
        and weight.ndim == 2
        and input.shape[-1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
        and input.numel() * len(weight) >= WORTH
        and not torch.is_autocast_enabled("cpu")
    )


def _linear(
    product: Callable[..., Tensor], input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    rows = _Product.apply(product, input.reshape(-1, input.shape[-1]), weight, bias)
    return rows.view(*input.shape[:-1], len(weight))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, product: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.product = product
        needs_x, needs_weight = ctx.needs_input_grad[1:3]
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        return product(x, weight, bias, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if weight is not None:
            of_x = ctx.product(gradient, weight.t(), None, "none", [], "")
        if x is not None:
            # oneDNN copies its first factor if that is transposed: let it be the narrower one.
            if gradient.shape[1] <= x.shape[1]:
                of_weight = ctx.product(gradient.t(), x.t(), None, "none", [], "")
            else:
                of_weight = ctx.product(x.t(), gradient.t(), None, "none", [], "").t()
        if ctx.needs_input_grad[3]:
            of_bias = gradient.sum(0)
        return None, of_x, of_weight, of_bias
