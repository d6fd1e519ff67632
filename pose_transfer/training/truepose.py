# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.training.truepose`: TruePose's Siamese pair on the mannequin world.

Goes on from the shipped base and FPDM, which do not change; besides it needs the rendered world,
and takes from the work folder of `python -m pose_transfer.training.demo` what it finds of both. One
UNet, the base's, serves as both nets. Of it only what attends is trained (the attentions and their
norms), beside the pose encoder's last layer and the image tokens: the file is small, and some
hundred steps are enough. Context of both nets is the image tower's embedding of the source (CAA);
each gets the pose of its own picture as FPDM does. The first self-attention is taught which cells
show the same place (see `correspondence.py`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from ..demo.architecture import (
    EMBED_SIZE,
    IMAGE_SIZE,
    LATENT_FACTOR,
    SCHEDULER,
)
from ..demo.models import MannequinBase, load_base, load_fpdm
from ..evaluation.models import TinyAutoencoder
from ..fpdm import FPDM
from ..fpdm.conv_towers import ConvPoseEncoder
from ..fpdm.preprocess import CLIP_MEAN, CLIP_STD
from ..mannequin import LABELS
from ..parsing import LABELS as ALL_LABELS
from ..parsing import PARTS
from ..truepose import REGIONS, limb_priors
from ..truepose.siamese import Lesson, PairRegions
from ..types import Person, Pose
from . import export
from .batches import Batches, normalised
from .correspondence import agreed_attention
from .settings import PRESETS, DemoSettings, StageSettings
from .truepose_pair import TruePosePair, new_pair, write_truepose
from .workspace import Workspace
from .world import render_world

ALIGNMENT_WEIGHT = 0.1
ATTENTION_WEIGHT = 0.2
"""Weight of the true correspondence in the loss."""
# Shares of samples without source, context and pose; without source; without context; without the
# target's regions; without the source's pose: each can be left out when sampling, and guidance
# needs the first.
DROP_ALL, DROP_SOURCE, DROP_CONTEXT, DROP_REGIONS, DROP_SOURCE_POSE = 0.1, 0.1, 0.1, 0.2, 0.15

STAGE = {
    "gpu": StageSettings(4000, 256, 1e-3, ema_decay=0.999),
    "cpu": StageSettings(1500, 16, 1e-3, warm_up=40, ema_decay=0.99),
    "smoke": StageSettings(3, 4, 3e-4, warm_up=1),
}
_ENCODE_BATCH = 64
_FITTED = 256
"""Samples that places are fitted on: some ten thousand cells."""
_SAME = 0.05
"""Mean difference of what two files of one model make, in deviations: halves are not exact."""
_CELLS = tuple(side // LATENT_FACTOR for side in IMAGE_SIZE)


class TruePoseTask:
    """Batches and loss. `latents`, `embeds` and `poses` are as in FPDM's second stage; `priors`
    (N, R, h, w) uint8 are the targets' regions as their limbs tell them; `places` reads places on
    the body off the pose tower's states, (B, hidden, h, w) -> (B, 4 or more, h, w)."""

    def __init__(
        self,
        data: Batches,
        latents: Tensor,
        embeds: Tensor,
        poses: Any,
        priors: Tensor,
        places: nn.Module,
        targets_per_source: int,
    ) -> None:
        self.data = data
        self.latents = latents
        self.embeds = embeds
        self.poses = poses
        self.priors = priors
        self.places = places
        self.shared = targets_per_source
        alphas = DDPMScheduler(**SCHEDULER).alphas_cumprod.to(data.device)
        self.signal, self.noise = alphas.sqrt(), (1 - alphas).sqrt()
        self.region_of = torch.tensor(_region_of_label(), device=data.device)

    def __call__(
        self, module: nn.Module, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        device = self.data.device
        source = self.data.draw(batch // self.shared, generator)
        many = source.repeat_interleave(self.shared)
        index = self.data.partners(many, generator)
        clean = self._latents(index)
        t = torch.randint(len(self.signal), (len(index),), device=device, generator=generator)
        noise = torch.randn(clean.shape, device=device, generator=generator)
        a, s = self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)

        chance = torch.rand((5, len(index)), device=device, generator=generator)
        some = chance[0] >= DROP_ALL
        keep_source = some & (chance[1] >= DROP_SOURCE)
        keep_context = some & (chance[2] >= DROP_CONTEXT)
        target_labels = self._regions(index)
        regions = PairRegions(
            self._regions(many),
            self.priors[index.to(self.priors.device)].to(device).float() / 255.0,
            keep_source.float(),
            (chance[3] >= DROP_REGIONS).float(),
        )
        told = chance[4, : len(source)] >= DROP_SOURCE_POSE
        source_pose, pose = self.poses(source), self.poses(index)
        wanted, known = self._wanted(index, many, pose, source_pose)
        # Both nets know their places by their poses alone.
        known = known & (keep_source & some & told.repeat_interleave(self.shared))[:, None]
        prediction, aligned, attention = module(
            a * clean + s * noise,
            t,
            self._latents(source),
            self.embeds[source],
            source_pose * told.view(-1, 1, 1, 1),
            pose,
            regions,
            torch.stack([keep_context, some]).float(),
            Lesson(wanted, known),
        )
        velocity = a * noise - s * clean
        weight = self._cell_weights(target_labels)
        error = ((prediction.float() - velocity).square() * weight).mean() / weight.mean()
        loss = error + ALIGNMENT_WEIGHT * aligned + ATTENTION_WEIGHT * attention
        return loss, {"noise": error, "alignment": aligned, "attention": attention}

    @torch.no_grad()
    def _wanted(
        self, index: Tensor, many: Tensor, pose: Tensor, source_pose: Tensor
    ) -> tuple[Tensor, Tensor]:
        guesses = self.places(pose)[:, :4], self.places(source_pose)[:, :4]
        return agreed_attention(
            self.data.cloth(index),
            self.data.cloth(many),
            guesses[0],
            guesses[1].repeat_interleave(self.shared, 0),
        )

    def _latents(self, index: Tensor) -> Tensor:
        return self.latents[index.to(self.latents.device)].to(self.data.device).float()

    def _regions(self, index: Tensor) -> Tensor:
        """(B, R, h, w): the true regions, area-averaged to latent cells."""
        labels = self.region_of[self.data.rows("parsing", index).long()]  # (B, H, W)
        maps = F.one_hot(labels, len(REGIONS)).movedim(-1, 1).float()
        return F.avg_pool2d(maps, LATENT_FACTOR)

    def _cell_weights(self, regions: Tensor) -> Tensor:
        """(B, 1, h, w): the figure counts more than the background, its small face most."""
        there = 1.0 - regions[:, REGIONS.index("background")]
        return (1.0 + 2.0 * there + 4.0 * regions[:, REGIONS.index("face")])[:, None]


def _region_of_label() -> list[int]:
    """For each label of the mannequin world the number of its region."""
    region = {label: r for r, name in enumerate(REGIONS) for label in PARTS[name]}
    assert set(region) == set(ALL_LABELS)
    return [region[label] for label in LABELS]


class Places(nn.Module):
    """A linear reading of states: (B, C, h, w) -> (B, 4, h, w) places on the body."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight  # (4, C + 1), the bias last

    def forward(self, states: Tensor) -> Tensor:
        bias = self.weight[:, -1].view(-1, 1, 1)
        return torch.einsum("pc,bchw->bphw", self.weight[:, :-1], states) + bias


def fitted_places(states: Callable[[Tensor], Tensor], data: Batches) -> Places:
    """What the states tell of `Batches.cloth` on the figure, by least squares.

    The pose tower was taught to tell places by a linear layer that is not shipped with it.
    """
    rows = torch.arange(min(_FITTED, data.count), device=data.device)
    x, y = states(rows).movedim(1, -1).flatten(0, 2), data.cloth(rows).movedim(1, -1).flatten(0, 2)
    inside = y.abs().sum(-1) > 0
    x, y = x[inside].double(), y[inside].double()
    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    ridge = 1e-4 * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return Places(torch.linalg.solve(x.mT @ x + ridge, x.mT @ y).mT.float())


class TruePoseStages(Workspace):
    """The pair, and what the shipped models make of the world's samples."""

    def __init__(
        self,
        work: Path,
        settings: DemoSettings,
        out: Path,
        preset: str,
        stage: StageSettings | None = None,
    ) -> None:
        super().__init__(work, settings, out, preset)
        self.stage = stage or STAGE[preset]

    def truepose(self) -> TruePosePair:
        stage, (base, fpdm) = self.stage, self._shipped()
        module = new_pair(base, fpdm)
        module.unet.to(self.device)
        if self._finished("truepose", stage.steps):
            return self._load("truepose", module)
        settings = self.settings
        render_world(self.work / "world", "train", settings.identities, settings.poses_per_identity)
        task = self.truepose_task()
        return self._train("truepose", module, lambda m, step, g: task(m, stage.batch, g), stage)

    def _shipped(self) -> tuple[MannequinBase, FPDM]:
        return load_base(self.out / export.BASE_FILE), load_fpdm(self.out / export.FPDM_FILE)

    def truepose_task(self) -> TruePoseTask:
        data, (base, fpdm) = self._second_stage("parsing", "cloth"), self._shipped()
        autoencoder = TinyAutoencoder(base.vae).to(self.device).eval()
        fpdm = fpdm.to(self.device).eval().requires_grad_(False)
        encoder, tower = fpdm.pose_encoder, fpdm.image_tower
        assert isinstance(encoder, ConvPoseEncoder) and tower is not None

        def encoded(rows: Tensor) -> Tensor:
            return autoencoder.encode(data.pictures("image", rows).movedim(1, -1))  # BCHW -> BHWC

        def embedded(rows: Tensor) -> Tensor:
            pixels = normalised(data.pictures("image", rows), EMBED_SIZE, CLIP_MEAN, CLIP_STD)
            return tower(pixels).image_embeds

        states = self._made(
            "pose-states", data, lambda rows: encoder.states(data.pictures("pose_map", rows))
        )

        def poses(index: Tensor) -> Tensor:
            return states[index.to(states.device)].to(self.device).float()

        return TruePoseTask(
            data,
            self._made("latents", data, encoded, key="latents").to(self.device),
            self._made("fusion-embeddings", data, embedded, key="image").to(self.device).float(),
            poses,
            self.target_priors(),
            fitted_places(poses, data),
            self.settings.targets_per_source,
        )

    @torch.no_grad()
    def _made(
        self, name: str, data: Batches, make: Callable[[Tensor], Tensor], key: str | None = None
    ) -> Tensor:
        """What a shipped model makes of all samples, (N, ...), cached on disk.

        What the demo's training has left under that name (in a dict under `key`) will do if it is
        the same; it is not where the work folder's models were trained on since.
        """
        some = torch.arange(min(4, data.count), device=self.device)
        wanted = make(some).float().cpu()
        own = self.work / f"truepose-{name}.pt"
        for path in (self.work / f"{name}.pt", own):
            if path.exists():
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                made = found if isinstance(found, Tensor) else found[key]
                off = (made[: len(some)].float() - wanted).abs().mean()
                if len(made) >= data.count and off < _SAME * wanted.std():
                    return made
        rows = torch.arange(data.count, device=self.device).split(_ENCODE_BATCH)
        torch.save(torch.cat([make(part).half().cpu() for part in rows]), own)
        return torch.load(own, map_location="cpu", weights_only=True, mmap=True)

    def target_priors(self) -> Tensor:
        """Limb priors of all samples at the size of latents, (N, R, h, w) uint8: cached on disk."""
        data = self._second_stage()
        path = self.work / f"truepose-priors-{data.count}.pt"
        if not path.exists():
            out = np.empty((data.count, len(REGIONS), *_CELLS), np.uint8)
            height, width = IMAGE_SIZE
            for row in range(data.count):
                person = Person(np.array(data.world.keypoints[row]))
                priors = limb_priors(Pose(width, height, (person,)), *_CELLS)
                out[row] = (priors * 255).round()
            torch.save(torch.from_numpy(out), path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)

    def export_truepose(self) -> Path:
        """Write the shipped file from whatever the stage has reached."""
        base, fpdm = self._shipped()
        module = self._load("truepose", new_pair(base, fpdm)).cpu()
        path = write_truepose(self.out, module, base, fpdm)
        export.write_provenance(
            path,
            {
                "command": f"python -m pose_transfer.training.truepose --preset {self.preset}",
                "data": "mannequin world, split train, first "
                f"{self.settings.identities} identities, {self.settings.poses_per_identity} "
                "poses each",
                "steps": self._step("truepose"),
                "settings": {
                    "stage": asdict(self.stage),
                    "alignment_weight": ALIGNMENT_WEIGHT,
                    "attention_weight": ATTENTION_WEIGHT,
                    "drop_all": DROP_ALL,
                    "drop_source": DROP_SOURCE,
                    "drop_context": DROP_CONTEXT,
                    "drop_regions": DROP_REGIONS,
                    "drop_source_pose": DROP_SOURCE_POSE,
                    "demo": asdict(self.settings),
                },
            },
        )
        return path


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
    parser.add_argument("--samples", type=int, help="of the world's first; default: the preset's")
    parser.add_argument("--steps", type=int, help="length of the schedule; default: the preset's")
    options = parser.parse_args()
    preset = options.preset or ("gpu" if torch.cuda.is_available() else "cpu")
    settings, stage = PRESETS[preset], STAGE[preset]
    if options.samples:
        settings = replace(settings, latent_samples=options.samples)
    if options.steps:
        stage = replace(stage, steps=options.steps)
    training = TruePoseStages(options.work, settings, options.out, preset, stage)
    training.truepose()
    training.export_truepose()


if __name__ == "__main__":
    main()
