# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo base's text encoder without a host."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from ..libraries import moved
from .models import MannequinBase


def text_context(base: MannequinBase, device: torch.device) -> Callable[[Tensor], Tensor]:
    """CLIP token numbers (B, 77) -> the base's context (B, 77, D)."""
    encoder = CLIPTextModel(CLIPTextConfig(**base.text_config))
    # The prefix of transformers 4 is in the file, and not in every release of transformers.
    names = [name for name in encoder.state_dict() if not name.endswith("position_ids")]
    state = {n: base.text_encoder["text_model." + n.removeprefix("text_model.")] for n in names}
    encoder.load_state_dict(state, strict=False)
    moved(encoder, device).eval().requires_grad_(False)
    return lambda tokens: encoder(tokens).last_hidden_state
