# SPDX-License-Identifier: GPL-3.0-or-later
"""TruePose on a user's pictures: SourceNet and TargetNet from any diffusers UNet of SD's kind.

[P] marks what the paper states, [D] what it leaves open; see `pose_transfer.truepose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ...errors import CheckpointError
from ...evaluation.sampling import scheduler_for
from ...fpdm import FPDMPreprocess
from ...pose import draw
from ...truepose import context_regions, limb_priors, region_crops
from ...truepose.siamese import PairRegions
from ...weights import fingerprint
from .feed import Batch, stacked
from .figures import panel
from .latents import Latents, decoded
from .layouts import Pair
from .parts import NOISE_LEVELS, clip_tower, embed_size
from .regions import CELL, Regions, load_parser
from .settings import MAY_CHANGE, DataSettings, TrainingSettings, require_shares
from .task import Rows
from .terms import content
from .truepose_nets import new_pair, read_pair
from .views import View

_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class TruePoseTraining(TrainingSettings):
    """[D] The paper does not give its values."""

    epochs: float = field(default=50.0, metadata=MAY_CHANGE)
    batch: int = 64
    # Samples do not meet each other, so the number of parts is only memory.
    accumulation: int = field(default=4, metadata=MAY_CHANGE)
    learning_rate: float = 5e-5
    warm_up_epochs: float = 1.0
    gradient_checkpointing: bool = field(default=True, metadata=MAY_CHANGE)


@dataclass(frozen=True)
class PairDrop:
    """How often a sample goes without: all conditions, as guidance needs it; else, each on its own,
    the source's features, the CLIP tokens, the target's regions, the source's pose."""

    everything: float = 0.1
    source: float = 0.1
    context: float = 0.1
    regions: float = 0.2
    source_pose: float = 0.15

    def __post_init__(self) -> None:
        require_shares(
            everything=self.everything, source=self.source, context=self.context,
            regions=self.regions, source_pose=self.source_pose,
        )  # fmt: skip


@dataclass(frozen=True)
class TruePoseModel:
    """Where the networks come from, and what of the method is used."""

    image_tower: Path
    """A transformers folder with a CLIP that has a projection: whose embeddings CAA is made of."""
    parser: Path
    """A folder with segformer_b2_clothes, or parsing_atr.onnx or parsing_lip.onnx."""
    base: Path | None = None
    """A diffusers folder of the SD 1 or SD 2 family: unet, vae, scheduler."""
    truepose: Path | None = None
    """A pair that this command wrote, to be trained further, in the place of `base`."""
    source_net: Literal["shared", "own"] = "shared"
    """[D] Whether SourceNet shares TargetNet's weights or starts as a copy of them."""
    tokens: int = 4
    """[D] Context tokens of the CLIP embedding of a picture."""
    region_tokens: bool = False
    """[D] The region-wise form of CAA: each region's crop gives tokens of its own besides."""
    alignment: float = 0.1
    """[D] Weight of the loss that pulls the nets' attention to the tokens together; 0: without."""
    drop: PairDrop = field(default_factory=PairDrop)
    noise_offset: float = 0.0
    """Deviation of the noise that all cells of a channel share."""
    sheet_steps: int = field(default=20, metadata=MAY_CHANGE)
    guidance: float = field(default=2.0, metadata=MAY_CHANGE)
    """Sampling steps and guidance of the sheets."""

    def __post_init__(self) -> None:
        if (self.base is None) == (self.truepose is None):
            raise ValueError("give either 'base' or 'truepose', where the UNet comes from.")
        if self.tokens < 1 or self.sheet_steps < 1:
            raise ValueError("tokens and sheet_steps must be 1 or more.")
        if self.noise_offset < 0 or self.alignment < 0:
            raise ValueError("noise_offset and alignment must not be negative.")


@dataclass(frozen=True)
class TruePoseSettings:
    data: DataSettings
    training: TruePoseTraining
    model: TruePoseModel


