# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRA as branches beside frozen layers: y = W x + (alpha / rank) up(down(x)).

The layers themselves are left alone: no weight is written, none is computed anew at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LowRankBranches:
    """The trainable branches of some linear layers, in float32.

    Down starts as Gaussian noise of std 1 / rank, up as zero (peft's "gaussian"), so that at first
    nothing changes. The noise comes from a generator of its own on the CPU, in the order of the
    layers' names: one seed is one LoRA, on whatever device.
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
        self.down: dict[str, nn.Parameter] = {}
        self.up: dict[str, nn.Parameter] = {}
        for name, layer in self._layers.items():
            width_out, width_in = layer.weight.shape
            noise = torch.randn(rank, int(width_in), generator=generator) / rank
            self.down[name] = nn.Parameter(noise.to(device))
            self.up[name] = nn.Parameter(torch.zeros(int(width_out), rank, device=device))

    def parameters(self) -> list[nn.Parameter]:
        return [*self.down.values(), *self.up.values()]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While this is open, the layers' outputs have their branch added."""
        handles = []
        try:
            for name, layer in self._layers.items():
                handles.append(layer.register_forward_hook(self._branch(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _branch(self, name: str) -> Callable[..., Tensor]:
        down, up, scale = self.down[name], self.up[name], self.alpha / self.rank

        def add(_layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            x = inputs[0]
            # The weights stay in float32, the work is done in the layer's own precision.
            rows = F.linear(x, down.to(x.dtype)).flatten(0, -2)
            added = torch.addmm(output.flatten(0, -2), rows, up.to(x.dtype).t(), alpha=scale)
            return added.view_as(output)

        return add

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
