# SPDX-License-Identifier: GPL-3.0-or-later
"""CONTROL_NETs of the host: FPDM's pose encoder as one, and what identifies any of them."""

from __future__ import annotations

import copy
from typing import Any

from comfy.controlnet import ControlBase, T2IAdapter
from torch import Tensor, nn

from ...pose_transfer.oneposetrans.fingerprint import Fingerprint

_LATENT_FACTOR = 8


class _Adapter(nn.Module):
    """A pose encoder as the host runs adapters: feature maps for the UNet's first blocks."""

    unshuffle_amount = _LATENT_FACTOR

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pose_map: Tensor) -> dict[str, list[Tensor]]:
        return {"input": [self.encoder(pose_map)]}


def pose_control(encoder: nn.Module) -> PoseControl:
    """The host's CONTROL_NET from a pose encoder of FPDM's kind.

    Its features are added behind the UNet's first convolution, as FPDM does it, so the host treats
    it like a T2I-Adapter. The encoder is copied: the host moves and casts its own.
    """
    return PoseControl(_Adapter(copy.deepcopy(encoder)).eval().requires_grad_(False))


class PoseControl(T2IAdapter):
    """See `pose_control`."""

    def __init__(self, adapter: nn.Module) -> None:
        super().__init__(adapter, 3, _LATENT_FACTOR, "area")

    def copy(self) -> PoseControl:
        other = PoseControl(self.t2i_model)
        self.copy_to(other)
        return other

    def get_control(self, x_noisy: Tensor, *rest: Any) -> Any:
        # The host keeps the features of the first batch for batches of every size; one picture
        # serves all.
        if self.control_input and len(self.control_input["input"][0]) not in (1, len(x_noisy)):
            self.control_input = self.cond_hint = None
        return super().get_control(x_noisy, *rest)


def describe(fingerprint: Fingerprint, control: ControlBase | None) -> None:
    """What a control in a CONDITIONING is told, with those before it; not what it remembers."""
    while control is not None:
        fingerprint.add("control", type(control).__name__)
        fingerprint.add("hint", control.cond_hint_original)
        fingerprint.add("strength", control.strength)
        fingerprint.add("range", control.timestep_percent_range)
        for name in ("control_model", "t2i_model"):
            if (network := getattr(control, name, None)) is not None:
                fingerprint.add_weights(name, network.state_dict())
        control = control.previous_controlnet
