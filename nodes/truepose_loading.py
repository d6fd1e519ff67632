# SPDX-License-Identifier: GPL-3.0-or-later
"""From files of trained TruePose pairs to what their loader node puts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..pose_transfer.demo.architecture import UNET
from ..pose_transfer.fpdm.checkpoint import build_part
from ..pose_transfer.fpdm.conv_towers import build_image_tower
from ..pose_transfer.fpdm.preprocess import FPDMPreprocess
from ..pose_transfer.truepose import ImageTokens
from ..pose_transfer.truepose.checkpoint import TrainedPair, load_pair
from ..pose_transfer.weights import load_into
from . import host, stock_models
from .once import load_once
from .sockets import FPDMCondition, TruePoseModel
from .truepose_tokens import TOKENS_KEY

_SD_LATENT_SCALE = 0.18215
# Leffa's reference net reads the clean latent at the noise level of the current step; where it is
# run once for all steps, the authors' code takes the middle of the schedule.
_LEFFA_TIMESTEP = 500.0


class PairNetworks(nn.Module):
    """The networks besides the two UNets, on whatever device the host puts them.

    `image_tower` is None where the embedding is that of a stock CLIP vision model.
    """

    def __init__(
        self,
        image_tokens: ImageTokens,
        pose_encoder: nn.Module,
        image_tower: nn.Module | None,
        embed_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.image_tokens = image_tokens
        self.pose_encoder = pose_encoder
        self.image_tower = image_tower
        self.preprocess = FPDMPreprocess(embed_size=embed_size)

    def embed(self, source_bhwc: Tensor) -> Tensor:
        """Picture (B, H, W, 3) in [0, 1] -> its embedding (B, E), where there is a tower."""
        assert self.image_tower is not None
        pixels = self.preprocess.embed_pixels(source_bhwc)
        return self.image_tower(pixels).image_embeds


@dataclass(frozen=True)
class LoadedPair:
    """The two nets as the host's MODELs, the networks besides, the VAE."""

    target: Any
    source: Any
    networks: TruePoseModel
    vae: Any


def load_demo_pair(path: Path) -> LoadedPair:
    """The embedded pair, which works on the demo's latents."""
    return load_once(_load_demo, path)


def load(path: Path) -> LoadedPair:
    """A pair from a file, read once for as long as the file stays the same."""
    return load_once(_load, path)


def _load_demo(path: Path) -> LoadedPair:
    from ..pose_transfer.demo.truepose import load_truepose
    from .loading import load_demo

    vae = load_demo().vae
    latent_format = stock_models.LatentFormat(
        1.0, UNET["in_channels"], stock_models.preview_factors(vae)
    )
    # Small enough to run exactly, as the demo's base does.
    return _built(load_truepose(path), "mannequin demo", latent_format, vae, (torch.float32,))


def _load(path: Path) -> LoadedPair:
    pair = load_pair(path)
    channels = pair.config["source_unet" if pair.leffa else "unet"]["in_channels"]
    vae = (
        stock_models.build_vae(pair.vae, pair.config.get("vae") or _vae_config(pair.vae))
        if pair.vae
        else host.absent(f"{path.name} holds no autoencoder. Load its base's with Load VAE.")
    )
    scale = pair.config.get("latent_scale", _SD_LATENT_SCALE)
    return _built(pair, path.name, stock_models.LatentFormat(scale, channels), vae)


def _built(
    pair: TrainedPair,
    name: str,
    latent_format: Any,
    vae: Any,
    dtypes: tuple[torch.dtype, ...] = (torch.float16, torch.bfloat16, torch.float32),
) -> LoadedPair:
    from .patches.truepose_source import pair_timestep

    def net(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Any:
        return stock_models.build_model(
            tensors,
            config,
            prediction=pair.config["prediction"],
            latent_format=latent_format,
            dtypes=dtypes,
        )

    target = net(pair.target, pair.config["unet"])
    source = target
    if pair.source is not None:
        source = net(pair.source, pair.config.get("source_unet", pair.config["unet"]))
    if pair.leffa:
        target.model.set_inpaint()  # the host's own: what mask and masked image are where none is
        pair_timestep(source, _LEFFA_TIMESTEP, with_empty=True)
        return LoadedPair(target, source, TruePoseModel(name, None), vae)
    source = _posed_as_fpdm(source, pair, name)
    networks = TruePoseModel(name, host.managed(_networks(pair)))
    source.set_attachments(TOKENS_KEY, networks)
    return LoadedPair(target, source, networks, vae)


def _posed_as_fpdm(source: Any, pair: TrainedPair, name: str) -> Any:
    """The net that looks at the source, able to be told the source's pose."""
    from .patches.fpdm import apply_fpdm

    tokens = torch.zeros(1, 1, pair.config["image_tokens"]["context_width"])
    nothing = torch.zeros(1, 4 * pair.config["unet"]["block_out_channels"][0])
    return apply_fpdm(source, tokens, FPDMCondition(None, nothing, nothing), name)


def _networks(pair: TrainedPair) -> PairNetworks:
    config = {part: dict(pair.config[part]) for part in pair.parts}
    size = tuple(config.get("image_tower", {}).pop("size", (224, 224)))
    modules: dict[str, nn.Module | None] = {
        "image_tokens": ImageTokens(**config["image_tokens"]),
        "pose_encoder": build_part(
            "pose_encoder", config["pose_encoder"], dict(pair.parts["pose_encoder"])
        ),
        "image_tower": (
            build_image_tower(config["image_tower"]) if "image_tower" in config else None
        ),
    }
    for part, module in modules.items():
        if module is not None:
            named = {k: x.float() for k, x in pair.parts[part].items()}
            load_into(module, named, f"the pair's {part.replace('_', ' ')}")
    return PairNetworks(**modules, embed_size=size)  # type: ignore[arg-type]


def _vae_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Keywords of diffusers' AutoencoderKL as its tensors tell them."""
    widths = []
    while (key := f"encoder.down_blocks.{len(widths)}.resnets.0.conv1.weight") in tensors:
        widths.append(tensors[key].shape[0])
    layers = 0
    while f"encoder.down_blocks.0.resnets.{layers}.conv1.weight" in tensors:
        layers += 1
    return {
        "block_out_channels": widths,
        "latent_channels": tensors["post_quant_conv.weight"].shape[0],
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": layers,
    }
