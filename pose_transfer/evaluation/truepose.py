# SPDX-License-Identifier: GPL-3.0-or-later
"""Does TruePose help? Held-out mannequins drawn with and without each of its parts.

Hard pairs only: a garment with a pattern, and a large turn. All variants start from the same noise.
[P] HPFA and CAA each help, together most (the paper's ablation); attention falls on the garments
(its Figure 2). [D] Without HPFA the source's tokens join the attention unguided: no gates, no
correspondence. Without CAA both nets go without the source's CLIP tokens. Training-free, SourceNet
is told the source's own pose; the caption names the garments, so that what the source brings shows
where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ..demo.architecture import LATENT_FACTOR
from ..demo.models import TRUEPOSE_WEIGHTS, load_base
from ..demo.text import text_context
from ..demo.truepose import load_truepose
from ..detectors.demo import load_demo_face_encoder
from ..fpdm import FPDM, FPDMPreprocess
from ..fpdm.conv_towers import build_image_tower, build_pose_encoder
from ..fpdm.unet import pose_added
from ..libraries import moved
from ..mannequin import LABELS, Pair, pair_seeds, render, sample_identity, sample_pose
from ..mannequin.vocabulary import BEGIN, END, LENGTH, encode
from ..pose import draw
from ..truepose import DEFAULT_WEIGHTS, REGIONS, ImageTokens, limb_priors, region_maps
from ..truepose.siamese import MassRecord, PairRegions, SiamesePair
from ..types import Parsing
from ..weights import load_into
from .models import load_demo_models
from .person_measures import face_scores
from .sampling import SamplingSettings, sample_latents, scheduler_for, to_uint8
from .scores import describe_pairs, score_pictures
from .statistics import Estimate, bootstrap, paired_difference

GARMENTS = ("upper", "lower", "dress")
HARD_PATTERNS = ("stripes", "checks", "dots", "logo")
TURN = 60.0
"""Least difference of the two yaws, degrees."""
_RECORD_EVERY = 5
"""Steps between those in which attention is measured: it costs as much as a step."""
_CANDIDATES = 8

UNGUIDED = ("pose", "caption")
"""The demo's base alone; training-free TruePose is compared with these."""
FREE = ("pose_free", "caption_free")
TRAINED = ("no_hpfa", "no_caa", "full")
TITLES = {
    "pose": "the base, with the pose",
    "pose_free": "with the pose, training-free TruePose",
    "caption": "the base, with caption and pose",
    "caption_free": "with caption and pose, training-free TruePose",
    "fpdm": "FPDM demo",
    "no_hpfa": "TruePose without HPFA",
    "no_caa": "TruePose without CAA",
    "full": "TruePose",
}

Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Settings:
    """Steps of DDIM, the guidance of the base and the pair; FPDM has its own of the benchmark.

    `strength`, of training-free guides: their models were not taught to heed a source.
    """

    steps: int = 20
    guidance: float = 2.0
    strength: float = 4.0


@dataclass(frozen=True, eq=False)
class TrainedNets:
    """The trained pair: its UNet and the networks that tell it source and pose."""

    unet: UNet2DConditionModel
    image_tokens: ImageTokens
    image_tower: nn.Module
    pose_encoder: nn.Module
    embed_size: tuple[int, int]

    def tokens(self, source_bhwc: Tensor) -> Tensor:
        pixels = FPDMPreprocess(embed_size=self.embed_size).embed_pixels(source_bhwc)
        return self.image_tokens(self.image_tower(pixels).image_embeds)


@dataclass(frozen=True, eq=False)
class Models:
    """All that is compared. `trained` is None where no pair is at hand."""

    fpdm: FPDM
    base: UNet2DConditionModel
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor]
    trained: TrainedNets | None


@dataclass(frozen=True, eq=False)
class TruePoseResult:
    """Scores of each variant, (N,) each, the pictures (N, H, W, 3), and whom they show."""

    pairs: tuple[Pair, ...]
    pictures: Mapping[str, NDArray[np.uint8]]
    scores: Mapping[str, Scores]
    settings: Settings

    def estimate(self, variant: str, measure: str) -> Estimate:
        return bootstrap(self.scores[variant][measure])

    def difference(self, first: str, second: str, measure: str) -> Estimate:
        return paired_difference(self.scores[first][measure], self.scores[second][measure])


