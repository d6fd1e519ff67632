# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.training.truepose`: TruePose's Siamese pair on the mannequin world.

Goes on from the shipped base and FPDM, which do not change, and from what `python -m
pose_transfer.training.demo` has left in the same work folder: world, latents, embeddings, the pose
tower and its states. One UNet, the base's, serves as both nets. Of it only what attends is trained
(the attentions and their norms), beside the pose encoder's last layer and the image tokens: the
file is small, and some hundred steps are enough. Context of both nets is the image tower's
embedding of the source (CAA); each gets the pose of its own picture as FPDM does. The first
self-attention is taught which cells show the same place (see `correspondence.py`).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
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
from ..demo.models import MannequinBase, load_base, load_fpdm
from ..demo.truepose import borrowed
from ..fpdm import FPDM
from ..fpdm.conv_towers import ConvPoseEncoder, build_pose_encoder, describe
from ..fpdm.unet import pose_added
from ..mannequin import LABELS
from ..parsing import LABELS as ALL_LABELS
from ..parsing import PARTS
from ..truepose import REGIONS, ImageTokens, limb_priors
from ..truepose.checkpoint import save_pair
from ..truepose.siamese import Lesson, PairRegions, SiamesePair, pair_alignment
from ..types import Person, Pose
from ..weights import load_into
from . import export
from .batches import Batches
from .correspondence import agreed_attention
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
    "gpu": StageSettings(4000, 256, 1e-3, ema_decay=0.999),
    "cpu": StageSettings(1500, 16, 1e-3, warm_up=40, ema_decay=0.99),
    "smoke": StageSettings(3, 4, 3e-4, warm_up=1),
}
# Stages of the demo, in order: what is done already is left as it is.
_BEFORE = ("render", "autoencoder", "image_tower", "pose_tower", "fusion", "latents")
_CELLS = tuple(side // LATENT_FACTOR for side in IMAGE_SIZE)
_LEARN = ("attn1", "attn2", "norm1", "norm2")
"""Of every transformer block."""


class TruePosePair(nn.Module):
    """The demo's pair, inside a frozen UNet of which only what attends is part of it."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self._frozen = (unet.requires_grad_(False).eval(),)  # a tuple, or it would count as a part
        blocks = {n: x for n, x in unet.named_modules() if isinstance(x, BasicTransformerBlock)}
        self.names = [f"{name}.{layer}" for name in blocks for layer in _LEARN]
        self.layers = nn.ModuleList(unet.get_submodule(name) for name in self.names)
        self.layers.requires_grad_(True)
        self.pose_out = build_pose_encoder(POSE_ENCODER).conv_out
        self.image_tokens = ImageTokens(EMBED_WIDTH, CONTEXT_WIDTH, TOKENS)
        self.pair = SiamesePair(unet)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self._frozen[0]

    def trained(self) -> dict[str, Tensor]:
        """What was trained of the UNet, under its own names."""
        return {
            f"{name}.{key}": value
            for name, layer in zip(self.names, self.layers, strict=True)
            for key, value in layer.state_dict().items()
        }

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
        # No gradient through SourceNet: its weights learn as TargetNet's, at half the cost.
        with torch.no_grad(), pose_added(self.unet, self.pose_out(source_pose) * told):
            look = self.pair.look(source, tokens).repeat(times)
        context = tokens.repeat_interleave(times, 0) * keep[0].view(-1, 1, 1)
        with pose_added(self.unet, self.pose_out(pose) * keep[1].view(-1, 1, 1, 1)):
            prediction, guided = self.pair.predict(noisy, t, context, look, regions, lesson)
        # Samples without context have nothing to align.
        there = keep[0].view(-1, 1, 1, 1)
        aligned = pair_alignment(guided, replace(regions, target=regions.target * there))
        return prediction, aligned, lesson.loss()


def new_pair(base: MannequinBase, fpdm: FPDM) -> TruePosePair:
    """An untrained pair upon the demo's base and FPDM."""
    unet = UNet2DConditionModel(**base.unet_config)
    # Copies, for what is loaded may be taken as it is, and `base` must stay what it is.
    load_into(unet, {name: x.clone() for name, x in base.unet.items()}, "the demo UNet")
    module = TruePosePair(unet)
    module.pose_out.load_state_dict(fpdm.pose_encoder.conv_out.state_dict())
    return module


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


class TruePoseStages(FPDMStages):
    """The stages that the pair needs, and the pair."""

    def truepose(self) -> TruePosePair:
        stage, (base, fpdm) = STAGE[self.preset], self._shipped()
        module = new_pair(base, fpdm)
        module.unet.to(self.device)
        if self._finished("truepose", stage.steps):
            return self._load("truepose", module)
        for part in _BEFORE:
            getattr(self, part)()
        task = self.truepose_task()
        return self._train("truepose", module, lambda m, step, g: task(m, stage.batch, g), stage)

    def _shipped(self) -> tuple[MannequinBase, FPDM]:
        return load_base(self.out / export.BASE_FILE), load_fpdm(self.out / export.FPDM_FILE)

    def truepose_task(self) -> TruePoseTask:
        embeds, _ = self.embeddings("fusion", self.fusion().to(self.device))
        states = self.pose_states()

        def poses(index: Tensor) -> Tensor:
            return states[index.to(states.device)].to(self.device).float()

        return TruePoseTask(
            self._second_stage("parsing", "cloth"),
            self.latents()["latents"].to(self.device),
            embeds,
            poses,
            self.target_priors(),
            self.pose_tower().places,
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


def write_truepose(folder: Path, module: TruePosePair, base: MannequinBase, fpdm: FPDM) -> Path:
    """`mannequin_truepose.safetensors` in fp16: what was trained upon these base and FPDM."""
    encoder = fpdm.pose_encoder
    assert isinstance(encoder, ConvPoseEncoder)
    config = {
        "unet": UNET,
        "prediction": SCHEDULER["prediction_type"],
        "image_tokens": {
            "embed_width": EMBED_WIDTH, "context_width": CONTEXT_WIDTH, "tokens": TOKENS,
        },
        "pose_encoder": describe(encoder),
        "image_tower": {**IMAGE_TOWER, "size": EMBED_SIZE},
        "borrows": borrowed(base, fpdm),
    }  # fmt: skip
    parts = {
        "image_tokens": _halved(module.image_tokens.state_dict()),
        "pose_encoder": {
            f"conv_out.{name}": x for name, x in _halved(module.pose_out.state_dict()).items()
        },
    }
    path = folder / FILE
    save_pair(path, _halved(module.trained()), parts, config)
    return path


def _halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() for name, value in tensors.items()}


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
