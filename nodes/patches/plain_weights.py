# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's tensors as ones that autograd may keep for the way back.

The host runs nodes in inference mode, and what is made there is an inference tensor for good: no
gradient can be computed through it, and a copy of a whole model would take gigabytes. A second
tensor over the same memory is an ordinary one and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import comfy.conds
import torch
from torch import Tensor, nn


@contextmanager
def plain_weights(model: nn.Module) -> Iterator[None]:
    """While this is open, the model's weights are ordinary, frozen tensors over the same memory.

    Afterwards each is the very object that it was. To be used outside of inference mode.
    """
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in model.modules():
            weights = cast(dict[str, Any], module._parameters)
            for table, is_weight in ((weights, True), (module._buffers, False)):
                for name, tensor in table.items():
                    # Quantised weights are unpacked into ordinary tensors on use.
                    if tensor is None or type(tensor) not in (Tensor, nn.Parameter):
                        continue
                    replaced.append((table, name, tensor))
                    alias = _alias(tensor)
                    table[name] = nn.Parameter(alias, requires_grad=False) if is_weight else alias
        yield
    finally:
        for table, name, tensor in replaced:
            table[name] = tensor


def plain(value: Any) -> Any:
    """Conditions as the host nests them, with copies of their tensors that autograd may keep."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, comfy.conds.CONDRegular):
        return value._copy_with(plain(value.cond))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value


def _alias(tensor: Tensor) -> Tensor:
    if not tensor.is_inference():
        return tensor.detach()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
    )
