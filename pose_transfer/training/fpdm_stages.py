# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM's two stages on the mannequin world, their caches, the ablation, the shipped files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor
from torch.nn import functional as F

from ..demo.architecture import EMBED_SIZE, IMAGE_SIZE, TRANSPORT
from ..evaluation.models import load_demo_models, save_variant
from ..fpdm.conv_towers import ConvPoseEncoder
from ..fpdm.preprocess import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from ..fpdm.transport import SourceTransport, build_transport, quarter_colours
from . import export
from .autoencoder import TrainableAutoencoder
from .batches import Batches, normalised
from .correspondence import Correspondence, FirstBlockTask, TaughtAttention, teach
from .decoder import Decoder, DecoderTask
from .diffusion import Carry, DemoDiffusion, DiffusionTask, Fuse, compile_blocks
from .fusion import FusionModel, fusion_loss
from .image_stages import ImageStages
from .places import places_loss

_ENCODE_BATCH = 64
LATENT_SCALE = "latent-scale.pt"
"""Mean and deviation of latents; only in a work folder that started from the shipped weights."""
ABLATION = ("B3", "B4", "B5", "B6+")


class FPDMStages(ImageStages):
    """Fusion model and diffusion. Each stage trains what is not trained yet, and returns it."""

    @property
    def started_from_shipped(self) -> bool:
        """See `shipped.seed`."""
        return (self.work / LATENT_SCALE).exists()

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
        if self.started_from_shipped:
            known = torch.load(self.work / LATENT_SCALE, weights_only=True)
            mean, std = known["mean"], known["std"]
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

    def source_states(self) -> Tensor:
        """The source tower's states of all pictures, (N, 1 + 768, C) float16, cached on disk."""

        def states_of(data: Batches) -> Callable[[Tensor], Tensor]:
            tower = self.source_tower().tower
            return lambda rows: (
                tower(
                    normalised(
                        data.pictures("image", rows), IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD
                    )
                ).last_hidden_state
            )

        return self._cached_states("source-states", states_of)

    def pose_states(self) -> Tensor:
        """The pose encoder's states of all pose maps, (N, C, 32, 24) float16, cached on disk."""

        def states_of(data: Batches) -> Callable[[Tensor], Tensor]:
            encoder = self.pose_tower().encoder
            return lambda rows: encoder.states(data.pictures("pose_map", rows))

        return self._cached_states("pose-states", states_of)

    @torch.no_grad()
    def _cached_states(
        self, name: str, states_of: Callable[[Batches], Callable[[Tensor], Tensor]]
    ) -> Tensor:
        path = self.work / f"{name}.pt"
        if path.exists():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        data = self._second_stage()
        states = states_of(data)
        parts = []
        for start in range(0, data.count, _ENCODE_BATCH):
            rows = torch.arange(start, min(start + _ENCODE_BATCH, data.count), device=self.device)
            with self.accelerator.autocast():
                parts.append(states(rows).half().cpu())
        torch.save(torch.cat(parts), path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)

    def places(self) -> SourceTransport:
        """The heads that read places off both towers' states, four in each cell."""
        stage = self.settings.places
        module = build_transport(TRANSPORT)
        if self._finished("places", stage.steps):
            return self._load("places", module)
        data = self._second_stage("cloth")
        sources, poses = self.source_states(), self.pose_states()

        def loss(module: SourceTransport, step: int, generator: torch.Generator):
            index = data.draw(stage.batch, generator)
            cloth = data.rows("cloth", index).float().permute(0, 3, 1, 2)  # BHWC -> BCHW
            rows = index.cpu()
            pose = poses[rows].to(self.device).float()
            cells = sources[rows, 1:].to(self.device).float().mT.unflatten(2, pose.shape[-2:])
            return places_loss(module, cells, pose, cloth)

        return self._train("places", module, loss, stage)

    @torch.no_grad()
    def carried(self, data: Batches) -> Carry:
        """What `SourceTransport` carries between samples, from places that are told once."""
        transport = self.places().to(self.device)
        sources, poses = self.source_states(), self.pose_states()
        colours, shown, meant = [], [], []
        for start in range(0, data.count, _ENCODE_BATCH):
            rows = torch.arange(start, min(start + _ENCODE_BATCH, data.count))
            pose = poses[rows].to(self.device).float()
            cells = sources[rows, 1:].to(self.device).float().mT.unflatten(2, pose.shape[-2:])
            shown.append(torch.cat(transport.source_places(cells), dim=1).half())
            meant.append(torch.cat(transport.pose_places(pose), dim=1).half())
            pictures = data.pictures("image", rows.to(self.device))
            colours.append(quarter_colours(pictures, shown[-1]).half())
        all_colours, all_shown, all_meant = (torch.cat(x) for x in (colours, shown, meant))

        def carry(source: Tensor, target: Tensor) -> Tensor:
            return transport.carry_between(
                all_colours[source].float(), all_shown[source].float(), all_meant[target].float()
            )

        return carry

    def diffusion_task(
        self, fuse: Fuse | None = None, taught: list[TaughtAttention] | None = None
    ) -> DiffusionTask:
        """The second stage's batches; by default with the source-enhanced fusion embedding."""
        if fuse is None:
            fuse = self.fused_embedding("fusion", self.fusion())
        data = self._second_stage("pose_map", "parsing", "cloth")
        latents = self.latents()["latents"].to(self.device)

        def rows_of(states: Tensor) -> Callable[[Tensor], Tensor]:
            if self.device.type == "cuda":
                states = states.to(self.device)
            return lambda index: states[index.to(states.device)].to(self.device).float()

        states, poses = rows_of(self.source_states()), rows_of(self.pose_states())
        correspondence = None
        if not self.started_from_shipped:  # which lacks the heads that would tell
            heads = self.source_tower().places, self.pose_tower().places
            correspondence = Correspondence(data, *heads)
        return DiffusionTask(
            data,
            latents,
            states,
            poses,
            fuse,
            self.settings,
            self.carried(data),
            taught or [],
            correspondence,
        )

    def _new_diffusion(self) -> DemoDiffusion:
        """The second stage's networks around pose tower and transport, whose last layers learn."""
        module = DemoDiffusion()
        encoder, transport = module.fpdm.pose_encoder, module.fpdm.transport
        assert isinstance(encoder, ConvPoseEncoder) and transport is not None
        encoder.tower.load_state_dict(self.pose_tower().encoder.tower.state_dict())
        encoder.tower.requires_grad_(False)
        transport.load_state_dict(self.places().state_dict())
        transport.source_places.requires_grad_(False)
        transport.pose_places.requires_grad_(False)
        return module

    def first_block(self) -> DemoDiffusion:
        """The second stage's networks with their first layers trained."""
        stage = self.settings.first_block
        module = self._new_diffusion()
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
        unet = module.fpdm.unet
        assert unet is not None
        task = self.diffusion_task(fuse, teach(unet))
        if self.settings.compile_blocks:
            compile_blocks(unet)

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

    @torch.no_grad()
    def predictions(self) -> dict[str, Tensor]:
        """Samples, and their latents as the second stage predicts them: cached on disk."""
        path = self.work / "predictions.pt"
        if path.exists():
            return torch.load(path, map_location="cpu", weights_only=True)
        module, task = self._load("diffusion", DemoDiffusion()), self.diffusion_task()
        generator = torch.Generator(self.device).manual_seed(self.settings.seed)
        chosen, parts = [], []
        for _ in range(0, self.settings.predictions, _ENCODE_BATCH):
            index = task.data.draw(_ENCODE_BATCH, generator)
            source = task.data.partners(index, generator)
            with self.accelerator.autocast():
                parts.append(task.predicted(module, source, index, generator).half().cpu())
            chosen.append(index.cpu())
        state = {"chosen": torch.cat(chosen), "latents": torch.cat(parts)}
        torch.save(state, path)
        return state

    def decoder(self) -> TrainableAutoencoder:
        """The autoencoder with its decoder trained on, while latents stay what they are."""
        stage, module = self.settings.decoder, self.autoencoder()
        if not self._finished("decoder", stage.steps):
            known, predicted = self.latents(), self.predictions()
            task = DecoderTask(
                self._second_stage("image", "parsing"), known["latents"], predicted["chosen"],
                predicted["latents"], float(known["mean"]), float(known["std"]),
            )  # fmt: skip
            self._train(
                "decoder", Decoder(module), lambda m, step, g: task(m, stage.batch, g), stage
            )
        return self._load("decoder", module)

    def variant(self, name: str) -> None:
        """One line of the paper's ablation, written to `variants/<name>.safetensors`.

        B3 to B5 train the second stage's last part with something else in the fusion slot: they
        leave the run (B6) at `ablation_from` of its steps and keep its schedule, so all have the
        same number of steps behind them. "B6+" is the run itself where what ships is not its end.
        The benchmark's `--variants` reads them.
        """
        fusion = self.fusion_baseline() if name == "B5" else self.fusion()
        if name == "B6+":
            diffusion = self.diffusion()
        else:
            start = self.work / f"diffusion-{name}.pt"
            if not start.exists():
                shutil.copyfile(self.work / "diffusion-branch.pt", start)
            diffusion = self.diffusion(name=start.stem, fuse=self._slot(name, fusion))
        tower = self.source_tower().tower
        made = export.assemble_fpdm(diffusion.cpu(), fusion.cpu(), tower.cpu())
        shipped = load_demo_models("cpu").fpdm
        save_variant(made, shipped, self.work / "variants" / f"{name}.safetensors")

    def _slot(self, name: str, model: FusionModel) -> Fuse:
        """What goes into the fusion slot of the variant `name`."""
        if name == "B5":
            return self.fused_embedding("fusion_baseline", model)
        images, _ = self.embeddings("fusion", model.to(self.device))
        if name == "B4":
            return lambda source, target: F.normalize(images[source], dim=-1)
        return lambda source, target: torch.zeros_like(images[source])

    def ablation(self) -> None:
        """All lines of the ablation, one after the other."""
        for name in ABLATION if self.started_from_shipped else ABLATION[:-1]:
            self.variant(name)

    def export(self) -> None:
        """Write the shipped files from whatever the diffusion stage has reached."""
        state = self.latents()
        diffusion, fusion = self._load("diffusion", DemoDiffusion()), self.fusion()
        fpdm = export.assemble_fpdm(diffusion.cpu(), fusion.cpu(), self.source_tower().tower.cpu())
        export.fold_empty_fusion(fpdm)
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
