# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM files: the released Lightning checkpoints and this project's safetensors.

Ours keeps the released names, without their doubles, and carries a description of its networks in
the metadata: `format` "pose_transfer.fpdm", `version`, and `config`, JSON with one object for each
part that shapes do not describe: unet, source_tower, image_tower, vae, preprocess, and the demo's
kind of pose_encoder and transport. `provenance`, JSON, says where the file comes from;
nothing reads it but people.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from ..errors import CheckpointError
from ..libraries import from_config
from ..weights import Weights, load_into, read_weights, with_prefix, write_weights
from . import conv_towers, layout, towers, transport
from .model import FPDM
from .modules import ClassEmbedding, Combiner, PoseEncoder, SourceProjection
from .preprocess import RELEASED, FPDMPreprocess
from .unet import constructor_arguments

FORMAT, VERSION = "pose_transfer.fpdm", "1"

PREFIXES = {
    "unet": "sd_model.unet.",
    "class_embedding": "sd_model.unet.class_embedding.",
    "source_projection": "sd_model.srcimage_proj_model.",
    "pose_encoder": "sd_model.pose_t_proj.",
    "combiner": "fusion_model.combiner.",
    "image_tower": "fusion_model.img_encoder.",
    "source_tower": "src_image_encoder.",
    "vae": "vae.",
    "transport": "source_transport.",
}
"""Name of a part here -> what its tensors' names begin with in a file."""

FPDM_PARTS = tuple(part for part in PREFIXES if part != "transport")
"""What a complete FPDM file holds; only the demo has a transport, no other file lacks it."""

_STAGE_1_PARTS = ("combiner", "image_tower")
_REQUIRED_PARTS = ("source_projection", "pose_encoder", "class_embedding")

Parts = dict[str, dict[str, Tensor]]


def load_checkpoint(
    path: str | Path,
    fusion_path: str | Path | None = None,
    base_unet: UNet2DConditionModel | None = None,
    *,
    dtype: torch.dtype | None = torch.float32,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> FPDM:
    """Read an FPDM model, on the CPU and in evaluation mode.

    Args:
        path: this project's safetensors, or a released stage 2 checkpoint as Lightning wrote it or
            as safetensors.
        fusion_path: stage 1's file; its fusion model then replaces that of `path`.
        base_unet: the UNet of a file that has none of its own; shared, not copied or changed.
        dtype: of all parameters, whatever the file stores; None leaves each as it is stored, so
            that nothing is copied and the file's pages are read when they are used.
        config: for a file without a description, values that its shapes do not tell, by part, for
            example `{"source_tower": {"num_attention_heads": 3}}`.

    Raises CheckpointError for a file that is missing, damaged, refused or of another kind.
    """
    file = read_weights(path, _is_part)
    parts = _split(file.tensors, dtype)
    description = _description(file, path)
    if fusion_path is not None:
        fusion, fusion_description = _read_stage_1(fusion_path, dtype)
        parts.update(fusion)
        description.pop("image_tower", None)
        description.update(fusion_description)
    missing = [PREFIXES[part] + "*" for part in _REQUIRED_PARTS if not parts[part]]
    if missing:
        stage_1 = any(k.removeprefix("fusion_model.").startswith("combiner.") for k in file.tensors)
        hint = (
            "It holds a stage 1 fusion model only: choose stage 2's file as the checkpoint, and "
            "this one as the fusion file beside it (fusion_path)."
            if stage_1 and len(missing) == len(_REQUIRED_PARTS)
            else "Choose a complete FPDM stage 2 checkpoint."
        )
        raise CheckpointError(f"{path} is no FPDM model: it lacks {', '.join(missing)}. {hint}")
    try:
        return _build(parts, _complete(description, parts, config or {}), base_unet)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = f"tensor {error} is missing" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"{path} does not describe a complete FPDM model: {reason}. "
            "The file may be damaged or of another kind; download it again."
        ) from error


