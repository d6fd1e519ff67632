# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a film's person follow the poses and stay who they are?

FPDM's use on sequences: one source, one pose for each frame. A frame is measured by its outline
against the true figure's; the person by how much the mean colour of each region varies over the
frames. The truth's own variation is the light on a turning figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..mannequin import LABELS, Sample, render, split_seeds
from ..mannequin.motion import render_motion
from ..pose import draw
from ..pose.skeleton import BODY_NAMES
from ..types import PART_POINTS, Person
from .hands import MIDDLE_KNUCKLE, hand_ssim
from .metrics import LabelMap, region_colours, ssim_released
from .models import DemoModels
from .person_measures import silhouette_scores
from .sampling import SamplingSettings, sample_latents, to_uint8

REGIONS: Mapping[str, int] = {
    name: LABELS.index(name) for name in ("hair", "upper", "lower", "shoes")
}
"""Regions that have one colour all around a mannequin. A face, an arm and a leg show more or less
cloth and shade as the body turns."""
FRAMES = 8
"""Frames of a film in the benchmark."""

Frames = NDArray[np.uint8]
"""(F, H, W, 3) RGB."""


def wavering(
    film: Iterable[NDArray[np.uint8]], parsings: Iterable[LabelMap], labels: Sequence[int]
) -> NDArray[np.float64]:
    """How much each region's mean colour varies over the frames: (len(labels),), 0..255.

    The standard deviation over the frames, mean of R, G and B. Frames (H, W, 3), the true parsings
    (H, W). NaN for a region that fewer than two frames show. Raises ValueError where there are not
    as many frames as parsings.
    """
    colours = np.stack(
        [
            region_colours(frame, parsing, tuple(labels))
            for frame, parsing in zip(film, parsings, strict=True)
        ]
    )  # (F, regions, 3)
    seen = ~np.isnan(colours[:, :, 0])
    return np.array(
        [
            colours[seen[:, row], row].std(axis=0).mean() if seen[:, row].sum() > 1 else np.nan
            for row in range(len(labels))
        ]
    )


@dataclass(frozen=True, eq=False)
class Film:
    """A held-out person in motion from one pose to another, by their seeds: the source picture
    (H, W, 3) and the true frames."""

    identity_seed: int
    start_seed: int
    end_seed: int
    source: NDArray[np.uint8]
    truth: tuple[Sample, ...]

    @property
    def pictures(self) -> Frames:
        return np.stack([sample.image for sample in self.truth])

    @property
    def parsings(self) -> list[NDArray[np.uint8]]:
        return [sample.parsing for sample in self.truth]


@dataclass(frozen=True, eq=False)
class FilmScores:
    """Of each frame (F,): `iou` of the outline, 0..1; `ssim`; `hand_ssim`, NaN without a hand in
    the picture. Of each of REGIONS: `wavering`, 0..255."""

    iou: NDArray[np.float64]
    ssim: NDArray[np.float64]
    hand_ssim: NDArray[np.float64]
    wavering: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MeasuredFilm:
    """What was generated of a film (F, H, W, 3), its scores, and those that put them in place.

    `truth`: the true frames; `strangers`: another person in each frame, in the right pose.
    `frozen_iou` (F,): the true last frame, shown throughout.
    """

    film: Film
    pictures: Frames
    scores: FilmScores
    truth: FilmScores
    strangers: FilmScores
    frozen_iou: NDArray[np.float64]


def film_set(count: int, frames: int = FRAMES, split: str = "test") -> tuple[Film, ...]:
    """`count` people of the split, each in a motion between two poses of the split.

    Raises ValueError for fewer than 1 film or 2 frames.
    """
    if count < 1:
        raise ValueError(f"There must be at least one film, got {count}.")
    people = [int(seed) for seed in split_seeds(split, 0, count)]
    poses = [int(seed) for seed in split_seeds(split, 0, 3 * count)]
    films = []
    for row, person in enumerate(tqdm(people, desc="render films", unit="film")):
        source, start, end = poses[row], poses[count + 2 * row], poses[count + 2 * row + 1]
        truth = tuple(render_motion(person, start, end, frames))
        films.append(Film(person, start, end, render(person, source).image, truth))
    return tuple(films)


def score_film(pictures: Frames, film: Film) -> FilmScores:
    """Scores of generated frames (F, H, W, 3) against the film's true ones.

    Raises ValueError where number or size of the frames differ.
    """
    truths, parsings = film.pictures, film.parsings
    pairs = list(zip(pictures, film.truth, strict=True))
    hands = [hand_ssim(p, t.image, with_hands_at_wrists(t.pose.people[0])) for p, t in pairs]
    return FilmScores(
        silhouette_scores(pictures, truths, parsings)["iou"],
        np.array([ssim_released(picture, true.image) for picture, true in pairs]),
        np.array(hands, np.float64),
        wavering(pictures, parsings, tuple(REGIONS.values())),
    )


def with_hands_at_wrists(person: Person) -> Person:
    """The person with each visible wrist for the hand's middle knuckle.

    A mannequin has hands and no fingers, so the patch that hand SSIM looks at lies around the
    wrist, half a hand from where it lies on a photo.
    """
    hands = []
    for side in ("left", "right"):
        hand = np.zeros((PART_POINTS[f"{side}_hand"], 3), np.float32)
        hand[MIDDLE_KNUCKLE] = person.body[BODY_NAMES.index(f"{side}_wrist")]
        hands.append(hand)
    return Person(person.body, *hands)


def sample_film(
    models: DemoModels,
    film: Film,
    settings: SamplingSettings,
    noise_seed: int,
    device: torch.device | str,
    batch_size: int = 20,
) -> Frames:
    """The film's person in each of its poses, as FPDM Sequence makes them by default.

    All frames start from the same noise. The frames do not depend on `batch_size`.
    """
    frames = []
    height, width = film.truth[0].parsing.shape
    for start in range(0, len(film.truth), batch_size):
        part = film.truth[start : start + batch_size]
        maps = np.stack([draw(sample.pose, height, width, "fpdm") for sample in part])
        sources = np.repeat(film.source[None], len(part), axis=0)
        source, pose = (torch.from_numpy(x).to(device).float() / 255 for x in (sources, maps))
        seeds = [noise_seed] * len(part)
        latents = sample_latents(models.fpdm, source, pose, seeds, settings)
        with torch.no_grad():
            frames.append(to_uint8(models.decode(latents)).numpy())
    return np.concatenate(frames)


def measure_films(
    models: DemoModels,
    films: Sequence[Film],
    settings: SamplingSettings,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 20,
) -> tuple[MeasuredFilm, ...]:
    """Sample and measure every film; the models must be on `device`. `seed` chooses the noise."""
    measured = []
    for row, film in enumerate(tqdm(films, desc="sample films", unit="film")):
        noise = seed * 1_000_003 + row
        pictures = sample_film(models, film, settings, noise, device, batch_size)
        truths = film.pictures
        last = np.broadcast_to(truths[-1], truths.shape)
        measured.append(
            MeasuredFilm(
                film,
                pictures,
                score_film(pictures, film),
                score_film(truths, film),
                score_film(_strangers(film, row), film),
                silhouette_scores(last, truths, film.parsings)["iou"],
            )
        )
    return tuple(measured)


def _strangers(film: Film, row: int) -> Frames:
    """Another training person in each frame, in that frame's pose."""
    count = len(film.truth)
    people = split_seeds("train", row * count, count)
    return np.stack(
        [
            render_motion(int(person), film.start_seed, film.end_seed, count)[frame].image
            for frame, person in enumerate(people)
        ]
    )
