# SPDX-License-Identifier: GPL-3.0-or-later
"""diffusers' UNets as models of the host's own families. Runs in a process of the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.utils
import torch
from pose_transfer_pack.nodes import stock_models
from torch import Tensor

SDXL_ADDED = 2816
"""Width of what Stable Diffusion XL gets beside the tokens: the pooled caption, and sizes."""


def build_host_unet(
    family: Any, state_dict: Mapping[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype
) -> Any:
    """The host's model of a family, such as `comfy.supported_models.SDXL`, with these weights."""
    settings = stock_models.unet_settings(config)
    if config["addition_embed_type"] is not None:
        settings |= {"num_classes": "sequential", "adm_in_channels": SDXL_ADDED}
    tensors = {
        host: state_dict[theirs]
        for theirs, host in comfy.utils.unet_to_diffusers(settings).items()
        if theirs in state_dict
    }
    settled = family(settings)
    settled.set_inference_dtype(dtype, None)
    model = settled.get_model(tensors)
    missing, unexpected = model.diffusion_model.load_state_dict(tensors, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return model
