# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.training.truepose`: TruePose's Siamese pair on the mannequin world.

Goes on from what `python -m pose_transfer.training.demo` has left in the same work folder (world,
latents, pose tower, image tower, diffusion) and makes what lacks. One UNet serves as both nets: it
starts as FPDM's and learns to be guided by its own look at the clean source. Context of both is the
image tower's embedding of the source (CAA); each net gets the pose of its own picture as FPDM does.
The first self-attention is taught which cells show the same place (see `correspondence.py`).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from ..demo.architecture import (
    CONTEXT_WIDTH,
    EMBED_SIZE,
    EMBED_WIDTH,
    IMAGE_SIZE,
    IMAGE_TOWER,
    LATENT_FACTOR,
    POSE_ENCODER,
    SCHEDULER,
    UNET,
)
from ..fpdm.conv_towers import build_pose_encoder, describe
from ..fpdm.unet import pose_added
from ..mannequin import LABELS
from ..parsing import LABELS as ALL_LABELS
from ..parsing import PARTS
from ..truepose import REGIONS, ImageTokens, limb_priors
from ..truepose.checkpoint import save_pair
from ..truepose.siamese import Lesson, PairRegions, SiamesePair
from ..types import Person, Pose
from .batches import Batches
from .correspondence import wanted_attention
from .export import write_provenance
from .fpdm_stages import FPDMStages
from .settings import PRESETS, StageSettings

FILE = "mannequin_truepose.safetensors"
TOKENS = 4
"""Context tokens of a source picture."""
ALIGNMENT_WEIGHT = 0.1
ATTENTION_WEIGHT = 0.2
"""Weight of the true correspondence in the loss."""
# Shares of samples without source, context and pose; without source; without context; without the
# target's regions; without the source's pose: each can be left out when sampling, and guidance
# needs the first.
DROP_ALL, DROP_SOURCE, DROP_CONTEXT, DROP_REGIONS, DROP_SOURCE_POSE = 0.1, 0.1, 0.1, 0.2, 0.15

