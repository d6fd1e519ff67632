# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM's second stage on a user's pictures: the UNet under pose, source tokens and fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from ...errors import CheckpointError
from ...evaluation.sampling import scheduler_for
from ...fpdm import FPDM, FPDMPreprocess, cumulative_guidance, load_checkpoint, save_checkpoint
from ...fpdm.modules import ClassEmbedding, PoseEncoder, SourceProjection
from ...fpdm.preprocess import RELEASED
from ...fpdm.towers import ImageTower, SourceTower
from ...weights import fingerprint
from .feed import Batch, stacked
from .figures import panel
from .latents import Latents, decoded
from .layouts import Pair
from .parts import (
    NOISE_LEVELS,
    dino_tower,
    embed_size,
    read_fusion,
    set_dropout,
    stable_diffusion,
)
from .settings import MAY_CHANGE, DataSettings, TrainingSettings, require_shares
from .task import Rows
from .views import View

_BATCH = 4
_HIDDEN = 768
"""Width inside the source projection and the class embedding, as released."""


@dataclass(frozen=True, kw_only=True)
class FPDMTraining(TrainingSettings):
    """The paper's values; the released code has no weight decay here."""

    epochs: float = field(default=100.0, metadata=MAY_CHANGE)
    batch: int = 126
    # Unlike in stage 1 samples do not meet each other, so the number of parts is only memory.
    accumulation: int = field(default=3, metadata=MAY_CHANGE)
    learning_rate: float = 1e-4
    warm_up_epochs: float = 5.0
    decay_epochs: tuple[float, ...] = (50.0,)
    gradient_checkpointing: bool = field(default=True, metadata=MAY_CHANGE)


@dataclass(frozen=True)
class Drop:
    """How often a sample goes without a condition, each on its own."""

    source: float = 0.2
    pose: float = 0.2
    fusion: float = 0.2

    def __post_init__(self) -> None:
        require_shares(source=self.source, pose=self.pose, fusion=self.fusion)


@dataclass(frozen=True)
class FPDMModel:
    """Where the networks come from; what is given beside `fpdm` takes the place of its part."""

    fpdm: Path | None = None
    """An FPDM file of ours or a released one, to be trained further."""
    base: Path | None = None
    """A diffusers folder of Stable Diffusion 2.1: unet, vae, scheduler."""
    source_tower: Path | None = None
    """A transformers folder with a DINOv2."""
    fusion: Path | None = None
    """What stage 1 saved."""
    drop: Drop = field(default_factory=Drop)
    noise_offset: float = 0.1
    """Deviation of the noise that all cells of a channel share."""
    dropout: float = 0.2
    """In the source projection and the class embedding."""
    sheet_steps: int = field(default=20, metadata=MAY_CHANGE)
    source_weight: float = field(default=2.0, metadata=MAY_CHANGE)
    fusion_weight: float = field(default=2.0, metadata=MAY_CHANGE)
    """Sampling steps and guidance of the sheets."""

    def __post_init__(self) -> None:
        missing = [x for x in ("base", "source_tower", "fusion") if getattr(self, x) is None]
        if self.fpdm is None and missing:
            raise ValueError(f"without 'fpdm' it needs {', '.join(missing)}.")
        require_shares(dropout=self.dropout)
        if self.sheet_steps < 1 or self.noise_offset < 0:
            raise ValueError("sheet_steps must be 1 or more and noise_offset not negative.")


@dataclass(frozen=True)
class FPDMSettings:
    data: DataSettings
    training: FPDMTraining
    model: FPDMModel


@dataclass(frozen=True)
class FPDMInputs:
    """A sample's conditions, its latents and everything random about the diffusion step."""

    preprocess: FPDMPreprocess
    latents: Latents
    latent_scale: float
    drop: Drop
    noise_offset: float

    def __call__(self, view: View) -> Batch:
        rng = view.generator
        clean = self.latents.draw(view.pair.target.path, view.flipped, rng) * self.latent_scale
        noise = torch.randn(clean.shape, generator=rng)
        noise = noise + self.noise_offset * torch.randn(len(noise), 1, 1, generator=rng)
        rates = torch.tensor([self.drop.source, self.drop.pose, self.drop.fusion])
        return {
            "source": self.preprocess.source_pixels(view.source)[0],
            "embed_source": self.preprocess.embed_pixels(view.source)[0],
            "embed_pose": self.preprocess.embed_pose_pixels(view.pose_map)[0],
            "pose_map": view.pose_map[0].movedim(-1, 0),  # HWC -> CHW
            "clean": clean,
            "noise": noise,
            "t": torch.randint(NOISE_LEVELS["num_train_timesteps"], (), generator=rng),
            "keep": (torch.rand(3, generator=rng) >= rates).float(),
        }


