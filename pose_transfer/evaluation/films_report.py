# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's section on films, and its picture: written with the rest or by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .films import REGIONS, FilmScores, MeasuredFilm, film_set, measure_films
from .models import DemoModels
from .page import markdown_table, replace_section
from .paper import TABLES
from .sampling import SamplingSettings
from .statistics import Estimate, bootstrap

HEADING = "## Films"
PICTURE = "benchmark_films.jpg"
SHOWN = 3
"""Films in the picture."""


@dataclass(frozen=True, eq=False)
class FilmResult:
    """Films that were measured with one setting; `fingerprints` are checksums of the weights."""

    films: tuple[MeasuredFilm, ...]
    settings: SamplingSettings
    fingerprints: Mapping[str, str]


def measure(
    count: int,
    models: DemoModels,
    settings: SamplingSettings,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 20,
) -> FilmResult:
    """Measure the models on `count` held-out people in motion. Raises ValueError for none."""
    films = measure_films(
        models, film_set(count), settings, seed=seed, device=device, batch_size=batch_size
    )
    return FilmResult(films, settings, models.fingerprints)


def update_report(result: FilmResult, folder: Path) -> None:
    """Write the section into benchmark.md and benchmark.json of `folder`, and leave the rest."""
    draw_strips(result, folder)
    replace_section(folder, HEADING, section(result), "films", summary(result))


def draw_strips(result: FilmResult, folder: Path) -> None:
    """Write images/benchmark_films.jpg below `folder`."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    strips(result).save(images / PICTURE, quality=92, subsampling=0)


def section(result: FilmResult) -> str:
    """The report's text."""
    frames = len(result.films[0].pictures)
    s = result.settings
    files = ", ".join(f"`{name}` {digits}" for name, digits in result.fingerprints.items())
    return f"""{HEADING}

FPDM Sequence's way with a film, measured without ComfyUI: {len(result.films)} held-out people, each
in {frames} frames of a motion between two held-out poses, from one source picture and one noise for
all frames; DDIM, {s.steps} steps, source weight {s.source_weight}, fusion weight
{s.fusion_weight}. Weights (sha256): {files or "-"}.

![Films: the truth above, the result below](images/{PICTURE})

Silhouette IoU of each frame; the last row is what the true last frame scores against each:

{_frames_table(result)}

How much the mean colour of a region varies over the frames of a film (standard deviation, 0..255;
mean of the films, and the film that varies most):

{_colours_table(result)}

The truth varies by the light on a turning figure. Strangers: another person in each frame, in the
right pose.

The measures of the paper's table of sign language, mean over the frames:

{_signs_table(result)}

Hand SSIM: patch of 60 x 60 px around the wrist, since mannequins have no knuckles. Hand pose error
does not apply: it needs fingers. The paper's figures are of photos, by a model of the released
size, and not measured here: they show the scale, no more.{_unseen(result)}"""


def _frames_table(result: FilmResult) -> str:
    rows = [
        [f"person {film.film.identity_seed}", *(f"{value:.3f}" for value in film.scores.iou)]
        for film in result.films
    ]
    every = np.stack([film.scores.iou for film in result.films])
    rows.append(["**mean**", *(f"{value:.3f}" for value in every.mean(axis=0))])
    frozen = np.stack([film.frozen_iou for film in result.films]).mean(axis=0)
    rows.append(["a still picture", *(f"{value:.3f}" for value in frozen)])
    return markdown_table(["", *(str(n + 1) for n in range(every.shape[1]))], rows)


def _colours_table(result: FilmResult) -> str:
    rows = []
    for title, kind in (("FPDM", "scores"), ("truth", "truth"), ("strangers", "strangers")):
        values = _wavering(result, kind)
        seen = [column[~np.isnan(column)] for column in values.T]
        cells = [f"{x.mean():.1f}, {x.max():.1f}" if len(x) else "-" for x in seen]
        rows.append([title, *cells])
    return markdown_table(["", *REGIONS], rows)