def hard_pairs(count: int, seed: int = 0) -> tuple[Pair, ...]:
    """Held-out people with a patterned upper garment, who turn by `TURN` degrees or more."""
    out: list[Pair] = []
    for identity, source, target in pair_seeds("test", _CANDIDATES * count, seed).tolist():
        yaws = [sample_pose(pose).yaw for pose in (source, target)]
        turn = abs((yaws[0] - yaws[1] + np.pi) % (2 * np.pi) - np.pi)
        if sample_identity(identity).upper.pattern in HARD_PATTERNS and np.degrees(turn) >= TURN:
            both = render(identity, source), render(identity, target)
            out.append(Pair(*both, identity, source, target))
        if len(out) == count:
            return tuple(out)
    raise ValueError(f"Only {len(out)} of {count} hard pairs were found; ask for more at once.")


def load_models(device: str, weights: Path = TRUEPOSE_WEIGHTS) -> Models:
    """The embedded models; the pair if `weights` is there. Raises CheckpointError."""
    demo, base = load_demo_models(device), load_base()
    unet = UNet2DConditionModel(**base.unet_config)
    load_into(unet, base.unet, "the demo UNet")
    text = text_context(base, torch.device(device))
    trained = _trained(weights, device) if weights.is_file() else None
    return Models(demo.fpdm, moved(unet, device).eval(), demo.encode, demo.decode, text, trained)


def _trained(weights: Path, device: str) -> TrainedNets:
    pair = load_truepose(weights)
    config = {name: dict(pair.config[name]) for name in ("image_tokens", "image_tower")}
    size = tuple(config["image_tower"].pop("size"))
    nets = {
        "unet": UNet2DConditionModel(**pair.config["unet"]),
        "image_tokens": ImageTokens(**config["image_tokens"]),
        "image_tower": build_image_tower(config["image_tower"]),
        "pose_encoder": build_pose_encoder(pair.config["pose_encoder"]),
    }
    for name, net in nets.items():
        tensors = pair.target if name == "unet" else pair.parts[name]
        load_into(net, {k: x.float() for k, x in tensors.items()}, f"the pair's {name}")
        net.to(device).eval()
    return TrainedNets(**nets, embed_size=size)  # type: ignore[arg-type]


def evaluate(
    models: Models,
    pairs: tuple[Pair, ...],
    settings: Settings,
    seed: int = 0,
    batch_size: int = 20,
    device: str = "cpu",
) -> TruePoseResult:
    """Every pair in every variant that the models can draw."""
    data, encoder = describe_pairs(pairs), load_demo_face_encoder()
    truths = [pair.target.image for pair in pairs]
    pictures, scores = {}, {}
    for name in TITLES:
        if name in TRAINED and models.trained is None:
            continue
        drawn, mass = _drawn(models, name, pairs, settings, seed, batch_size, device)
        pictures[name] = drawn
        scores[name] = {
            **score_pictures(drawn, data, None, name),
            **face_scores(drawn, truths, encoder),
            "garment_mass": mass,
        }
    return TruePoseResult(pairs, pictures, scores, settings)


