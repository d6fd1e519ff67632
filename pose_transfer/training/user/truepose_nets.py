# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of a TruePose pair on a user's own diffusers UNet: made, called, saved."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from ...errors import CheckpointError
from ...fpdm.checkpoint import build_part
from ...fpdm.modules import PoseEncoder
from ...fpdm.unet import constructor_arguments, pose_added
from ...libraries import from_config
from ...truepose import ImageTokens
from ...truepose.checkpoint import load_pair, save_pair
from ...truepose.siamese import PairRegions, SiamesePair, pair_alignment, unheard
from ...weights import load_into
from .parts import stable_diffusion


class PairNets(nn.Module):
    """What learns: TargetNet, SourceNet where it has weights of its own, and what they are told."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        source_unet: UNet2DConditionModel | None,
        pose_encoder: nn.Module,
        image_tokens: ImageTokens,
        aligned: bool,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.source_unet = source_unet
        self.pose_encoder = pose_encoder
        self.image_tokens = image_tokens
        self.aligned = aligned
        self.requires_grad_(True)
        if source_unet is not None:
            for parameter in unheard(source_unet, aligned):
                parameter.requires_grad_(False)
        self.pair = SiamesePair(unet, source_unet)

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        source: Tensor,
        embeds: Tensor,
        source_pose: Tensor,
        pose: Tensor,
        regions: PairRegions,
        keep: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Prediction for noisy latents (B, C, h, w), and the alignment loss.

        `source` (B, C, h, w) clean latents, `embeds` (B, E, n) of the source and, in the
        region-wise form, of its crops; `source_pose` and `pose` (B, 3, 8 h, 8 w) drawn; `keep`
        (B, 3): which samples keep context, pose and source pose.
        """
        context_kept, pose_kept, source_pose_kept = keep.unbind(1)
        tokens = self.image_tokens(embeds.mT).flatten(1, 2)  # (B, n tokens, D)
        features = self.pose_encoder(torch.cat([source_pose, pose])).chunk(2)
        with pose_added(self.pair.source_unet, features[0] * source_pose_kept.view(-1, 1, 1, 1)):
            look = self.pair.look(source, tokens, regions)
        context = tokens * context_kept.view(-1, 1, 1)
        with pose_added(self.unet, features[1] * pose_kept.view(-1, 1, 1, 1)):
            prediction, guided = self.pair.predict(noisy, t, context, look, regions)
        if not self.aligned:
            return prediction, prediction.new_zeros(())
        # Samples without context have nothing to align.
        there = context_kept.view(-1, 1, 1, 1)
        return prediction, pair_alignment(guided, replace(regions, target=regions.target * there))


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair, its base's autoencoder, and what the UNets predict, in diffusers' words."""

    nets: PairNets
    vae: AutoencoderKL
    prediction: str

    def save(self, path: Path) -> None:
        """Our own format, with the autoencoder: all that Load TruePose needs."""
        nets = self.nets
        project = nets.image_tokens.project
        config = {
            "unet": constructor_arguments(nets.unet),
            "prediction": self.prediction,
            "image_tokens": {
                "embed_width": project.in_features,
                "context_width": nets.image_tokens.norm.normalized_shape[0],
                "tokens": nets.image_tokens.tokens,
            },
            "pose_encoder": {},  # of the released FPDM's kind, which its tensors tell
            "vae": constructor_arguments(self.vae),
            "latent_scale": self.vae.config["scaling_factor"],
        }
        parts = {
            name: getattr(nets, name).state_dict() for name in ("image_tokens", "pose_encoder")
        }
        source = None if nets.source_unet is None else nets.source_unet.state_dict()
        parts["vae"] = self.vae.state_dict()
        save_pair(path, nets.unet.state_dict(), parts, _plain(config), source)


def new_pair(base: Path, embed_width: int, tokens: int, own_source: bool, aligned: bool) -> Pair:
    """A pair that begins as the UNet of a diffusers folder. Raises CheckpointError."""
    unet, vae, prediction = stable_diffusion(base)
    if unet.config["addition_embed_type"] is not None or not unet.config["cross_attention_dim"]:
        raise CheckpointError(
            f"model.base: the UNet of {base} is not of the kind of Stable Diffusion 1 or 2 (it has "
            "an added embedding, as SDXL has, or no cross-attention). Choose one that is; Guide "
            "Attention needs no training on SDXL."
        )
    nets = PairNets(
        unet,
        copy.deepcopy(unet) if own_source else None,
        PoseEncoder(unet.config["block_out_channels"][0]),
        ImageTokens(embed_width, unet.config["cross_attention_dim"], tokens),
        aligned,
    )
    return Pair(nets, vae, prediction)


def read_pair(path: Path, embed_width: int, aligned: bool) -> Pair:
    """A pair of this trainer's, to be trained further. Raises CheckpointError."""
    file = load_pair(path)
    if file.leffa or "borrows" in file.config or not file.vae or "vae" not in file.config:
        raise CheckpointError(
            f"model.truepose: {path} is no pair that this command wrote. Give one that is, or "
            "begin with 'base', a diffusers folder."
        )
    tokens = ImageTokens(**file.config["image_tokens"])
    if tokens.project.in_features != embed_width:
        raise CheckpointError(
            f"model.truepose: {path} was trained with a CLIP {tokens.project.in_features} wide, "
            f"model.image_tower is {embed_width} wide. Give the CLIP that it was trained with."
        )
    load_into(tokens, _floats(file.parts["image_tokens"]), "the pair's image tokens")
    nets = []
    for tensors, what in ((file.target, "TargetNet"), (file.source, "SourceNet")):
        net = None if tensors is None else from_config(UNet2DConditionModel, file.config["unet"])
        if net is not None and tensors is not None:
            load_into(net, _floats(tensors), f"the pair's {what}")
        nets.append(net)
    vae = from_config(AutoencoderKL, file.config["vae"])
    load_into(vae, _floats(file.vae), "the pair's autoencoder")
    encoder = build_part("pose_encoder", {}, _floats(file.parts["pose_encoder"]))
    target, source = nets
    return Pair(PairNets(target, source, encoder, tokens, aligned), vae, file.config["prediction"])


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in tensors.items()}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what JSON does not know: diffusers keeps its default types of blocks as tuples."""
    return {k: _plain(v) if isinstance(v, Mapping) else v for k, v in config.items()}
