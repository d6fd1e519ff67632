# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs on the host's MODEL: its attention projections by name, and a weight for each block."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.utils
import comfy.weight_adapter
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...pose_transfer.errors import CheckpointError, PoseTransferError
from ...pose_transfer.oneposetrans.lora_blocks import preset_weights

_MODEL = "diffusion_model."
# diffusers' names: up_blocks.1.attentions.2.transformer_blocks.0... -> up_blocks.1.attentions.2
_UNET_BLOCK = re.compile(r"(?:(?:down|up)_blocks\.\d+|mid_block)\.[a-z]+\.\d+")


@dataclass(frozen=True, eq=False)
class Layer:
    """One attention projection: its module, what files call it, and its block."""

    module: nn.Linear
    label: str
    block: str


def attention_layers(model: ModelPatcher) -> dict[str, Layer]:
    """The linear layers inside of a MODEL's attentions, by the host's names.

    In Stable Diffusion's UNets these are `to_q`, `to_k`, `to_v`, `to_out.0` of self- and
    cross-attention, and files call them `lora_unet_<diffusers' name>`, which the host and
    diffusers read. In other models they are what lies inside a module called attention, and files
    call them by the host's own names. Raises PoseTransferError for a model without any.
    """
    names = _diffusers_names(model)
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    layers: dict[str, Layer] = {}
    for name, module in model.model.named_modules():
        inside = name.startswith(_MODEL) and any(
            "attn" in word or "attention" in word for word in name.split(".")[:-1]
        )
        if not inside or not isinstance(module, nn.Linear):
            continue
        key = f"{name}.weight"
        label = f"lora_unet_{names[key].replace('.', '_')}" if key in names else name
        if known.get(label) == key:
            layers[name] = Layer(module, label, block_of(key, names))
    if not layers:
        raise PoseTransferError(
            f"The MODEL ({type(model.model).__name__}) has no attention whose LoRA names ComfyUI "
            "knows, so it cannot be tuned. Use a Stable Diffusion 1, 2 or XL checkpoint."
        )
    return layers


def block_of(key: str, names: Mapping[str, str]) -> str:
    """The block of a weight: diffusers' name of it, or the first two words of the host's."""
    name = names.get(key, key.removeprefix(_MODEL))
    found = _UNET_BLOCK.match(name)
    return found[0] if found else ".".join(name.split(".")[:2])


def apply_lora(
    model: ModelPatcher, lora: Mapping[str, Tensor], preset: str, table: str, strength: float
) -> ModelPatcher:
    """A clone of a MODEL with a LoRA of any layout that the host or diffusers writes, by block.

    Raises CheckpointError for a LoRA that fits no weight of the model.
    """
    names = _diffusers_names(model)
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    # What diffusers writes, and with it the reference; the host reads only an older form of it.
    known |= {f"unet.{theirs}": key for key, theirs in names.items()}
    loaded: dict[Any, Any] = comfy.lora.load_lora(
        comfy.lora_convert.convert_lora(dict(lora)), known, log_missing=False
    )
    # A key is a weight's name, or that and which rows of it are meant.
    blocks = {key: block_of(key if isinstance(key, str) else key[0], names) for key in loaded}
    _require_fit(model, lora, loaded)
    weights = preset_weights(preset, table, set(blocks.values()))
    patched = model.clone()
    for weight in set(weights.values()) - {0.0}:
        chosen = {key: patch for key, patch in loaded.items() if weights[blocks[key]] == weight}
        patched.add_patches(chosen, weight * strength)
    return patched


def _require_fit(
    model: ModelPatcher, lora: Mapping[str, Tensor], loaded: Mapping[Any, Any]
) -> None:
    if not loaded:
        raise CheckpointError(
            f"None of the LoRA's {len(lora)} tensors (such as {next(iter(lora), '-')!r}) belongs "
            f"to a layer of this MODEL ({type(model.model).__name__}). Use the kind of model that "
            "the LoRA was tuned on."
        )
    weights = model.model_state_dict(_MODEL)
    for key, patch in loaded.items():
        # Rows of a weight, packed weights and other kinds of adapters are the host's to judge.
        if not isinstance(key, str) or not weights[key].is_floating_point():
            continue
        if not isinstance(patch, comfy.weight_adapter.LoRAAdapter):
            continue
        up, down, *_, reshaped = patch.weights
        if reshaped is not None:
            continue
        got, expected = (up.shape[0], down.shape[1]), tuple(weights[key].shape[:2])
        if got != expected:
            raise CheckpointError(
                f"The LoRA changes {key} as a matrix of {got[0]}x{got[1]}, in this MODEL it is "
                f"{expected[0]}x{expected[1]}. Use the kind of model that the LoRA was tuned on."
            )


def _diffusers_names(model: ModelPatcher) -> dict[str, str]:
    """The host's names of a UNet's weights -> diffusers' without `.weight`; empty for others."""
    config = model.model.model_config.unet_config
    return {
        f"{_MODEL}{host}": theirs.removesuffix(".weight")
        for theirs, host in comfy.utils.unet_to_diffusers(config).items()
        if theirs.endswith(".weight")
    }