def _drawn(
    models: Models,
    name: str,
    pairs: tuple[Pair, ...],
    settings: Settings,
    seed: int,
    batch_size: int,
    device: str,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Pictures (N, H, W, 3), and the garments' share of attention (N,), NaN where none is paid."""
    pictures, shares = [], []
    for start in tqdm(range(0, len(pairs), batch_size), desc=f"draw {name}"):
        batch = pairs[start : start + batch_size]
        seeds = [seed * 1_000_003 + start + row for row in range(len(batch))]
        latents, mass = sample(models, name, Batch.of(batch, device), seeds, settings)
        with torch.no_grad():
            pictures.append(to_uint8(models.decode(latents)).numpy())
        shares.append(np.full(len(batch), np.nan) if mass is None else mass.cpu().double().numpy())
    return np.concatenate(pictures), np.concatenate(shares)


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures (B, H, W, 3) in [0, 1] and what is known of them; regions (B, R, h, w)."""

    source: Tensor
    pose_map: Tensor
    source_pose_map: Tensor
    source_regions: Tensor
    target_regions: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, pairs: tuple[Pair, ...], device: str) -> Batch:
        height, width = pairs[0].source.image.shape[:2]

        def drawn(poses: Iterator) -> Tensor:
            maps = np.stack([draw(pose, height, width, "fpdm") for pose in poses])
            return torch.from_numpy(maps).to(device).float() / 255

        parsing = Parsing(np.stack([pair.source.parsing for pair in pairs]), LABELS)
        cells = height // LATENT_FACTOR, width // LATENT_FACTOR
        priors = np.stack([limb_priors(pair.target.pose, *cells) for pair in pairs])
        images = np.stack([pair.source.image for pair in pairs])
        return cls(
            torch.from_numpy(images).to(device).float() / 255,
            drawn(pair.target.pose for pair in pairs),
            drawn(pair.source.pose for pair in pairs),
            nn.functional.avg_pool2d(region_maps(parsing), LATENT_FACTOR).to(device),
            torch.from_numpy(priors).to(device),
            torch.tensor([encode(pair.source.caption) for pair in pairs], device=device),
        )

    def regions(self, guided: bool, strength: float = 1.0) -> PairRegions:
        """For TruePose as it is, or without what parsing brings."""
        ones = torch.ones(len(self.source), device=self.source.device)
        given = self.source_regions, self.target_regions, ones
        if guided:
            weights = {region: weight * strength for region, weight in DEFAULT_WEIGHTS.items()}
            return PairRegions(*given, ones, weights)
        return PairRegions(*given, ones * 0, dict.fromkeys(REGIONS, 1.0))


@torch.no_grad()
def sample(
    models: Models, name: str, batch: Batch, seeds: list[int], settings: Settings
) -> tuple[Tensor, Tensor | None]:
    """Latents of one variant, and the garments' share of attention (B,) if any is paid.

    Picture i starts from the noise of `seeds[i]`, drawn on the CPU.
    """
    if name == "fpdm":
        sampling = SamplingSettings(settings.steps)
        return sample_latents(models.fpdm, batch.source, batch.pose_map, seeds, sampling), None
    maps, own_maps = (x.movedim(-1, 1) for x in (batch.pose_map, batch.source_pose_map))
    strength = 1.0
    if name in (*UNGUIDED, *FREE):
        unet, strength = models.base, settings.strength
        empty = torch.tensor([[BEGIN, *[END] * (LENGTH - 1)]], device=maps.device)
        context = models.text(batch.tokens)
        nothing = models.text(empty).expand_as(context)
        context = context if name.startswith("caption") else nothing
        pose, own_pose = models.fpdm.pose_features(maps), models.fpdm.pose_features(own_maps)
        no_pose = pose
    else:
        assert models.trained is not None
        unet = models.trained.unet
        context = models.trained.tokens(batch.source)
        nothing = context * 0
        context = nothing if name == "no_caa" else context
        pose = models.trained.pose_encoder(maps)
        no_pose, own_pose = pose * 0, models.trained.pose_encoder(own_maps)
    pair, record, regions = None, MassRecord(), batch.regions(name != "no_hpfa", strength)
    look = None
    if name not in UNGUIDED:
        pair = SiamesePair(unet)  # its processors do what the stock ones do where nobody guides
        with pose_added(unet, own_pose):
            look = pair.look(models.encode(batch.source), context)
    shape = (unet.config["in_channels"], *pose.shape[-2:])
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
    latents = torch.stack(noise).to(pose.device)
    scheduler = scheduler_for(settings.steps)
    for step, t in enumerate(scheduler.timesteps):
        with pose_added(unet, pose):
            if pair is None or look is None:
                told = unet(latents, t, context, return_dict=False)[0]
            else:
                watch = record if step % _RECORD_EVERY == 0 else None
                told, _ = pair.predict(latents, t, context, look, regions, record=watch)
        with pose_added(unet, no_pose):
            untold = unet(latents, t, nothing, return_dict=False)[0]
        guided = untold + settings.guidance * (told - untold)
        latents = scheduler.step(guided, int(t), latents, eta=0.0, return_dict=False)[0]
    if pair is None:
        return latents, None
    garments = [REGIONS.index(region) for region in GARMENTS]
    return latents, record.mean()[:, garments].sum(1)
