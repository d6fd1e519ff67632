# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.training.demo`: make the demo weights from nothing.

Stages, in order: render, autoencoder, source_tower, image_tower, fusion, fusion_baseline, latents,
first_block, diffusion, decoder, export, judge. Each leaves its state in the work folder and is
skipped when it is done; a stopped one goes on where it was. Independent stages may run in processes
of their own beside each other, also while `render` is still at work. `ablation`, on demand only,
trains the second stage three more times for the benchmark.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from ..demo.architecture import EMBED_SIZE, IMAGE_SIZE
from ..evaluation.judge import save_judge, train_judge
from ..evaluation.models import save_variant
from ..fpdm.preprocess import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from ..mannequin import LABELS, PATTERNS
from . import export
from .autoencoder import TrainableAutoencoder, autoencoder_loss
from .batches import Batches, normalised
from .correspondence import FirstBlockTask, TaughtAttention, teach
from .diffusion import DemoDiffusion, DiffusionTask, Fuse, compile_blocks
from .fusion import FusionModel, fusion_loss
from .loop import train
from .settings import PRESETS, DemoSettings, StageSettings
from .towers import ImageTowerTask, SourceTowerTask, image_tower_loss, source_tower_loss
from .world import World, open_world, render_world

STAGES = (
    "render", "autoencoder", "source_tower", "image_tower", "fusion", "fusion_baseline", "latents",
    "first_block", "diffusion", "decoder", "export", "judge",
)  # fmt: skip
EXTRA_STAGES = ("ablation",)
_CROP = (160, 128)
"""Height and width of the autoencoder's training crops."""
_ENCODE_BATCH = 64


