# SPDX-License-Identifier: GPL-3.0-or-later
"""diffusers and transformers under the types that they really have.

Their annotations are wider than the facts, or are lost in a wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import ConfigMixin

Net = TypeVar("Net", bound=nn.Module)
Configured = TypeVar("Configured", bound="ConfigMixin")


class AttentionLayers(Protocol):
    """What our processors use of diffusers' `Attention`, which may lack layers outside of UNets."""

    heads: int
    scale: float
    to_q: nn.Module
    to_k: nn.Module
    to_v: nn.Module
    to_out: nn.ModuleList


def from_config(kind: type[Configured], config: dict[str, Any]) -> Configured:
    """`kind.from_config(config)`: a pair only where the unused keywords are asked for as well."""
    return cast(Configured, kind.from_config(config))


def moved(module: Net, device: torch.device | str) -> Net:
    """`module.to(device)`: both libraries wrap it into what a type checker takes for no method."""
    return module.to(device)


def set_processor(attention: nn.Module, processor: Callable[..., Tensor]) -> None:
    """Gives an attention a processor of ours; diffusers' annotation knows its own ones only."""
    cast(Any, attention).set_processor(processor)
