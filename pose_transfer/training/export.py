# SPDX-License-Identifier: GPL-3.0-or-later
"""From training checkpoints to the shipped weight files, each with its provenance."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ..demo.architecture import EMBED_SIZE, IMAGE_SIZE, TEXT_ENCODER, UNET
from ..fpdm import FPDM, FPDMPreprocess, save_checkpoint
from ..weights import write_weights
from .autoencoder import TrainableAutoencoder
from .diffusion import VOCABULARY, DemoDiffusion
from .fusion import FusionModel

BASE_FILE, FPDM_FILE = "mannequin_base.safetensors", "mannequin_fpdm.safetensors"


_TAESD_WIDTH = 64
_BLOCK_CONVOLUTIONS = ("conv.0", "conv.2", "conv.4")
_ENCODER_BLOCKS = (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)
_DECODER_BLOCKS = (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)


def taesd_tensors(autoencoder: TrainableAutoencoder, mean: float, std: float) -> dict[str, Tensor]:
    """The narrow autoencoder as the host's TAESD; latents outside get mean 0 and deviation 1.

    Missing channels become zeros and missing blocks identities (a block is relu(branch + x), and x
    is not negative there). The host computes `encode(x) / vae_scale + vae_shift` and
    `decode((z - vae_shift) * vae_scale)`.
    """
    out = {"vae_scale": torch.tensor(std), "vae_shift": torch.tensor(-mean / std)}
    for name, part, blocks in (
        ("taesd_encoder", autoencoder.encoder, _ENCODER_BLOCKS),
        ("taesd_decoder", autoencoder.decoder, _DECODER_BLOCKS),
    ):
        for block in blocks:
            for convolution in _BLOCK_CONVOLUTIONS:
                shape = (_TAESD_WIDTH, _TAESD_WIDTH, 3, 3)
                out[f"{name}.{block}.{convolution}.weight"] = torch.zeros(shape)
                out[f"{name}.{block}.{convolution}.bias"] = torch.zeros(_TAESD_WIDTH)
        for key, value in part.state_dict().items():
            out[f"{name}.{key}"] = _widened(value)
    return out


def _widened(value: Tensor) -> Tensor:
    """Zero channels up to TAESD's width, except for those of pictures and latents."""
    channels = [n if n in (3, UNET["in_channels"]) else _TAESD_WIDTH for n in value.shape[:2]]
    out = value.new_zeros((*channels, *value.shape[2:]))
    out[tuple(slice(n) for n in value.shape)] = value
    return out


def text_encoder_tensors(model: nn.Module) -> dict[str, Tensor]:
    """CLIPTextModel's names with the `text_model.` prefix of transformers 4, and `token_ids`."""
    out = {}
    for name, value in model.state_dict().items():
        if not name.endswith("position_ids"):
            out["text_model." + name.removeprefix("text_model.")] = value
    out["token_ids"] = torch.tensor([*VOCABULARY, -1])
    return out


def assemble_fpdm(diffusion: DemoDiffusion, fusion: FusionModel, source_tower: nn.Module) -> FPDM:
    """The whole FPDM of the mannequin world, around the trained UNet."""
    part = diffusion.fpdm
    return FPDM(
        part.source_projection,
        part.pose_encoder,
        part.class_embedding,
        combiner=fusion.combiner,
        unet=part.unet,
        image_tower=fusion.tower,
        source_tower=source_tower,
        preprocess=FPDMPreprocess(
            source_size=IMAGE_SIZE,
            embed_size=EMBED_SIZE,
        ),
        transport=part.transport,
    ).eval()


@torch.no_grad()
def fold_empty_fusion(fpdm: FPDM) -> None:
    """Move what an empty fusion embedding adds to the time embedding into the UNet, in place.

    The network computes the same as before, and the UNet alone is what it was in text steps, where
    the fusion embedding is zero: the base has no class embedding that could add it.
    """
    assert fpdm.unet is not None
    embedding = fpdm.class_embedding.eval()
    bias = embedding.net.get_parameter("3.bias")
    empty = embedding(bias.new_zeros(1, embedding.in_dim))[0]
    fpdm.unet.time_embedding.linear_2.bias.add_(empty)
    bias.sub_(empty)


def write_base(
    folder: Path,
    diffusion: DemoDiffusion,
    autoencoder: TrainableAutoencoder,
    latent_mean: float,
    latent_std: float,
) -> Path:
    """`mannequin_base.safetensors` in fp16."""
    tensors: dict[str, Tensor] = {}
    unet = diffusion.fpdm.unet
    assert unet is not None
    for name, value in unet.state_dict().items():
        tensors[f"unet.{name}"] = value.half()
    for name, value in text_encoder_tensors(diffusion.text.model).items():
        tensors[f"text_encoder.{name}"] = value.half() if value.is_floating_point() else value
    for name, value in taesd_tensors(autoencoder, latent_mean, latent_std).items():
        # The two scalars place the latents: they keep their precision.
        tensors[f"vae.{name}"] = value.float() if value.dim() == 0 else value.half()
    config = {"unet": UNET, "text_encoder": TEXT_ENCODER}
    metadata = {"format": "pose_transfer.mannequin", "version": "1", "config": json.dumps(config)}
    path = folder / BASE_FILE
    write_weights(path, tensors, metadata)
    return path


def write_fpdm(folder: Path, fpdm: FPDM) -> Path:
    """`mannequin_fpdm.safetensors` in fp16, without the UNet that it shares with the base."""
    path = folder / FPDM_FILE
    save_checkpoint(fpdm, path, dtype=torch.float16, leave_out=("unet", "vae"))
    return path


def write_provenance(path: Path, facts: dict[str, Any]) -> None:
    """`<file>.json` beside a weight file: what made it, and its checksum."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout.strip()
    hardware = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    )
    record = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "commit": commit or "unknown",
        "hardware": hardware,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **facts,
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