class DemoTraining:
    """The stages over one work folder."""

    def __init__(self, work: Path, settings: DemoSettings, out: Path, preset: str) -> None:
        self.work = work
        self.settings = settings
        self.out = out
        self.preset = preset
        self.accelerator = Accelerator(mixed_precision=settings.mixed_precision)
        self.device = self.accelerator.device
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        torch.manual_seed(settings.seed)

    def world(self) -> World:
        settings = self.settings
        return open_world(
            self.work / "world", "train", settings.identities, settings.poses_per_identity
        )

    def _batches(self, *resident: str, everything: bool = False) -> Batches:
        """The samples that are ready (at least the early ones), or all of them."""
        world = self.world()
        ready = world.wait_for(world.size if everything else self.settings.early_samples)
        # Stages that start early agree on their data, whatever is ready by then.
        count = ready if everything else min(self.settings.early_samples, world.size)
        return Batches(world, count, self.device, resident)

    def _second_stage(self, *resident: str) -> Batches:
        """The samples of the second stage."""
        world = self.world()
        count = min(self.settings.latent_samples or world.size, world.size)
        world.wait_for(count)
        return Batches(world, count, self.device, resident)

    def _train(self, name: str, module: nn.Module, loss, stage, until: int | None = None):
        start = time.monotonic()
        train(name, module, loss, stage, self.accelerator, self.work, self.settings.seed, until)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        return module

    def render(self) -> None:
        settings = self.settings
        render_world(self.work / "world", "train", settings.identities, settings.poses_per_identity)

    def autoencoder(self) -> TrainableAutoencoder:
        module = TrainableAutoencoder().to(memory_format=torch.channels_last)
        return self._train_autoencoder("autoencoder", module, self.settings.autoencoder)

    def decoder(self) -> TrainableAutoencoder:
        """The autoencoder with its decoder trained on, while latents stay what they are."""
        module = self.autoencoder()
        module.encoder.requires_grad_(False)
        module.probe.requires_grad_(False)
        return self._train_autoencoder("decoder", module, self.settings.decoder)

    def _train_autoencoder(
        self, name: str, module: TrainableAutoencoder, stage: StageSettings
    ) -> TrainableAutoencoder:
        if self._finished(name, stage.steps):
            return self._load(name, module)
        data = self._batches("image", "parsing")
        height, width = _CROP

        def loss(module: nn.Module, step: int, generator: torch.Generator):
            index = data.draw(stage.batch, generator)
            top, left = torch.rand(2, device=self.device, generator=generator).tolist()
            y, x = int(top * (256 - height + 1)), int(left * (192 - width + 1))
            crop = (slice(None), slice(y, y + height), slice(x, x + width))
            rows = data.rows("image", index)[crop]
            pictures = rows.permute(0, 3, 1, 2).float() / 127.5 - 1.0
            figure = (data.rows("parsing", index)[crop] > 0).float()[:, None]
            return autoencoder_loss(module, pictures, figure, generator)

        return self._train(name, module, loss, stage)

    def source_tower(self) -> SourceTowerTask:
        stage = self.settings.source_tower
        module = SourceTowerTask()
        if self._finished("source_tower", stage.steps):
            return self._load("source_tower", module)
        data = self._batches("image", "parsing", "coordinates")
        return self._train(
            "source_tower",
            module,
            lambda m, step, g: source_tower_loss(m, data, stage.batch, g),
            stage,
        )

    def image_tower(self) -> ImageTowerTask:
        stage = self.settings.image_tower
        module = ImageTowerTask()
        if self._finished("image_tower", stage.steps):
            return self._load("image_tower", module)
        data = self._batches("image", "pose_map", "keypoints", "yaw")
        return self._train(
            "image_tower",
            module,
            lambda m, step, g: image_tower_loss(m, data, stage.batch, g),
            stage,
        )

    def fusion(self, name: str = "fusion", source_enhanced: bool = True) -> FusionModel:
        stage = self.settings.fusion
        module = FusionModel(self.image_tower().tower)
        if self._finished(name, stage.steps):
            return self._load(name, module)
        data = self._batches("image", "pose_map", everything=True)
        return self._train(
            name,
            module,
            lambda m, step, g: fusion_loss(m, data, stage.batch, source_enhanced, g),
            stage,
        )

    def fusion_baseline(self) -> FusionModel:
        return self.fusion("fusion_baseline", source_enhanced=False)

    @torch.no_grad()
    def latents(self) -> dict[str, Tensor]:
        """All pictures as latents of deviation 1, and what scales them: cached on disk."""
        path = self.work / "latents.pt"
        if path.exists():
            return torch.load(path, map_location="cpu", weights_only=True)
        autoencoder = self.autoencoder()
        data = self._second_stage()
        parts = []
        for start in range(0, data.count, _ENCODE_BATCH):
            index = torch.arange(start, min(start + _ENCODE_BATCH, data.count), device=self.device)
            with self.accelerator.autocast():
                parts.append(
                    autoencoder.encode(data.pictures("image", index) * 2 - 1).float().cpu()
                )
        latents = torch.cat(parts)
        mean, std = latents.mean(), latents.std()
        state = {"latents": ((latents - mean) / std).half(), "mean": mean, "std": std}
        torch.save(state, path)
        return state

    @torch.no_grad()
    def embeddings(self, name: str, model: FusionModel) -> tuple[Tensor, Tensor]:
        """Image embeddings (N, E) of all pictures and of all pose maps, on the device."""
        path = self.work / f"{name}-embeddings.pt"
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            return state["image"], state["pose_map"]
        data = self._second_stage()
        state = {}
        for field in ("image", "pose_map"):
            parts = []
            for start in range(0, data.count, _ENCODE_BATCH):
                stop = min(start + _ENCODE_BATCH, data.count)
                rows = torch.arange(start, stop, device=self.device)
                pixels = normalised(data.pictures(field, rows), EMBED_SIZE, CLIP_MEAN, CLIP_STD)
                with self.accelerator.autocast():
                    parts.append(model.tower(pixels).image_embeds.float())
            state[field] = torch.cat(parts)
        torch.save(state, path)
        return state["image"], state["pose_map"]

    @torch.no_grad()
    def source_states(self) -> Tensor:
        """The source tower's states of all pictures, (N, 1 + 768, C) float16, cached on disk."""
        path = self.work / "source-states.pt"
        if path.exists():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        tower = self.source_tower().tower
        data = self._second_stage()
        parts = []
        for start in range(0, data.count, _ENCODE_BATCH):
            rows = torch.arange(start, min(start + _ENCODE_BATCH, data.count), device=self.device)
            pixels = normalised(
                data.pictures("image", rows), IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD
            )
            with self.accelerator.autocast():
                parts.append(tower(pixels).last_hidden_state.half().cpu())
        states = torch.cat(parts)
        torch.save(states, path)
        return states

    def diffusion_task(
        self, fuse: Fuse | None = None, taught: list[TaughtAttention] | None = None
    ) -> DiffusionTask:
        """The second stage's batches; by default with the source-enhanced fusion embedding."""
        if fuse is None:
            fuse = self.fused_embedding("fusion", self.fusion())
        data = self._second_stage("pose_map", "parsing", "coordinates")
        latents = self.latents()["latents"].to(self.device)
        states = self.source_states()
        if self.device.type == "cuda":
            states = states.to(self.device)

        def rows(index: Tensor) -> Tensor:
            return states[index.to(states.device)].to(self.device).float()

        return DiffusionTask(data, latents, rows, fuse, self.settings, taught or [])

    def first_block(self) -> DemoDiffusion:
        """The second stage's networks with their first layers trained."""
        stage = self.settings.first_block
        module = DemoDiffusion()
        part = FirstBlockTask(module.fpdm)
        if self._finished("first_block", stage.steps):
            self._load("first_block", part)
            return module
        task = self.diffusion_task(fuse=lambda source, target: source)
        self._train(
            "first_block", part, lambda m, step, g: task.first_block_loss(m, stage.batch, g), stage
        )
        return module

    def fused_embedding(self, name: str, model: FusionModel) -> Fuse:
        """(source, target) sample numbers -> fusion embeddings (B, E), from cached embeddings."""
        model = model.to(self.device).eval().requires_grad_(False)
        images, maps = self.embeddings(name, model)
        return lambda source, target: model.combiner(images[source], maps[target])

    def diffusion(
        self, until: int | None = None, name: str = "diffusion", fuse: Fuse | None = None
    ) -> DemoDiffusion:
        stage = self.settings.diffusion
        if self._finished(name, stage.steps):
            return self._load(name, DemoDiffusion())
        module = self.first_block()
        task = self.diffusion_task(fuse, teach(module.fpdm.unet))
        if self.settings.compile_blocks:
            compile_blocks(module.fpdm.unet)

        def train_until(step: int | None) -> DemoDiffusion:
            return self._train(
                name, module, lambda m, step, g: task(m, stage.batch, step, g), stage, step
            )

        branch = self.work / "diffusion-branch.pt"
        at = round(self.settings.ablation_from * stage.steps)
        if not branch.exists() and (until is None or until >= at) and self._step(name) <= at:
            train_until(at)
            shutil.copyfile(self.work / f"{name}.pt", branch)
        return train_until(until)

    def ablation(self) -> None:
        """The paper's B3 to B5: the last part of the second stage with something else in the slot.

        They leave the shipped run (B6) at `ablation_from` of its steps and keep its schedule, so
        all four have the same number of steps behind them. Writes `variants/B*.safetensors` in the
        work folder, for the benchmark's `--variants`.
        """
        fusion, baseline = self.fusion(), self.fusion_baseline()
        images, _ = self.embeddings("fusion", fusion.to(self.device))
        tower = self.source_tower().tower
        slots: dict[str, tuple[FusionModel, Fuse]] = {
            "B3": (fusion, lambda source, target: torch.zeros_like(images[source])),
            "B4": (fusion, lambda source, target: F.normalize(images[source], dim=-1)),
            "B5": (baseline, self.fused_embedding("fusion_baseline", baseline)),
        }
        shipped = export.assemble_fpdm(self._load("diffusion", DemoDiffusion()), fusion, tower)
        for name, (model, fuse) in slots.items():
            start = self.work / f"diffusion-{name}.pt"
            if not start.exists():
                shutil.copyfile(self.work / "diffusion-branch.pt", start)
            diffusion = self.diffusion(name=f"diffusion-{name}", fuse=fuse)
            variant = export.assemble_fpdm(diffusion, model, tower)
            save_variant(
                variant.cpu(), shipped.cpu(), self.work / "variants" / f"{name}.safetensors"
            )

    def export(self) -> None:
        """Write the shipped files from whatever the diffusion stage has reached."""
        state = self.latents()
        diffusion, fusion = self._load("diffusion", DemoDiffusion()), self.fusion()
        fpdm = export.assemble_fpdm(diffusion.cpu(), fusion.cpu(), self.source_tower().tower.cpu())
        base = export.write_base(
            self.out, diffusion, self._best_autoencoder(), float(state["mean"]), float(state["std"])
        )
        for path in (base, export.write_fpdm(self.out, fpdm)):
            export.write_provenance(
                path,
                {
                    "command": f"python -m pose_transfer.training.demo --preset {self.preset}",
                    "data": "mannequin world, split train, first "
                    f"{self.settings.identities} identities, {self.settings.poses_per_identity} "
                    "poses each",
                    "diffusion_steps": self._step("diffusion"),
                    "settings": asdict(self.settings),
                },
            )

    def _best_autoencoder(self) -> TrainableAutoencoder:
        """With the decoder stage's decoder, if there was one."""
        module = self.autoencoder()
        return self._load("decoder", module) if self._step("decoder") else module

    def judge(self) -> None:
        """The benchmark's pattern classifier."""
        settings = self.settings
        data = self._batches("image", "parsing")
        generator = torch.Generator(self.device)

        def batches():
            for step in range(settings.judge_steps):
                generator.manual_seed(settings.seed * 7919 + step)
                index = data.draw(settings.judge_batch, generator)
                classes = data.labels.classes[data.identities(index)]
                yield (
                    data.rows("image", index), data.rows("parsing", index),
                    classes[:, 0], classes[:, 1],
                )  # fmt: skip

        judge = train_judge(
            batches(), self.device, settings.judge_steps, patterns=PATTERNS,
            upper=LABELS.index("upper"), lower=LABELS.index("lower"), seed=settings.seed,
        )  # fmt: skip
        path = self.out / "mannequin_judge.safetensors"
        save_judge(judge, path)
        export.write_provenance(
            path,
            {
                "command": f"python -m pose_transfer.training.demo --preset {self.preset}",
                "steps": settings.judge_steps,
                "batch": settings.judge_batch,
            },
        )

    def _step(self, name: str) -> int:
        path = self.work / f"{name}.pt"
        if not path.exists():
            return 0
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"])

    def _finished(self, name: str, steps: int) -> bool:
        return self._step(name) >= steps

    def _load(self, name: str, module):
        """A stage's moving average in `module`, in eval mode."""
        path = self.work / f"{name}.pt"
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["average"], strict=False)
        return module.to(self.device).eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--work", type=Path, default=cache / "comfyui-pose-transfer" / "training")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "demo" / "weights"
    )
    parser.add_argument("--preset", choices=PRESETS, default=None, help="default: by the hardware")
    parser.add_argument("--stages", nargs="+", choices=STAGES + EXTRA_STAGES, default=STAGES)
    parser.add_argument("--diffusion-steps", type=int, help="length of the diffusion schedule")
    parser.add_argument("--until", type=int, help="stop the diffusion stage at this step")
    options = parser.parse_args()
    preset = options.preset or ("gpu" if torch.cuda.is_available() else "cpu")
    settings = PRESETS[preset]
    if options.diffusion_steps:
        settings = replace(
            settings, diffusion=replace(settings.diffusion, steps=options.diffusion_steps)
        )
    training = DemoTraining(options.work, settings, options.out, preset)
    for name in options.stages:
        if name == "diffusion":
            training.diffusion(options.until)
        else:
            getattr(training, name)()


if __name__ == "__main__":
    main()