@dataclass(frozen=True)
class TruePoseInputs:
    """A sample's latents, regions and conditions, and everything random about its step."""

    preprocess: FPDMPreprocess
    latents: Latents
    regions: Regions
    latent_scale: float
    model: TruePoseModel

    def __call__(self, view: View) -> Batch:
        rng, drop = view.generator, self.model.drop
        source_path = view.pair.source.path
        clean = self.latents.draw(view.pair.target.path, view.flipped, rng) * self.latent_scale
        mean, _ = self.latents.read(source_path, view.flipped).chunk(2)
        noise = torch.randn(clean.shape, generator=rng)
        noise = noise + self.model.noise_offset * torch.randn(len(noise), 1, 1, generator=rng)
        regions = self.regions.read(source_path, view.flipped)
        pictures = [view.source]
        if self.model.region_tokens:
            pictures += region_crops(view.source, regions)
        height, width = view.pose.height, view.pose.width
        source_pose = view.source_pose()
        some, *chances = torch.rand(5, generator=rng).unbind()
        rates = (drop.source, drop.context, drop.regions, drop.source_pose)
        kept = [float(chance >= rate) for chance, rate in zip(chances, rates, strict=True)]
        keep_source, keep_context, keep_regions, keep_source_pose = kept
        guided = float(some >= drop.everything)
        return {
            "embed": torch.cat([self.preprocess.embed_pixels(x) for x in pictures]),
            "source": mean * self.latent_scale,
            "clean": clean,
            "noise": noise,
            "t": torch.randint(NOISE_LEVELS["num_train_timesteps"], (), generator=rng),
            "pose": view.pose_map[0].movedim(-1, 0),  # HWC -> CHW
            "source_pose": (
                torch.zeros(3, height, width)
                if source_pose is None
                else torch.from_numpy(draw(source_pose, height, width, "fpdm")).movedim(-1, 0) / 255
            ),
            "source_regions": regions,
            "target_regions": torch.from_numpy(
                limb_priors(view.pose, height // CELL, width // CELL)
            ),
            "keep": torch.tensor(
                [guided * keep_context, guided, keep_source_pose * (source_pose is not None)]
            ),
            "keep_source": torch.tensor(guided * keep_source),
            "beta": torch.tensor(keep_regions),
        }


class TruePoseTask:
    """The pair in training; CLIP, the parser and the autoencoder are frozen."""

    columns: tuple[str, ...] = ("source", "pose", "target", "generated")

    def __init__(
        self, settings: TruePoseSettings, accelerator: Accelerator, pairs: Sequence[Pair]
    ) -> None:
        self.settings = settings
        self.accelerator = accelerator
        model, data, output = settings.model, settings.data, settings.training.output
        self.tower = clip_tower(model.image_tower).requires_grad_(False).eval()
        width = self.tower.config.projection_dim
        aligned = model.alignment > 0
        if model.base is not None:
            own = model.source_net == "own"
            self.pair = new_pair(model.base, width, model.tokens, own, aligned)
        else:
            assert model.truepose is not None, "the settings ask for one of both"
            self.pair = read_pair(model.truepose, width, aligned)
            tokens, own = self.pair.nets.image_tokens.tokens, self.pair.nets.source_unet is not None
            if (tokens, own) != (model.tokens, model.source_net == "own"):
                raise CheckpointError(
                    f"model.truepose: {model.truepose} has {tokens} tokens and a SourceNet that is "
                    f"{'its own' if own else 'shared'}. Set model.tokens to {tokens} and "
                    f"model.source_net to {'own' if own else 'shared'}."
                )
        self.module = nets = self.pair.nets
        self.vae = self.pair.vae.requires_grad_(False)
        if settings.training.gradient_checkpointing:
            nets.unet.enable_gradient_checkpointing()
            if nets.source_unet is not None:
                nets.source_unet.enable_gradient_checkpointing()
        size = data.height, data.width
        both = [(x, pair.where) for pair in pairs for x in (pair.source, pair.target)]
        flips = (False, True) if data.flip else (False,)
        latents = Latents(output / "latents", fingerprint(self.vae.state_dict()), *size)
        latents.fill(both, flips, self.vae, accelerator, data.workers)
        regions = Regions(output / "regions", content(model.parser), *size)
        # A target is a source, too, where `identity` puts it into that place.
        regions.fill(both, load_parser(model.parser), accelerator)
        self.latent_scale = self.vae.config["scaling_factor"]
        preprocess = FPDMPreprocess(embed_size=embed_size(self.tower))
        self.inputs = TruePoseInputs(preprocess, latents, regions, self.latent_scale, model)
        self.tower.to(accelerator.device)
        signal = DDPMScheduler(**NOISE_LEVELS).alphas_cumprod.to(accelerator.device)
        self.signal, self.noise = signal.sqrt(), (1 - signal).sqrt()

    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean square error of what the UNet predicts, v or the noise, and the alignment loss."""
        t, clean, noise = batch["t"], batch["clean"], batch["noise"]
        a, s = self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)
        predicted, alignment = self._predict(module, a * clean + s * noise, t, batch)
        v = a * noise - s * clean
        wanted = v if self.pair.prediction == "v_prediction" else noise
        error = nn.functional.mse_loss(predicted.float(), wanted)
        if not self.settings.model.alignment:
            return error, {}
        return error + self.settings.model.alignment * alignment, {
            "prediction": error, "alignment": alignment,
        }  # fmt: skip

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
        """The pair with its autoencoder: all that Load TruePose needs."""
        self.pair.save(path)

    def _predict(
        self, module: nn.Module, noisy: Tensor, t: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        samples, pictures = batch["embed"].shape[:2]
        with torch.no_grad():
            embeds = self.tower(batch["embed"].flatten(0, 1)).image_embeds
        tokens = self.settings.model.tokens
        owners = context_regions(tokens).to(noisy.device) if pictures > 1 else None
        regions = PairRegions(
            batch["source_regions"], batch["target_regions"], batch["keep_source"], batch["beta"],
            context=owners,
        )  # fmt: skip
        return module(
            noisy, t, batch["source"], embeds.unflatten(0, (samples, pictures)).mT,
            batch["source_pose"], batch["pose"], regions, batch["keep"],
        )  # fmt: skip

    def _batch(self, views: Sequence[View]) -> Batch:
        """With all conditions; a source's pose only where it is known."""
        none = PairDrop(0.0, 0.0, 0.0, 0.0, 0.0)
        inputs = replace(self.inputs, model=replace(self.settings.model, drop=none))
        fresh = (torch.Generator().manual_seed(view.generator.initial_seed()) for view in views)
        batch = stacked(
            [inputs(replace(v, generator=g)) for v, g in zip(views, fresh, strict=True)]
        )
        return {name: x.to(self.accelerator.device) for name, x in batch.items()}

    def _generate(self, module: nn.Module, batch: Batch) -> Tensor:
        """Pictures (B, H, W, 3) in [0, 1]: DDIM from the batch's noise, guided in two passes."""
        model = self.settings.model
        levels = {**NOISE_LEVELS, "prediction_type": self.pair.prediction, "clip_sample": False}
        scheduler = scheduler_for(model.sheet_steps, levels)
        both = {name: torch.cat([x, x]) for name, x in batch.items()}
        latents = batch["noise"]
        count = len(latents)
        for name in ("keep", "keep_source"):
            both[name][:count] = 0  # the first half knows nothing
        for t in scheduler.timesteps:
            # Through the wrapper and its forward, which gathers what is spread over processes.
            times = torch.full((2 * count,), int(t), device=latents.device)
            predicted, _ = self._predict(module, torch.cat([latents] * 2), times, both)
            nothing, everything = predicted.float().chunk(2)
            guided = nothing + model.guidance * (everything - nothing)
            latents = scheduler.step(guided, int(t), latents, eta=0.0, return_dict=False)[0]
        return decoded(self.vae, latents / self.latent_scale)