def save_checkpoint(
    fpdm: FPDM,
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    leave_out: Collection[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write this project's safetensors; `load_checkpoint` gives back the same model.

    `dtype`: what to store, by default what the parts have. `leave_out`: parts by name (see
    PREFIXES), for example ("unet", "vae") for a model that shares them with a base model.
    `provenance`: what the file was made from, kept in its metadata as JSON.
    """
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {"preprocess": asdict(fpdm.preprocess)}
    for part, prefix in PREFIXES.items():
        module: nn.Module | None = getattr(fpdm, part)
        if module is None or part in leave_out:
            continue
        state = module.state_dict()
        if part == "source_tower":
            state = towers.to_file_names(state)
        tensors.update({prefix + name: x if dtype is None else x.to(dtype)
                        for name, x in state.items()})  # fmt: skip
        if isinstance(module, conv_towers.ConvPoseEncoder):
            config[part] = conv_towers.describe(module)
        elif part in _DESCRIBE:
            config[part] = _DESCRIBE[part](module)
    metadata = {"format": FORMAT, "version": VERSION, "config": json.dumps(config, sort_keys=True)}
    if provenance is not None:
        metadata["provenance"] = json.dumps(provenance, sort_keys=True)
    write_weights(path, tensors, metadata)


def build_part(part: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """One part (see PREFIXES) from its description and its tensors, in evaluation mode.

    The tensors become its parameters, no copy. Raises CheckpointError where they do not fit.
    """
    # On the meta device a module costs neither memory nor initialisation.
    with torch.device("meta"):
        module = _BUILD[part](dict(config), dict(tensors))
    if part == "source_tower":
        tensors = towers.to_installed_names(tensors, module)
    load_into(module, tensors, f"the {part.replace('_', ' ')} ({PREFIXES[part]}*)")
    return module.eval()


def _is_part(name: str) -> bool:
    return name.startswith((*PREFIXES.values(), "combiner.", "img_encoder."))


def _split(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> Parts:
    """Tensors by part, with the part's own names. The double names of a file are not looked at."""
    parts = {
        part: {
            k: x if dtype is None else x.to(dtype) for k, x in with_prefix(tensors, prefix).items()
        }
        for part, prefix in PREFIXES.items()
    }
    inner = PREFIXES["class_embedding"].removeprefix(PREFIXES["unet"])
    parts["unet"] = {k: x for k, x in parts["unet"].items() if not k.startswith(inner)}
    # A buffer, not a weight, that transformers stored before 4.31.
    parts["image_tower"].pop("vision_model.embeddings.position_ids", None)
    return parts


def _description(file: Weights, path: str | Path) -> dict[str, Any]:
    """The file's own description of its parts, empty for a released file."""
    kind = file.metadata.get("format")
    if kind in (None, "pt"):
        return {}
    if kind != FORMAT or file.metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} says it is {kind} version {file.metadata.get('version')}, expected {FORMAT} "
            f"version {VERSION}. Choose an FPDM file, or update this package."
        )
    try:
        return dict(json.loads(file.metadata["config"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} has no readable description in its metadata ({error!r}). Download it again."
        ) from error


def _read_stage_1(path: str | Path, dtype: torch.dtype | None) -> tuple[Parts, dict[str, Any]]:
    """The fusion model of a file, whose names may have stage 2's prefix or none."""
    file = read_weights(path, _is_part)
    parts = _split(
        {k if k.startswith("fusion_model.") else f"fusion_model.{k}": x
         for k, x in file.tensors.items()}, dtype
    )  # fmt: skip
    found = {part: parts[part] for part in _STAGE_1_PARTS}
    if not all(found.values()):
        raise CheckpointError(
            f"{path} holds no FPDM fusion model (combiner.* and img_encoder.*). "
            "Choose stage 1's checkpoint (last.ckpt), or none."
        )
    description = _description(file, path)
    return found, {k: v for k, v in description.items() if k == "image_tower"}


def _complete(
    description: dict[str, Any], parts: Parts, given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A description of every part that is there: given values, else the file's, else guesses."""
    guesses: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Any]]] = {
        "unet": layout.guess_unet,
        "image_tower": layout.guess_image_tower,
        "source_tower": layout.guess_source_tower,
        "vae": layout.guess_vae,
    }
    complete = {
        part: {**(description.get(part) or guess(parts[part])), **given.get(part, {})}
        for part, guess in guesses.items()
        if parts[part]
    }
    for part in ("pose_encoder", "transport"):
        if part in description:
            complete[part] = description[part]
    preprocess = dict(description.get("preprocess", asdict(RELEASED)))
    if "image_tower" in complete and "preprocess" not in description:
        preprocess["embed_size"] = [complete["image_tower"]["image_size"]] * 2
    preprocess.update(given.get("preprocess", {}))
    complete["preprocess"] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in preprocess.items()
    }
    return complete


def _build(
    parts: Parts,
    config: dict[str, Any],
    base_unet: UNet2DConditionModel | None,
) -> FPDM:
    built: dict[str, Any] = {
        part: build_part(part, config.get(part, {}), parts[part]) for part in _BUILD if parts[part]
    }
    built.setdefault("unet", base_unet)
    fpdm = FPDM(**built, preprocess=FPDMPreprocess(**config["preprocess"]))
    fpdm.training = False  # not eval(): a shared UNet keeps its mode
    return fpdm


# How each part is made from its description and, for FPDM's own networks, from its tensors.
_BUILD: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], nn.Module]] = {
    "source_projection": lambda _, x: SourceProjection(*layout.two_layer_sizes(x)),
    "pose_encoder": lambda config, x: (
        conv_towers.build_pose_encoder(config)
        if config
        else PoseEncoder(*layout.pose_encoder_sizes(x))
    ),
    "class_embedding": lambda _, x: ClassEmbedding(*layout.two_layer_sizes(x)),
    "combiner": lambda _, x: Combiner(*layout.combiner_sizes(x)),
    "unet": lambda config, _: from_config(
        UNet2DConditionModel, {**config, "class_embed_type": "identity"}
    ),
    "image_tower": lambda config, _: towers.build_image_tower(config),
    "source_tower": lambda config, _: towers.build_source_tower(config),
    "vae": lambda config, _: from_config(AutoencoderKL, config),
    "transport": lambda config, _: transport.build_transport(config),
}


_DESCRIBE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "unet": constructor_arguments,
    "image_tower": towers.describe_image_tower,
    "source_tower": towers.describe_source_tower,
    "vae": constructor_arguments,
    "transport": transport.describe,
}
