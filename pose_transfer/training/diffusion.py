# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's UNet, trained on both of its uses: FPDM's three conditions, and text.

One UNet serves the base and FPDM, as the weights have to stay small: in a text step the context is
the caption's embedding, the fusion embedding is zero and half of the samples see a pose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from ..demo.architecture import (
    CLASS_EMBEDDING,
    POSE_ENCODER,
    SCHEDULER,
    SOURCE_PROJECTION,
    TEXT_ENCODER,
    TRANSPORT,
    UNET,
)
from ..fpdm import FPDM
from ..fpdm.conv_towers import build_pose_encoder
from ..fpdm.modules import ClassEmbedding, SourceProjection
from ..fpdm.transport import build_transport
from ..mannequin import LABELS
from ..mannequin.vocabulary import BEGIN, END, TOKEN_IDS
from .batches import Batches
from .correspondence import Correspondence, FirstBlockTask, TaughtAttention
from .settings import DemoSettings
from .towers import place_loss

VOCABULARY = (BEGIN, END, *sorted(TOKEN_IDS.values()))
"""CLIP tokens that have a row of their own; one more row stands for every other token."""

_FACE = LABELS.index("face")
_SEEN = (50, 750)
"""Timesteps of `DiffusionTask.predicted`."""


Fuse = Callable[[Tensor, Tensor], Tensor]
"""(source, target) sample numbers (B,) -> what goes into the fusion slot, (B, E)."""

Carry = Callable[[Tensor, Tensor], Tensor]
"""(source, target) sample numbers (B,) -> `SourceTransport.carry` of them, (B, 4, 64, 48)."""


class TextEncoder(nn.Module):
    """A CLIP text model over the captions' vocabulary: CLIP token numbers in, states out."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        rows = len(VOCABULARY) + 1
        compact = {**TEXT_ENCODER, "vocab_size": rows, "bos_token_id": 0, "eos_token_id": 1,
                   "pad_token_id": 1}  # fmt: skip
        self.model = CLIPTextModel(CLIPTextConfig(**compact))
        table = torch.full((TEXT_ENCODER["vocab_size"],), rows - 1)
        table[torch.tensor(VOCABULARY)] = torch.arange(rows - 1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 77) CLIP token numbers -> (B, 77, D)."""
        return self.model(self.table[tokens]).last_hidden_state


class DemoDiffusion(nn.Module):
    """FPDM's second stage and the text encoder around the shared UNet."""

    def __init__(self) -> None:
        super().__init__()
        self.fpdm = FPDM(
            SourceProjection(*SOURCE_PROJECTION.values(), dropout=0.0),
            build_pose_encoder(POSE_ENCODER),
            ClassEmbedding(*CLASS_EMBEDDING.values(), dropout=0.0),
            unet=UNet2DConditionModel(**UNET, class_embed_type="identity"),
            transport=build_transport(TRANSPORT),
        )
        self.text = TextEncoder()

    def forward(
        self,
        latents: Tensor,
        t: Tensor,
        source: Tensor,
        pose: Tensor,
        fusion: Tensor,
        keep: Tensor,
        carried: Tensor | None = None,
    ) -> Tensor:
        """Prediction for noisy latents.

        `source` is the source tower's states or CLIP tokens, `pose` the pose encoder's states;
        `keep` (3, B): which samples keep source, pose and fusion embedding; `carried`: what
        `SourceTransport.carry` makes of source and pose.
        """
        if source.dtype == torch.int64:
            context = self.text(source)
        else:
            context = self.fpdm.source_tokens(source) * keep[0].view(-1, 1, 1)
        features = self.fpdm.pose_encoder.conv_out(pose) * keep[1].view(-1, 1, 1, 1)
        if carried is not None:
            assert self.fpdm.transport is not None
            both = (keep[0] * keep[1]).view(-1, 1, 1, 1)
            features = features + self.fpdm.transport.features(carried) * both
        return self.fpdm.predict_noise(latents, t, context, features, fusion * keep[2].view(-1, 1))