def _signs_table(result: FilmResult) -> str:
    rows = []
    for title, kind in (("FPDM, mannequins", "scores"), ("strangers", "strangers")):
        cells = [_cell(_of_frames(result, kind, name)) for name in ("ssim", "hand_ssim")]
        rows.append([title, *cells, "-"])
    (signs,) = (table for table in TABLES if "hand_ssim" in next(iter(table.rows.values())))
    for method, row in signs.rows.items():
        cells = [f"{row[name]:.3f}" for name in ("ssim", "hand_ssim")]
        rows.append([f"{method} (paper, {signs.title})", *cells, f"{row['hand_error']:.2f}"])
    return markdown_table(["", "SSIM", "hand SSIM", "hand pose error, px"], rows)


def _unseen(result: FilmResult) -> str:
    count = int(np.isnan(_of_frames(result, "scores", "hand_ssim")).sum())
    return f" Frames without a hand in the picture: {count}." if count else ""


def _cell(values: NDArray[np.float64]) -> str:
    found = bootstrap(values)
    if np.isnan(found.mean):
        return "-"
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _wavering(result: FilmResult, kind: str) -> NDArray[np.float64]:
    """(films, regions)."""
    return np.stack([getattr(film, kind).wavering for film in result.films])


def _of_frames(result: FilmResult, kind: str, name: str) -> NDArray[np.float64]:
    """(films * F,)."""
    return np.concatenate([getattr(getattr(film, kind), name) for film in result.films])


def summary(result: FilmResult) -> dict[str, object]:
    """The same for programs."""
    return {
        "weights_sha256": dict(result.fingerprints),
        "steps": result.settings.steps,
        "source_weight": result.settings.source_weight,
        "fusion_weight": result.settings.fusion_weight,
        "films": [
            {
                "identity": film.film.identity_seed,
                "start_pose": film.film.start_seed,
                "end_pose": film.film.end_seed,
                **{k: _facts(getattr(film, k)) for k in ("scores", "truth", "strangers")},
            }
            for film in result.films
        ],
        "means": {
            name: _finite(bootstrap(_of_frames(result, "scores", name)))
            for name in ("iou", "ssim", "hand_ssim")
        },
    }


def _facts(scores: FilmScores) -> dict[str, object]:
    return {
        **{name: _numbers(getattr(scores, name)) for name in ("iou", "ssim", "hand_ssim")},
        "wavering": dict(zip(REGIONS, _numbers(scores.wavering), strict=True)),
    }


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """JSON knows no NaN."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _finite(estimate: Estimate) -> dict[str, float | int | None]:
    return {key: value if np.isfinite(value) else None for key, value in vars(estimate).items()}


def strips(result: FilmResult) -> Image.Image:
    """The first films: the source, then the true frames above and the generated ones below."""
    gap, caption = 12, 18
    shown = result.films[:SHOWN]
    count, height, width = shown[0].pictures.shape[:3]
    block = 2 * height + caption
    sheet = Image.new(
        "RGB", ((count + 1) * width + gap, len(shown) * block + (len(shown) - 1) * gap), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for row, film in enumerate(shown):
        top = row * (block + gap)
        pen.text((width / 2, top + caption / 2), "source", fill="black", anchor="mm")
        sheet.paste(Image.fromarray(film.film.source), (0, top + caption))
        for frame, overlap in enumerate(film.scores.iou):
            left = width + gap + frame * width
            words = f"frame {frame + 1}, IoU {overlap:.2f}"
            pen.text((left + width / 2, top + caption / 2), words, fill="black", anchor="mm")
            sheet.paste(Image.fromarray(film.film.truth[frame].image), (left, top + caption))
            sheet.paste(Image.fromarray(film.pictures[frame]), (left, top + caption + height))
        for line, word in enumerate(("truth", "result")):
            place = (width, top + caption + (line + 0.5) * height)
            pen.text(place, word, fill="black", anchor="rm")
    return sheet
