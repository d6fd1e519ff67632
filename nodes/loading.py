# SPDX-License-Identifier: GPL-3.0-or-later
"""From weight files to what the loader nodes put out, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from ..pose_transfer.demo import models as demo_models
from ..pose_transfer.demo.architecture import SCHEDULER
from ..pose_transfer.errors import CheckpointError
from ..pose_transfer.fpdm import FPDM, load_checkpoint, save_checkpoint
from ..pose_transfer.fpdm.checkpoint import build_part
from ..pose_transfer.fpdm.convert import DTYPES, with_base
from . import host, stock_models
from .once import load_once
from .patches.control import pose_control
from .sockets import FPDMModel

# Stable Diffusion's own, for a checkpoint without an autoencoder that could tell.
SD_LATENT_SCALE = 0.18215


@dataclass(frozen=True)
class DemoModels:
    """The embedded models as the host's MODEL, CLIP and VAE, the FPDM that steers them, and its
    pose encoder alone as the host's CONTROL_NET."""

    model: Any
    clip: Any
    vae: Any
    fpdm: FPDMModel
    control_net: Any


def load_demo() -> DemoModels:
    """The embedded models, read once for as long as their files stay the same."""
    return load_once(_load_demo, Path(demo_models.BASE_WEIGHTS), demo_models.require_fpdm_weights())


def _load_demo(base_path: Path, fpdm_path: Path) -> DemoModels:
    base = demo_models.load_base(base_path)
    vae = stock_models.build_tiny_vae(base.vae)
    fpdm = demo_models.load_fpdm(fpdm_path)
    return DemoModels(
        model=stock_models.build_model(
            base.unet,
            base.unet_config,
            prediction=SCHEDULER["prediction_type"],
            latent_format=stock_models.LatentFormat(
                1.0, base.unet_config["in_channels"], stock_models.preview_factors(vae)
            ),
            # Small enough to run exactly; half precision would gain nothing.
            dtypes=(torch.float32,),
        ),
        clip=stock_models.build_clip(base.text_encoder, base.text_config),
        vae=vae,
        fpdm=_payload(fpdm, "mannequin demo"),
        control_net=pose_control(fpdm.pose_encoder),
    )


def load_fpdm(
    path: Path, fusion_path: Path | None = None, vae: Any | None = None
) -> tuple[Any, FPDMModel, Any]:
    """MODEL, FPDM_MODEL and VAE of a checkpoint; the FPDM keeps neither UNet nor autoencoder.

    `fusion_path`: stage 1's file; `vae`: taken in place of the checkpoint's. Weights stay mapped
    into memory as the files store them: the UNet's until the host copies them, for good where it
    computes in their dtype, and FPDM's own networks' until they are first used.
    """
    fpdm = load_checkpoint(path, fusion_path, dtype=None)
    if fpdm.unet is None:
        raise CheckpointError(
            f"{path} holds no UNet (sd_model.unet.*), so there is no MODEL to steer. Choose the "
            "checkpoint of FPDM's second stage."
        )
    unet, own_vae = fpdm.unet, fpdm.vae
    fpdm.unet = fpdm.vae = None
    model = stock_models.build_model(
        unet.state_dict(),
        unet.config,
        prediction=fpdm.preprocess.prediction_type,
        latent_format=stock_models.LatentFormat(
            _latent_scale(fpdm, own_vae), unet.config["in_channels"]
        ),
        take_tensors=True,
    )
    if vae is None:
        vae = (
            host.absent(
                f"{path.name} holds no autoencoder. Connect Stable Diffusion's (Load VAE) to the "
                "vae input of Load FPDM."
            )
            if own_vae is None
            else stock_models.build_vae(own_vae.state_dict(), own_vae.config)
        )
    return model, _payload(fpdm, path.name), vae


def save_fpdm(path: Path, model: Any, fpdm: FPDMModel, vae: Any | None, dtype: str) -> None:
    """One file of what Load FPDM put out, with the LoRAs that MODEL has got since.

    `dtype`: a key of `pose_transfer.fpdm.convert.DTYPES`. Raises CheckpointError where MODEL or
    VAE cannot be FPDM's.
    """
    tensors, config = stock_models.unet_weights(model)
    unet = cast(UNet2DConditionModel, build_part("unet", config, tensors))
    autoencoder = None
    scale = model.get_model_object("latent_format").scale_factor
    if vae is not None:
        tensors, config = stock_models.vae_weights(vae)
        part = build_part("vae", {**config, "scaling_factor": scale}, tensors)
        autoencoder = cast(AutoencoderKL, part)
    try:
        whole = with_base(fpdm.fpdm, unet, autoencoder, scale)
    except ValueError as error:
        raise CheckpointError(
            f"MODEL and FPDM do not belong together: {error}. Connect those of one loader."
        ) from error
    provenance = {"made by": "Save FPDM", "from": fpdm.name, "stored as": dtype}
    save_checkpoint(whole, path, dtype=DTYPES[dtype], provenance=provenance)


def _latent_scale(fpdm: FPDM, vae: Any | None) -> float:
    if fpdm.preprocess.latent_scale is not None:
        return fpdm.preprocess.latent_scale
    return SD_LATENT_SCALE if vae is None else vae.config["scaling_factor"]


def _payload(fpdm: FPDM, name: str) -> FPDMModel:
    return FPDMModel(name, host.managed(fpdm))