class FPDMTask:
    """The second stage in training; the towers, the Combiner and the autoencoder are frozen."""

    columns: tuple[str, ...] = ("source", "pose", "target", "generated")

    def __init__(
        self, settings: FPDMSettings, accelerator: Accelerator, pairs: Sequence[Pair]
    ) -> None:
        self.settings = settings
        self.accelerator = accelerator
        self.whole = whole = assemble(settings.model)
        unet, vae = whole.unet, whole.vae
        assert unet is not None and vae is not None, "assemble gives all parts"
        # What does not learn stays out of the module: it is neither averaged nor stored.
        self.module = FPDM(
            whole.source_projection, whole.pose_encoder, whole.class_embedding, unet=unet
        ).requires_grad_(True)
        for part in (whole.combiner, whole.image_tower, whole.source_tower):
            part.requires_grad_(False).eval().to(accelerator.device)  # type: ignore[union-attr]
        if settings.training.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        vae.requires_grad_(False)
        data = settings.data
        weights = fingerprint(vae.state_dict())
        cache = Latents(settings.training.output / "latents", weights, data.height, data.width)
        flips = (False, True) if data.flip else (False,)
        targets = [(pair.target, pair.where) for pair in pairs]
        cache.fill(targets, flips, vae, accelerator, data.workers)
        self.latent_scale = whole.preprocess.latent_scale or vae.config["scaling_factor"]
        model = settings.model
        self.inputs = FPDMInputs(
            whole.preprocess, cache, self.latent_scale, model.drop, model.noise_offset
        )
        self.prediction = whole.preprocess.prediction_type
        signal = DDPMScheduler(**NOISE_LEVELS).alphas_cumprod.to(accelerator.device)
        self.signal, self.noise = signal.sqrt(), (1 - signal).sqrt()

    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean square error of what the UNet predicts: v, or the noise."""
        t, clean, noise = batch["t"], batch["clean"], batch["noise"]
        a, s = self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)
        hidden, fusion = self._conditions(batch)
        keep = batch["keep"].unbind(1)
        predicted = module(a * clean + s * noise, t, hidden, batch["pose_map"], fusion, *keep)
        wanted = a * noise - s * clean if self.prediction == "v_prediction" else noise
        return nn.functional.mse_loss(predicted.float(), wanted), {}

    def check(
        self, module: nn.Module, views: Sequence[View], shown: int
    ) -> tuple[dict[str, float], Rows]:
        """The loss under all conditions at each pair's own noise level, and generated pictures."""
        total = 0.0
        for start in range(0, len(views), _BATCH):
            batch = self._batch(views[start : start + _BATCH])
            total += self.loss(module, batch)[0].item() * len(batch["t"])
        data, rows = self.settings.data, []
        pictures = self._generate(module, self._batch(views[:shown]))
        for view, generated in zip(views, pictures, strict=False):
            row = (view.source, view.pose_map, view.target(), generated[None])
            rows.append([panel(x, data.height, data.width) for x in row])
        return {"loss": total / len(views)}, rows

    def save(self, path: Path) -> None:
        """The whole FPDM: all that Load FPDM needs."""
        save_checkpoint(self.whole, path)

    def _batch(self, views: Sequence[View]) -> Batch:
        batch = stacked([self.inputs(replace(v, generator=_fresh(v.generator))) for v in views])
        batch["keep"] = torch.ones_like(batch["keep"])
        return {name: x.to(self.accelerator.device) for name, x in batch.items()}

    def _conditions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Hidden states (B, N, C) of the source and the fusion embedding (B, E)."""
        whole = self.whole
        assert whole.source_tower is not None and whole.image_tower is not None
        with torch.no_grad():
            hidden = whole.source_tower(batch["source"]).last_hidden_state
            source = whole.image_tower(batch["embed_source"]).image_embeds
            pose = whole.image_tower(batch["embed_pose"]).image_embeds
            return hidden, whole.combine(source, pose)

    def _generate(self, module: nn.Module, batch: Batch) -> Tensor:
        """Pictures (B, H, W, 3) in [0, 1]: DDIM from the batch's noise, guided in three passes."""
        model, vae = self.settings.model, self.whole.vae
        assert vae is not None
        levels = {**NOISE_LEVELS, "prediction_type": self.prediction, "clip_sample": False}
        scheduler = scheduler_for(model.sheet_steps, levels)
        hidden, fusion = (torch.cat([x] * 3) for x in self._conditions(batch))
        pose_map = torch.cat([batch["pose_map"]] * 3)
        latents = batch["noise"]
        # Nothing; pose and source; pose, source and fusion.
        count = len(latents)
        some = torch.tensor([0.0, 1.0, 1.0], device=latents.device).repeat_interleave(count)
        last = torch.tensor([0.0, 0.0, 1.0], device=latents.device).repeat_interleave(count)
        for t in scheduler.timesteps:
            # Through the wrapper and its forward, which gathers what is spread over processes.
            times = torch.full((3 * count,), int(t), device=latents.device)
            predicted = module(
                torch.cat([latents] * 3), times, hidden, pose_map, fusion, some, some, last
            )
            nothing, source, everything = predicted.float().chunk(3)
            guided = cumulative_guidance(
                nothing, source, everything, model.source_weight, model.fusion_weight
            )
            latents = scheduler.step(guided, int(t), latents, eta=0.0, return_dict=False)[0]
        return decoded(vae, latents / self.latent_scale)


