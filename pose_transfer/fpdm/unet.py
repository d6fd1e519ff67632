# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM's two additions to a diffusers UNet, made without touching its class.

The released code edits the UNet: the class embedding gets a network of its own and the pose
features are added behind the first convolution. Here the UNet stays the stock
`UNet2DConditionModel`: its class embedding is the identity, and the pose features come in through
a hook that lives for one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ConfigMixin, UNet2DConditionModel
from torch import Tensor, nn

from ..libraries import from_config


def constructor_arguments(module: ConfigMixin) -> dict[str, Any]:
    """What a diffusers module was built with.

    Without diffusers' own bookkeeping: `_use_default_values` would make `from_config` ignore what
    is given for the keys that it lists.
    """
    return {k: v for k, v in module.config.items() if not k.startswith("_")}


def with_class_input(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The UNet itself if it adds `class_labels` to its time embedding, else a view that does.

    The view is a second UNet of the same layers (the same modules, so the same weights, hooks and
    checkpointing); the given one goes on working without labels. Raises ValueError for a UNet that
    has a class embedding of another kind.
    """
    kind = unet.config.get("class_embed_type")
    if kind == "identity":
        return unet
    if kind is not None or unet.config.get("num_class_embeds") is not None:
        raise ValueError(
            f"the UNet has a class embedding of its own (class_embed_type={kind!r}), FPDM needs "
            'class_embed_type None or "identity": use a Stable Diffusion UNet'
        )
    arguments = {**constructor_arguments(unet), "class_embed_type": "identity"}
    with torch.device("meta"):
        view = from_config(UNet2DConditionModel, arguments)
    for name, layer in unet.named_children():
        setattr(view, name, layer)
    view.training = unet.training
    return view


@contextmanager
def pose_added(unet: UNet2DConditionModel, features: Tensor) -> Iterator[None]:
    """While open, `features` (B, C0, h, w) are added to the UNet's first convolution's output.

    The sum is what the first skip connection carries, too, as in the released code. The hook is
    gone on leaving, whatever happened inside. Backward passes do not need it any more: diffusers
    checkpoints whole blocks, all of them behind this sum.
    """

    def add(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + features.to(output.dtype)

    handle = unet.conv_in.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
