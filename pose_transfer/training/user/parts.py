# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the networks come from: local folders of transformers and diffusers, and FPDM files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPVisionModelWithProjection, Dinov2Model

from ...errors import CheckpointError
from ...fpdm import layout, towers
from ...fpdm.checkpoint import FORMAT, PREFIXES, VERSION, build_part
from ...fpdm.modules import Combiner
from ...fpdm.preprocess import RELEASED
from ...weights import read_weights, with_prefix, write_weights

# The noise levels of Stable Diffusion: what ComfyUI and this package assume of an FPDM file.
NOISE_LEVELS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def clip_tower(folder: Path) -> towers.ImageTower:
    """CLIP's vision tower with projection from a transformers folder."""
    return _from_folder(CLIPVisionModelWithProjection.from_pretrained, folder, "CLIP")


def dino_tower(folder: Path) -> towers.SourceTower:
    """DINOv2 from a transformers folder."""
    return _from_folder(Dinov2Model.from_pretrained, folder, "DINOv2")


def stable_diffusion(folder: Path) -> tuple[UNet2DConditionModel, AutoencoderKL, str]:
    """UNet, autoencoder and prediction type of a diffusers folder of the SD 1 or SD 2 family."""
    unet = _from_folder(UNet2DConditionModel.from_pretrained, folder, "UNet", subfolder="unet")
    vae = _from_folder(AutoencoderKL.from_pretrained, folder, "autoencoder", subfolder="vae")
    scheduler = _from_folder(
        DDPMScheduler.from_pretrained, folder, "scheduler", dtype=False, subfolder="scheduler"
    )
    found = {name: scheduler.config[name] for name in NOISE_LEVELS}
    if found != NOISE_LEVELS or scheduler.config.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            f"The scheduler of {folder} has the noise levels {found}, expected those of Stable "
            f"Diffusion, {NOISE_LEVELS}, without rescaling: an FPDM file cannot tell others."
        )
    return unet, vae, scheduler.config.prediction_type


def _from_folder(
    load: Callable[..., Any], folder: Path, what: str, dtype: bool = True, **options: Any
) -> Any:
    if not folder.is_dir():
        raise CheckpointError(f"The folder {folder}, for the {what}, does not exist.")
    if dtype:
        options["torch_dtype"] = torch.float32
    try:
        return load(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"{folder} holds no readable {what} ({' '.join(str(error).split())[:300]}). Give the "
            "folder as it was downloaded, with its config.json and *.safetensors."
        ) from error


def read_fusion(path: Path) -> tuple[Combiner, towers.ImageTower]:
    """Combiner and image tower of a stage 1 file, or of a file of both stages."""
    names = tuple(PREFIXES[part] for part in ("combiner", "image_tower"))
    file = read_weights(path, lambda name: name.startswith(names))
    combiner, tower = ({k: x.float() for k, x in with_prefix(file.tensors, n).items()}
                       for n in names)  # fmt: skip
    if not combiner or not tower:
        raise CheckpointError(
            f"{path} holds no FPDM fusion model ({' and '.join(n + '*' for n in names)}). Train "
            "one with 'python -m pose_transfer.training ipf', or choose another file."
        )
    # A buffer, not a weight, that transformers stored before 4.31.
    tower.pop("vision_model.embeddings.position_ids", None)
    try:
        described = json.loads(file.metadata.get("config", "{}")).get("image_tower")
        description = described or layout.guess_image_tower(tower)
        return (
            cast(Combiner, build_part("combiner", {}, combiner)),
            cast(towers.ImageTower, build_part("image_tower", description, tower)),
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{path} does not describe a fusion model: {error!r}.") from error


def write_fusion(path: Path, combiner: Combiner, tower: towers.ImageTower) -> None:
    """A stage 1 file: what `load_checkpoint` takes as `fusion_path`, and `read_fusion` reads."""
    description = towers.describe_image_tower(tower)
    config = {"image_tower": description, "preprocess": asdict(RELEASED)}
    config["preprocess"]["embed_size"] = embed_size(tower)
    tensors = {
        PREFIXES[part] + name: x
        for part, module in (("combiner", combiner), ("image_tower", tower))
        for name, x in module.state_dict().items()
    }
    metadata = {"format": FORMAT, "version": VERSION, "config": json.dumps(config, sort_keys=True)}
    write_weights(path, tensors, metadata)


def embed_size(tower: Any) -> tuple[int, int]:
    """Height and width of a CLIP tower's input, px."""
    return tower.config.image_size, tower.config.image_size


def set_dropout(module: nn.Module, rate: float) -> None:
    """All dropout layers inside get one rate."""
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = rate