def compile_blocks(unet: UNet2DConditionModel) -> None:
    """Compile the UNet's blocks; the UNet itself stays as it is, with its hook for the pose."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        block.compile(dynamic=False)


class DiffusionTask:
    """Batches and loss of the second stage.

    `latents` (N, C, 32, 24): the world's pictures, encoded; `states(index)`: the source tower's
    states of samples; `poses(index)`: the pose encoder's states of their pose maps;
    `fuse(source, target)`: the frozen first stage's embedding for two batches of sample numbers;
    `carry`: the source's colours at the target's places; `taught`: the UNet's attentions that learn
    what `correspondence` says.
    """

    def __init__(
        self,
        data: Batches,
        latents: Tensor,
        states: Callable[[Tensor], Tensor],
        poses: Callable[[Tensor], Tensor],
        fuse: Fuse,
        settings: DemoSettings,
        carry: Carry | None = None,
        taught: Sequence[TaughtAttention] = (),
        correspondence: Correspondence | None = None,
    ) -> None:
        self.data = data
        self.latents = latents
        self.states = states
        self.poses = poses
        self.fuse = fuse
        self.settings = settings
        self.carry = carry
        self.taught = taught
        self.correspondence = correspondence
        alphas = DDPMScheduler(**SCHEDULER).alphas_cumprod.to(data.device)
        self.signal, self.noise = alphas.sqrt(), (1 - alphas).sqrt()

    def _loss(self, prediction: Tensor, clean: Tensor, noise: Tensor, t: Tensor, weight: Tensor):
        """v-prediction, each cell with its weight (B, 1, h, w)."""
        a, s = self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)
        wanted = a * noise - s * clean
        error = (prediction.float() - wanted).square() * weight
        return error.mean() / weight.mean()

    def __call__(
        self, module: nn.Module, batch: int, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        settings, device = self.settings, self.data.device
        text_every = round(1.0 / settings.text_share) if settings.text_share else 0
        is_text = bool(text_every) and step % text_every == text_every - 1
        shared = settings.targets_per_source
        source_index = self.data.draw(batch // shared, generator)
        many = source_index.repeat_interleave(shared)
        index = self.data.partners(many, generator)
        clean = self.latents[index.to(self.latents.device)].to(device).float()
        t = torch.randint(len(self.signal), (len(index),), device=device, generator=generator)
        noise = torch.randn(clean.shape, device=device, generator=generator)
        a, s = self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)
        noisy = a * clean + s * noise
        weight = self._cell_weights(index)
        pose = self.poses(index)
        chance = torch.rand((2, len(index)), device=device, generator=generator)
        carried = None
        if is_text:
            tokens = self.data.labels.tokens[self.data.identities(index)].clone()
            tokens[chance[0] < 0.1, 1:] = END
            source = tokens
            fusion = torch.zeros((len(index), CLASS_EMBEDDING["in"]), device=device)
            keep = torch.stack([torch.ones_like(t), chance[1] < 0.5, torch.zeros_like(t)])
        else:
            with torch.no_grad():
                source = self.states(source_index).repeat_interleave(shared, 0)
                fusion = self.fuse(many, index)
                carried = self.carry(many, index) if self.carry else None
            none = chance[0] < settings.drop_all
            pose_only = chance[0] > 1.0 - settings.drop_source
            no_fusion = chance[1] < settings.drop_fusion
            keep = torch.stack([~(none | pose_only), ~none, ~(none | pose_only | no_fusion)])
            self._tell(index, many, source, pose, keep)
        prediction = module(noisy, t, source, pose, fusion, keep.float(), carried)
        loss = self._loss(prediction, clean, noise, t, weight)
        figures = {"text" if is_text else "fpdm": loss.detach()}
        told = [taught for taught in self.taught if taught.wanted is not None]
        for taught in told:
            assert taught.loss is not None
            loss = loss + settings.attention_weight * taught.loss / len(told)
            figures["attention"] = taught.loss.detach()
            taught.wanted = taught.known = taught.loss = None
        return loss, figures

    @torch.no_grad()
    def predicted(
        self, module: DemoDiffusion, source: Tensor, index: Tensor, generator: torch.Generator
    ) -> Tensor:
        """What the network takes the clean latents (B, C, h, w) of samples `index` (B,) for.

        From one pass over noisy ones, of levels at which it already sees the picture: a stand-in
        for sampled latents. `source` (B,) are the samples that show the person.
        """
        device = self.data.device
        clean = self.latents[index.to(self.latents.device)].to(device).float()
        t = torch.randint(*_SEEN, (len(index),), device=device, generator=generator)
        noise = torch.randn(clean.shape, device=device, generator=generator)
        a, s = self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)
        noisy = a * clean + s * noise
        keep = torch.ones(3, len(index), device=device)
        carried = self.carry(source, index) if self.carry else None
        told = (self.states(source), self.poses(index), self.fuse(source, index), keep, carried)
        return a * noisy - s * module(noisy, t, *told).float()

    def _cell_weights(self, index: Tensor) -> Tensor:
        """(B, 1, h, w): the figure counts more than the flat background, its small face most."""
        labels = self.data.rows("parsing", index)[:, None]
        weight = (labels > 0) * self.settings.foreground_weight
        weight = weight + (labels == _FACE) * self.settings.face_weight
        height, width = self.latents.shape[-2:]
        return 1.0 + F.adaptive_avg_pool2d(weight, (height, width))

    def _tell(
        self, index: Tensor, many: Tensor, source: Tensor, pose: Tensor, keep: Tensor
    ) -> None:
        """Show the attentions where to look."""
        if self.correspondence is None or not self.settings.attention_weight:
            return
        wanted, known = self.correspondence(index, many, pose, source)
        # Without a source or a pose there is nothing to find.
        known = known & keep[0, :, None].bool() & keep[1, :, None].bool()
        for taught in self.taught:
            taught.wanted, taught.known = wanted, known

    def first_block_loss(
        self, module: FirstBlockTask, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One batch for the UNet's first layers, at noise levels that hide the picture."""
        device = self.data.device
        source_index = self.data.draw(batch, generator)
        index = self.data.partners(source_index, generator)
        clean = self.latents[index.to(self.latents.device)].to(device).float()
        t = torch.randint(400, len(self.signal), (batch,), device=device, generator=generator)
        noise = torch.randn(clean.shape, device=device, generator=generator)
        a, s = self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)
        cloth = self.data.cloth(index)
        with torch.no_grad():
            states, pose = self.states(source_index), self.poses(index)
        assert self.correspondence is not None
        wanted, known = self.correspondence(index, source_index, pose, states)
        guessed, stance, attention = module(a * clean + s * noise, states, pose, wanted, known)
        labels = self.data.cell_labels(index)
        figure = (labels > 0).float()[:, None]
        parts, places = stance[:, : len(LABELS)].float(), stance[:, len(LABELS) :]
        parsing = F.cross_entropy(parts, labels)
        place, place_error = place_loss(places, cloth, figure)
        error = (guessed.float() - clean).square() * (1.0 + 2.0 * figure)
        latent = error.mean() / 2.0
        loss = latent + 0.3 * parsing + 0.4 * place + 0.15 * attention
        return loss, {
            "latent": latent, "parsing": (parts.argmax(1) == labels).float().mean(),
            "place": place_error, "attention": attention,
        }  # fmt: skip
