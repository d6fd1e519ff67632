# SPDX-License-Identifier: GPL-3.0-or-later
"""From weight files to what the loader nodes put out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..pose_transfer.demo import models as demo_models
from ..pose_transfer.demo.architecture import SCHEDULER
from ..pose_transfer.errors import CheckpointError
from ..pose_transfer.fpdm import FPDM, load_checkpoint
from . import host, stock_models
from .once import load_once
from .sockets import FPDMModel

# Stable Diffusion's own, for a checkpoint without an autoencoder that could tell.
SD_LATENT_SCALE = 0.18215


@dataclass(frozen=True)
class DemoModels:
    """The embedded models as the host's MODEL, CLIP and VAE, and the FPDM that steers them."""

    model: Any
    clip: Any
    vae: Any
    fpdm: FPDMModel


def load_demo() -> DemoModels:
    """The embedded models, read once for as long as their files stay the same."""
    return load_once(_load_demo, Path(demo_models.BASE_WEIGHTS), demo_models.require_fpdm_weights())


def _load_demo(base_path: Path, fpdm_path: Path) -> DemoModels:
    base = demo_models.load_base(base_path)
    vae = stock_models.build_tiny_vae(base.vae)
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
        fpdm=_payload(demo_models.load_fpdm(fpdm_path), "mannequin demo"),
    )


def load_fpdm(path: Path) -> tuple[Any, FPDMModel, Any]:
    """MODEL, FPDM_MODEL and VAE of a checkpoint; the FPDM keeps neither UNet nor autoencoder."""
    fpdm = load_checkpoint(path)
    if fpdm.unet is None:
        raise CheckpointError(
            f"{path} holds no UNet (sd_model.unet.*), so there is no MODEL to steer. Choose the "
            "checkpoint of FPDM's second stage."
        )
    unet, vae = fpdm.unet, fpdm.vae
    fpdm.unet = fpdm.vae = None
    scale = SD_LATENT_SCALE if vae is None else vae.config["scaling_factor"]
    model = stock_models.build_model(
        unet.state_dict(),
        unet.config,
        prediction=fpdm.preprocess.prediction_type,
        latent_format=stock_models.LatentFormat(scale, unet.config["in_channels"]),
    )
    stock_vae = (
        host.absent(f"{path.name} holds no autoencoder. Load Stable Diffusion's with Load VAE.")
        if vae is None
        else stock_models.build_vae(vae.state_dict(), vae.config)
    )
    return model, _payload(fpdm, path.name), stock_vae


def _payload(fpdm: FPDM, name: str) -> FPDMModel:
    return FPDMModel(name, host.managed(fpdm.float()))