def assemble(model: FPDMModel) -> FPDM:
    """The FPDM to begin with, all parts present; new networks where no file has them."""
    parts: dict[str, Any]  # by name, each of the type that FPDM's argument has
    if model.fpdm is not None:
        start = load_checkpoint(model.fpdm)
        names = ("source_projection", "pose_encoder", "class_embedding", "combiner", "unet",
                 "image_tower", "source_tower", "vae")  # fmt: skip
        parts = {name: getattr(start, name) for name in names}
        preprocess = start.preprocess
    else:
        parts, preprocess = {}, RELEASED
    if model.base is not None:
        parts["unet"], parts["vae"], kind = stable_diffusion(model.base)
        preprocess = replace(preprocess, prediction_type=kind, latent_scale=None)
    if model.source_tower is not None:
        parts["source_tower"] = dino_tower(model.source_tower)
    if model.fusion is not None:
        parts["combiner"], parts["image_tower"] = read_fusion(model.fusion)
        if model.fpdm is None:
            preprocess = replace(preprocess, embed_size=embed_size(parts["image_tower"]))
    for name, setting in (("unet", "base"), ("vae", "base"), ("source_tower", "source_tower"),
                          ("combiner", "fusion"), ("image_tower", "fusion")):  # fmt: skip
        if parts.get(name) is None:
            raise CheckpointError(
                f"model.fpdm: {model.fpdm} has no {name.replace('_', ' ')}. Give it as "
                f"model.{setting}."
            )
    if model.fpdm is None:
        parts |= _new_networks(parts["unet"], parts["source_tower"], parts["image_tower"])
    for name in ("source_projection", "class_embedding"):
        set_dropout(parts[name], model.dropout)
    return FPDM(**parts, preprocess=preprocess)


def _new_networks(
    unet: UNet2DConditionModel, tower: SourceTower, images: ImageTower
) -> dict[str, nn.Module]:
    first = unet.config["block_out_channels"][0]
    return {
        "source_projection": SourceProjection(
            tower.config.hidden_size, _HIDDEN, unet.config["cross_attention_dim"]
        ),
        "pose_encoder": PoseEncoder(first),
        "class_embedding": ClassEmbedding(images.config.projection_dim, _HIDDEN, 4 * first),
    }


def _fresh(generator: torch.Generator) -> torch.Generator:
    """Another generator that begins where this one did: a view may be looked at many times."""
    return torch.Generator().manual_seed(generator.initial_seed())
