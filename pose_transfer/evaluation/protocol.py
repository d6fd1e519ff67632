# SPDX-License-Identifier: GPL-3.0-or-later
"""The quality benchmark: which pictures are compared, made by whom.

Baselines that need no model, the autoencoder's ceiling, and FPDM with and without its fusion, on
one fixed set of held-out pairs. Everything is drawn from one seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..fpdm import FPDM
from ..mannequin import pairs as mannequin_pairs
from ..mannequin import render, split_seeds
from ..pose import draw
from ..weights import fingerprint
from .detectors import measure_detectors
from .films_report import measure as measure_films
from .kept import KeptLatents
from .models import VARIANTS, DemoModels, Variant, load_demo_models, load_variant
from .report import write_report
from .results import BenchmarkResult, Method
from .retrieval import RetrievalScores, RetrievalSet, retrieval, retrieval_set
from .sampling import SamplingSettings, sample_latents, to_uint8
from .scores import PairSet, describe_pairs, score_pictures

TRAINING_IMAGES = 500
"""Pictures behind the mean image."""


def benchmark(
    pairs: int = 200,
    out: Path | str | None = None,
    variants: Path | str | None = None,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    gallery: int = 1000,
    batch_size: int = 20,
    settings: SamplingSettings | None = None,
    models: DemoModels | None = None,
    detector_pictures: int = 0,
    films: int = 0,
    latents: Path | None = None,
) -> BenchmarkResult:
    """Measure the demo models on held-out mannequins.

    Args:
        pairs: number of (source, target) pairs of the test split.
        out: folder for benchmark.md, benchmark.json and plots; None writes nothing.
        variants: folder with B3, B4, B5 `.safetensors` (see `save_variant`); a variant that is
            not there is reported as missing.
        device: where the networks run.
        seed: chooses the pairs and every picture's noise.
        gallery: number of held-out targets of the retrieval task, a multiple of 4; 0 leaves it out.
        batch_size: pairs sampled at once; the pictures do not depend on it.
        models: what to measure; default: the embedded demo models.
        detector_pictures: pictures on which the demo's detectors are measured; 0 leaves them out.
        films: number of held-out people in motion, see `films.py`; 0 leaves them out.
        latents: folder where what was sampled is kept, and taken from if nothing that decides it
            has changed; the autoencoder does not.

    Raises ValueError for fewer than one pair, CheckpointError where weights are missing.
    """
    if pairs < 1:
        raise ValueError(f"The benchmark needs at least one pair, got {pairs}.")
    place = torch.device(device)
    settings = settings or SamplingSettings()
    models = models or load_demo_models(place)
    folder = None if variants is None else Path(variants)
    held_out = mannequin_pairs("test", pairs, seed)
    data = describe_pairs(tuple(tqdm(islice(held_out, pairs), "render pairs", total=pairs)))

    methods = [
        _measured(name, title, pictures, data, models)
        for name, title, pictures in _references(data, models, place, batch_size)
    ]
    missing = []
    found = {}
    for variant in VARIANTS:
        fpdm = load_variant(variant, models.fpdm, folder)
        if fpdm is None:
            if not variant.optional:
                missing.append(variant)
            continue
        if not variant.carry and fpdm.transport is None:
            continue
        found[variant.name] = fpdm
        kept = KeptLatents(latents)
        pictures = _sampled(variant, models, fpdm, data, settings, seed, place, batch_size, kept)
        methods.append(_measured(variant.name, variant.title, pictures, data, models))

    result = BenchmarkResult(
        data=data,
        methods=tuple(methods),
        missing=tuple(missing),
        retrieval=_retrieval(retrieval_set(gallery), found, place) if gallery else {},
        settings=settings,
        seed=seed,
        device=place.type,
        fingerprints=models.fingerprints,
        variants_given=folder is not None,
        gallery=gallery,
        detectors=measure_detectors(detector_pictures) if detector_pictures else None,
        films=measure_films(films, models, settings, seed=seed, device=place, batch_size=batch_size)
        if films
        else None,
    )
    if out is not None:
        write_report(result, Path(out))
    return result


def _measured(
    name: str, title: str, pictures: NDArray[np.uint8], data: PairSet, models: DemoModels
) -> Method:
    return Method(name, title, pictures, score_pictures(pictures, data, models.judge, name))


def _references(
    data: PairSet, models: DemoModels, device: torch.device, batch_size: int
) -> list[tuple[str, str, NDArray[np.uint8]]]:
    """The floors and the ceilings: name, title, pictures (N, H, W, 3)."""
    truths = data.truths
    identities = split_seeds("train", 0, TRAINING_IMAGES)
    mean = np.zeros(truths.shape[1:])
    for identity in tqdm(identities, "mean training image"):
        mean += render(int(identity), int(identity)).image / len(identities)
    # The next pair's person in this pair's pose: what pose alone is worth, and the level that
    # "the right pattern" reaches by chance.
    neighbours = [*data.pairs[1:], data.pairs[0]]
    strangers = [
        render(other.identity_seed, pair.target_pose_seed).image
        for pair, other in zip(data.pairs, neighbours, strict=True)
    ]
    rebuilt = []
    with torch.no_grad():
        for start in range(0, len(truths), batch_size):
            batch = torch.from_numpy(truths[start : start + batch_size]).to(device).float() / 255
            rebuilt.append(to_uint8(models.decode(models.encode(batch))).numpy())
    return [
        ("copy", "the source, unchanged", np.stack([pair.source.image for pair in data.pairs])),
        ("mean", "mean of training pictures", np.repeat(mean.round().astype(np.uint8)[None],
                                                        len(truths), 0)),
        ("stranger", "another person in the target pose", np.stack(strangers)),
        ("autoencoder", "the truth through the autoencoder", np.concatenate(rebuilt)),
        ("truth", "the truth itself", truths),
    ]  # fmt: skip


def _sampled(
    variant: Variant,
    models: DemoModels,
    fpdm: FPDM,
    data: PairSet,
    settings: SamplingSettings,
    seed: int,
    device: torch.device,
    batch_size: int,
    kept: KeptLatents,
) -> NDArray[np.uint8]:
    """The variant's pictures (N, H, W, 3). All variants start from the same noise."""
    pictures = []
    weights = fingerprint(fpdm.state_dict())
    settings = replace(settings, carry=variant.carry)
    height, width = data.parsings.shape[1:]
    bar = tqdm(total=len(data.pairs), desc=f"sample {variant.name}", unit="picture")
    for start in range(0, len(data.pairs), batch_size):
        batch = data.pairs[start : start + batch_size]
        source = np.stack([pair.source.image for pair in batch])
        pose = np.stack([draw(p.target.pose, height, width, "fpdm") for p in batch])
        seen = hashlib.sha256(source.tobytes() + pose.tobytes()).hexdigest()
        source, pose = (torch.from_numpy(x).to(device).float() / 255 for x in (source, pose))
        seeds = [seed * 1_000_003 + start + row for row in range(len(batch))]
        given = (fpdm, source, pose, seeds, settings, variant.fusion)
        latents = kept.get(
            f"{weights} {seen} {seeds} {settings} {variant.fusion.__name__}",
            lambda given=given: sample_latents(*given),
        )
        with torch.no_grad():
            pictures.append(to_uint8(models.decode(latents.to(device))).numpy())
        bar.update(len(batch))
    bar.close()
    return np.concatenate(pictures)


def _retrieval(
    data: RetrievalSet, found: Mapping[str, FPDM], device: torch.device
) -> Mapping[str, Mapping[str, RetrievalScores]]:
    """A1 from the shipped tower, A2 from B5's fusion model, A3 from the shipped one."""
    rows = {"A1": retrieval(found["B6"], data, device, fuse=False)}
    if "B5" in found:
        rows["A2"] = retrieval(found["B5"], data, device, fuse=True)
    rows["A3"] = retrieval(found["B6"], data, device, fuse=True)
    return rows
