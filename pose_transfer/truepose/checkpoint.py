# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of trained pairs: this project's own, and the layout of Leffa's pose transfer.

Ours is one safetensors file: `unet.*` (both nets share it) or `target_unet.*` and `source_unet.*`
in diffusers' layout, `image_tokens.*` (`ImageTokens`), `pose_encoder.*`, and `image_tower.*` where
the embedding is not that of a stock CLIP; metadata `format` "pose_transfer.truepose", `version`,
and `config`, JSON with the keywords of each part.

Leffa (franciszzj/Leffa) has `unet.*`, `unet_encoder.*` and `vae.*`: Stable Diffusion 1.5's
in-painting base without its cross-attention; the generative net takes noisy latent 4, mask 1,
masked image 4, DensePose 3 channels, the reference net the clean latent of the source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..weights import read_weights, with_prefix, write_weights

FORMAT, VERSION = "pose_transfer.truepose", "1"
LEFFA_CONCAT = 8
"""Channels that Leffa's generative net takes beside the latent: 1 + 4 + 3."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class TrainedPair:
    """What a file holds, in diffusers' names.

    `source` is None where both nets share `target`. `parts` are the networks besides, by name;
    `config` describes all of them ("unet", "source_unet", "prediction", and one for each part).
    `leffa`: the attention's unconditional branch, timestep and extra channels are Leffa's.
    """

    target: Tensors
    source: Tensors | None
    vae: Tensors
    parts: Mapping[str, Tensors]
    config: Mapping[str, Any]
    leffa: bool = False


def load_pair(path: Path) -> TrainedPair:
    """Reads either kind; which one, the tensors tell. Raises CheckpointError."""
    file = read_weights(path)
    tensors = file.tensors
    try:
        if file.metadata.get("format") == FORMAT:
            return _own(tensors, json.loads(file.metadata["config"]))
        if all(any(k.startswith(p) for k in tensors) for p in ("unet.", "unet_encoder.", "vae.")):
            return _leffa(tensors)
    except (KeyError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"{path} is an incomplete TruePose pair: {reason}. Download or train it again."
        ) from error
    raise CheckpointError(
        f"{path} holds no trained pair: expected this pack's own format, or unet.*, unet_encoder.* "
        f"and vae.* as Leffa's pose transfer has them; it begins with {min(tensors)}. Stock "
        "checkpoints need no pair: connect them to Source Features and Guide Attention."
    )


def save_pair(
    path: Path,
    target: Tensors,
    parts: Mapping[str, Tensors],
    config: Mapping[str, Any],
    source: Tensors | None = None,
) -> None:
    """Writes our own format; without `source` both nets share `target`."""
    nets = {"unet": target} if source is None else {"target_unet": target, "source_unet": source}
    tensors = {
        f"{part}.{name}": tensor
        for part, named in {**nets, **parts}.items()
        for name, tensor in named.items()
    }
    metadata = {"format": FORMAT, "version": VERSION, "config": json.dumps(config, sort_keys=True)}
    write_weights(path, tensors, metadata)


def _own(tensors: Tensors, config: Mapping[str, Any]) -> TrainedPair:
    source = with_prefix(tensors, "source_unet.") or None
    target = with_prefix(tensors, "unet." if source is None else "target_unet.")
    # A pair upon other weights (`borrows`) leaves its tower to whoever has those.
    lent = {"image_tower"} if "borrows" in config else set()
    parts = {
        name: with_prefix(tensors, f"{name}.")
        for name in ("image_tokens", "pose_encoder", "image_tower")
        if name in config and name not in lent
    }
    empty = [name for name, part in {"unet": target, **parts}.items() if not part]
    if empty:
        raise ValueError(f"it holds no {', '.join(f'{name}.*' for name in empty)}")
    return TrainedPair(target, source, with_prefix(tensors, "vae."), parts, config)


def _leffa(tensors: Tensors) -> TrainedPair:
    target, source = with_prefix(tensors, "unet."), with_prefix(tensors, "unet_encoder.")
    config = {
        "unet": _unet_config(target),
        "source_unet": _unet_config(source),
        "prediction": "epsilon",
    }
    extra = config["unet"]["in_channels"] - config["source_unet"]["in_channels"]
    if extra != LEFFA_CONCAT:
        raise ValueError(
            f"its generative net takes {extra} channels beside the latent, expected {LEFFA_CONCAT} "
            "(mask 1, masked image 4, DensePose 3)"
        )
    complete = {**_behind_the_last_attention(target, config["unet"]), **source}
    return TrainedPair(target, complete, with_prefix(tensors, "vae."), {}, config, leffa=True)


def _behind_the_last_attention(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """What a reference net may have been saved without: nothing reads what these layers make."""
    last = len(config["block_out_channels"]) - 1
    ends = ("conv_norm_out.", "conv_out.", f"up_blocks.{last}.attentions.")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(ends)}


def _unet_config(tensors: Tensors) -> dict[str, Any]:
    """Keywords of a UNet of Stable Diffusion 1.5's kind without cross-attention.

    What shapes cannot tell is that base's own: eight heads at every level.
    """
    levels = _count(tensors, r"down_blocks\.(\d+)\.")
    widths = [tensors[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)]
    attends = [f"down_blocks.{i}.attentions.0.norm.weight" in tensors for i in range(levels)]
    cross = next((k for k in tensors if k.endswith("attn2.to_k.weight")), None)
    proj_in = next(k for k in tensors if k.endswith("proj_in.weight"))
    out = tensors.get("conv_out.weight")  # see `_behind_the_last_attention`
    return {
        "in_channels": tensors["conv_in.weight"].shape[1],
        "out_channels": 4 if out is None else out.shape[0],
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
        "layers_per_block": _count(tensors, r"down_blocks\.0\.resnets\.(\d+)\."),
        "attention_head_dim": 8,
        "cross_attention_dim": None if cross is None else tensors[cross].shape[1],
        "use_linear_projection": tensors[proj_in].dim() == 2,
    }


def _count(tensors: Tensors, pattern: str) -> int:
    found = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    if not found:
        raise ValueError(f"no tensor is called like {pattern}")
    return 1 + max(found)