STAGE = {
    "gpu": StageSettings(6000, 256, 4e-4, ema_decay=0.999),
    "cpu": StageSettings(3000, 16, 3e-4, warm_up=40, ema_decay=0.993),
    "smoke": StageSettings(3, 4, 3e-4, warm_up=1),
}
# Stages of the demo, in order: what is done already is left as it is.
_BEFORE = (
    "render", "autoencoder", "source_tower", "image_tower", "pose_tower", "fusion", "latents",
)  # fmt: skip
_CELLS = tuple(side // LATENT_FACTOR for side in IMAGE_SIZE)


class TruePosePair(nn.Module):
    """The demo's pair: one UNet for both nets, the pose encoder's last layer, the image tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(**UNET)
        self.pose_out = build_pose_encoder(POSE_ENCODER).conv_out
        self.image_tokens = ImageTokens(EMBED_WIDTH, CONTEXT_WIDTH, TOKENS)
        self.pair = SiamesePair(self.unet)

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
        lesson: Lesson,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Prediction for noisy latents (B, C, h, w), the alignment loss, the lesson's loss.

        `source` (B', C, h, w) clean latents and `embeds` (B', E) of B' sources, each for B / B'
        targets in turn; `source_pose` (B', hidden, h, w) and `pose` (B, hidden, h, w) the pose
        tower's states, zeros in the former for a source whose pose is not told; `keep` (2, B):
        which samples keep context and pose.
        """
        times = len(noisy) // len(source)
        tokens = self.image_tokens(embeds)
        told = source_pose.flatten(1).any(1).view(-1, 1, 1, 1)
        with pose_added(self.unet, self.pose_out(source_pose) * told):
            self.pair.look(source, tokens)
        self.pair.repeat(times)
        context = tokens.repeat_interleave(times, 0) * keep[0].view(-1, 1, 1)
        with pose_added(self.unet, self.pose_out(pose) * keep[1].view(-1, 1, 1, 1)):
            prediction = self.pair.predict(noisy, t, context, regions, lesson)
        # Samples without context have nothing to align.
        there = keep[0].view(-1, 1, 1, 1)
        aligned = PairRegions(regions.source, regions.target * there, regions.keep, regions.beta)
        return prediction, self.pair.alignment(aligned), lesson.loss()


class TruePoseTask:
    """Batches and loss. `latents`, `embeds` and `poses` are as in FPDM's second stage; `priors`
    (N, R, h, w) uint8 are the targets' regions as their limbs tell them."""

    def __init__(
        self,
        data: Batches,
        latents: Tensor,
        embeds: Tensor,
        poses: Any,
        priors: Tensor,
        targets_per_source: int,
    ) -> None:
        self.data = data
        self.latents = latents
        self.embeds = embeds
        self.poses = poses
        self.priors = priors
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
        wanted, known = wanted_attention(self.data.cloth(index), self.data.cloth(many))
        told = (chance[4, : len(source)] >= DROP_SOURCE_POSE).view(-1, 1, 1, 1)
        prediction, aligned, attention = module(
            a * clean + s * noise,
            t,
            self._latents(source),
            self.embeds[source],
            self.poses(source) * told,
            self.poses(index),
            regions,
            torch.stack([keep_context, some]).float(),
            Lesson(wanted, known & keep_source[:, None]),
        )
        velocity = a * noise - s * clean
        weight = self._cell_weights(target_labels)
        error = ((prediction.float() - velocity).square() * weight).mean() / weight.mean()
        loss = error + ALIGNMENT_WEIGHT * aligned + ATTENTION_WEIGHT * attention
        return loss, {"noise": error, "alignment": aligned, "attention": attention}

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


class TruePoseStages(FPDMStages):
    """FPDM's stages, and the pair that goes on from them."""

    def truepose(self) -> TruePosePair:
        stage = STAGE[self.preset]
        module = TruePosePair()
        if self._finished("truepose", stage.steps):
            return self._load("truepose", module)
        for part in _BEFORE:
            getattr(self, part)()
        start = self.diffusion().fpdm
        assert start.unet is not None
        module.unet.load_state_dict(start.unet.state_dict())
        module.pose_out.load_state_dict(start.pose_encoder.conv_out.state_dict())
        task = self.truepose_task()
        return self._train("truepose", module, lambda m, step, g: task(m, stage.batch, g), stage)

    def truepose_task(self) -> TruePoseTask:
        data = self._second_stage("parsing", "cloth")
        embeds, _ = self.embeddings("fusion", self.fusion().to(self.device))
        states = self.pose_states()

        def poses(index: Tensor) -> Tensor:
            return states[index.to(states.device)].to(self.device).float()

        return TruePoseTask(
            data,
            self.latents()["latents"].to(self.device),
            embeds,
            poses,
            self.target_priors(),
            self.settings.targets_per_source,
        )

    def target_priors(self) -> Tensor:
        """Limb priors of all samples at the size of latents, (N, R, h, w) uint8: cached on disk."""
        path = self.work / "truepose-priors.pt"
        if not path.exists():
            data = self._second_stage()
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
        module = self._load("truepose", TruePosePair()).cpu()
        path = write_truepose(self.out, module, self.pose_tower().encoder, self.fusion().tower)
        write_provenance(
            path,
            {
                "command": f"python -m pose_transfer.training.truepose --preset {self.preset}",
                "data": "mannequin world, split train, first "
                f"{self.settings.identities} identities, {self.settings.poses_per_identity} "
                "poses each",
                "steps": self._step("truepose"),
                "settings": {
                    "stage": asdict(STAGE[self.preset]),
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


def write_truepose(
    folder: Path, module: TruePosePair, pose_encoder: nn.Module, image_tower: nn.Module
) -> Path:
    """`mannequin_truepose.safetensors` in fp16: the pair, and the frozen towers that it needs.

    `pose_encoder`: whose tower the pair was trained behind; its last layer is the pair's own.
    """
    encoder = build_pose_encoder(POSE_ENCODER)
    encoder.load_state_dict(pose_encoder.state_dict())
    encoder.conv_out.load_state_dict(module.pose_out.state_dict())
    parts = {
        "image_tokens": module.image_tokens,
        "pose_encoder": encoder,
        "image_tower": image_tower,
    }
    config = {
        "unet": UNET,
        "prediction": SCHEDULER["prediction_type"],
        "image_tokens": {
            "embed_width": EMBED_WIDTH, "context_width": CONTEXT_WIDTH, "tokens": TOKENS,
        },
        "pose_encoder": describe(encoder),
        "image_tower": {**IMAGE_TOWER, "size": EMBED_SIZE},
    }  # fmt: skip
    path = folder / FILE
    save_pair(path, _halved(module.unet), {k: _halved(p) for k, p in parts.items()}, config)
    return path


def _halved(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.half() for name, value in module.state_dict().items()}


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
    options = parser.parse_args()
    preset = options.preset or ("gpu" if torch.cuda.is_available() else "cpu")
    training = TruePoseStages(options.work, PRESETS[preset], options.out, preset)
    training.truepose()
    training.export_truepose()


if __name__ == "__main__":
    main()
