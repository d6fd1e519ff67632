# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRA as branches beside frozen layers: y = W x + (alpha / rank) up(down(x)).

The layers themselves are left alone: no weight is written, none is computed anew at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LowRankBranches:
    """The trainable branches of some linear layers, in float32.

    Down starts as Gaussian noise of std 1 / rank, up as zero (peft's "gaussian"), so that at first
    nothing changes. The noise comes from a generator of its own on the CPU, in the order of the
    layers' names: one seed is one LoRA, on whatever device.

    A model has hundreds of such layers, all small: what is asked of a device is asked a thousand
    times. So all downs lie in one tensor and all ups in another, of which `down` and `up` show
    each layer's part, and what is done to all of them (conversion, optimiser, copies) is done once.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Linear],
        rank: int,
        alpha: float,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rank, self.alpha = rank, alpha
        self._layers = {name: layers[name] for name in sorted(layers)}
        sizes = {name: layer.weight.shape for name, layer in self._layers.items()}
        self._down_shapes = {name: (rank, int(width_in)) for name, (_, width_in) in sizes.items()}
        self._up_shapes = {name: (int(width_out), rank) for name, (width_out, _) in sizes.items()}
        noise = [
            torch.randn(shape, generator=generator).flatten() / rank
            for shape in self._down_shapes.values()
        ]
        self._downs = nn.Parameter(torch.cat(noise).to(device))
        self._ups = nn.Parameter(
            torch.zeros(sum(map(prod, self._up_shapes.values())), device=device)
        )
        self.down = _parts(self._downs.detach(), self._down_shapes)
        self.up = _parts(self._ups.detach(), self._up_shapes)
        self._in_use: dict[torch.dtype, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}

    def parameters(self) -> list[nn.Parameter]:
        return [self._downs, self._ups]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While this is open, the layers' outputs have their branch added."""
        handles = []
        try:
            for name, layer in self._layers.items():
                handles.append(layer.register_forward_hook(self._branch(name)))
            yield
        finally:
            self.renew()
            for handle in handles:
                handle.remove()

    def renew(self) -> None:
        """To be called when the weights have changed, and before every pass to be learnt from."""
        self._in_use.clear()

    def _branch(self, name: str) -> Callable[..., Tensor]:
        def add(_layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            x = inputs[0]
            downs, ups = self._weights(x.dtype)
            low = F.linear(x.flatten(0, -2), downs[name])
            return output + F.linear(low, ups[name]).view_as(output)

        return add

    def _weights(self, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Downs and scaled ups. They stay in float32, the work is done in the layers' `dtype`."""
        if dtype not in self._in_use:
            self._in_use[dtype] = (
                _parts(self._downs.to(dtype), self._down_shapes),
                _parts((self._ups * (self.alpha / self.rank)).to(dtype), self._up_shapes),
            )
        return self._in_use[dtype]

    def snapshot(self) -> list[Tensor]:
        """A copy of the weights, in the order of `parameters`."""
        return [parameter.detach().clone() for parameter in self.parameters()]

    def stored(self) -> list[Tensor]:
        """The same as files hold it, float16 on the CPU, where many take no memory of the device.

        `restore` takes it as well; the file that is written then is that of this moment.
        """
        return [parameter.detach().half().cpu() for parameter in self.parameters()]

    def keep(self, snapshot: list[Tensor]) -> None:
        """Writes the present weights into a snapshot."""
        torch._foreach_copy_(snapshot, [parameter.detach() for parameter in self.parameters()])

    def restore(self, snapshot: list[Tensor]) -> None:
        """Undoes what happened since the snapshot."""
        torch._foreach_copy_([parameter.detach() for parameter in self.parameters()], snapshot)
        self.renew()

    def tensors(self, names: Mapping[str, str]) -> dict[str, Tensor]:
        """The LoRA as files hold it: float16 on the CPU, `<name>.lora_up.weight`, `.alpha`.

        `names` are what the file shall call each layer. These suffixes (kohya's) are read by the
        host's own loader and by diffusers' `load_lora_weights`.
        """
        found: dict[str, Tensor] = {}
        for name in self._layers:
            label = names[name]
            found[f"{label}.lora_up.weight"] = self.up[name].detach().half().cpu()
            found[f"{label}.lora_down.weight"] = self.down[name].detach().half().cpu()
            found[f"{label}.alpha"] = torch.tensor(float(self.alpha))
        return found


def _parts(flat: Tensor, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Each layer's part of a flat tensor, without a copy."""
    parts = flat.split([prod(shape) for shape in shapes.values()])
    return {
        name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
