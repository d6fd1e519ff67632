# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole tensors out of a module that FSDP2 has split over processes, and back.

A module that nobody split passes through all of this unchanged, so that the loop need not ask.
Whoever gathers waits for the other processes: all of them must call.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(module: nn.Module) -> bool:
    """Whether parameters are spread over processes."""
    return any(isinstance(x, DTensor) for x in module.parameters())


def own_part(x: Tensor) -> Tensor:
    """This process's part of a tensor, sharing its memory."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(x: Tensor) -> Tensor:
    """All of a tensor, in every process."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def joined(part: Tensor, like: Tensor) -> Tensor:
    """All of a tensor whose parts are spread as those of `like`, in every process."""
    if not isinstance(like, DTensor):
        return part
    spread = DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
    return spread.full_tensor()


def part_of(complete: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor that is to be spread as `like` is."""
    if not isinstance(like, DTensor):
        return complete
    return distribute_tensor(
        complete.to(like.device), like.device_mesh, like.placements
    ).to_local()  # fmt: skip


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with whole tensors, parameters by number, as torch keeps it.

    Of a sharded module only the first process gets it, the others an empty one.
    """
    if not is_sharded(module):
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    # Its own type allows for lists in place of both of its two parts.
    named = cast(dict[str, Any], get_optimizer_state_dict(module, optimizer, options=options))
    if not named:
        return {}
    number = {name: i for i, (name, _) in enumerate(module.named_parameters())}
    return {
        "state": {number[name]: x for name, x in named["state"].items()},
        "param_groups": [
            {**group, "params": [number[name] for name in group["params"]]}
            for group in named["param_groups"]
        ],
    }


def load_optimizer_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """What `optimizer_state` gave, whether the module was split then or is now."""
    if not is_sharded(module):
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_optimizer_state_dict,
    )

    names = [name for name, _ in module.named_parameters()]
    named = {
        "state": {names[i]: x for i, x in state["state"].items()},
        "param_groups": [
            {**group, "params": [names[i] for i in group["params"]]}
            for group in state["param_groups"]
        ],
    }
    set_optimizer_state_dict(
        module, optimizer, named, options=StateDictOptions(full_state_dict=True)
    )


@torch.no_grad()
def unshard(module: nn.Module) -> None:
    """Give every process all parameters, on the CPU: for a module that is done training."""
    for layer in module.modules():
        for name, x in list(layer.named_parameters(recurse=False)):
            if isinstance(x, DTensor):
                setattr(layer, name, nn.Parameter(x.full_tensor().cpu()))
