# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/truepose.md: what TruePose's parts bring, in words that follow from the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .statistics import Estimate
from .tables import Measures, cell, differences_table, means_table
from .truepose import HARD_PATTERNS, TITLES, TRAINED, TURN, TruePoseResult

MEASURES: Measures = {
    "pattern_upper": ("pattern, upper garment", 1),
    "pattern_lower": ("pattern, lower garment", 1),
    "pattern": ("pattern, both", 1),
    "colour_upper": ("colour error, upper", -1),
    "colour_lower": ("colour error, lower", -1),
    "colour_hair": ("colour error, hair", -1),
    "colour_face": ("colour error, face", -1),
    "face": ("face similarity", 1),
    "ssim": ("SSIM", 1),
    "psnr": ("PSNR, dB", 1),
    "iou": ("silhouette IoU", 1),
    "garment_mass": ("attention on garments", 1),
}
DIFFERENCES = (
    ("pose_free", "pose"), ("caption_free", "caption"), ("full", "no_hpfa"), ("full", "no_caa"),
    ("full", "fpdm"),
)  # fmt: skip
_ROWS = 8


def markdown(result: TruePoseResult, command: str, picture: str) -> str:
    """The report."""
    titles = {name: title for name, title in TITLES.items() if name in result.scores}
    differences = [x for x in DIFFERENCES if set(x) <= titles.keys()]
    lines = [
        "# Does TruePose help?",
        "",
        f"Made by `{command}`; do not edit by hand.",
        "",
        f"{len(result.pairs)} held-out pairs of the mannequin world, hard ones: an upper garment "
        f"with a pattern ({', '.join(HARD_PATTERNS)}) and a turn of at least {TURN:.0f} degrees. "
        f"{result.settings.steps} steps from the same noise each time; in brackets the 95 % "
        "confidence interval, percentile bootstrap over the pairs. Colour errors are 0..255. "
        "*Attention on garments* is the share of all self-attention of the person's tokens that "
        "falls on the source's garments, the diagnosis of the paper's Figure 2. Training-free, the "
        f"strength is {result.settings.strength:g} and SourceNet is told the source's own pose.",
        "",
        f"![source, {', '.join(titles.values())}, truth]({picture})",
        "",
    ]
    if "full" not in titles:
        lines += [
            "This copy of the pack holds no trained pair, so only the training-free mode is "
            "measured.",
            "",
        ]
    lines += [
        *means_table(titles, MEASURES, result.estimate),
        "",
        "## Paired differences",
        "",
        "In bold where the interval leaves out zero.",
        "",
        *differences_table(titles, differences, MEASURES, result.difference),
        "",
        "## What it says",
        "",
        *(f"- {line}" for line in verdicts(result)),
    ]
    return "\n".join(lines) + "\n"


def verdicts(result: TruePoseResult) -> list[str]:
    """One sentence for each question of the paper's ablation, after the intervals."""
    asked = [
        ("pose_free", "pose", "Training-free TruePose", "pattern"),
        ("caption_free", "caption", "Training-free TruePose beside a caption", "pattern"),
    ]
    if set(TRAINED) <= result.scores.keys():
        asked += [
            ("full", "no_hpfa", "HPFA", "pattern"),
            ("full", "no_caa", "CAA", "pattern"),
            ("full", "no_hpfa", "HPFA", "garment_mass"),
        ]
    told = {"pattern": "pattern similarity", "garment_mass": "the attention on garments"}
    return [
        f"{who} {_verb(found)} {told[measure]}: {cell(found, signed=True)}."
        for first, second, who, measure in asked
        for found in [result.difference(first, second, measure)]
    ]


def _verb(found: Estimate) -> str:
    if not found.clear:
        return "does not clearly change"
    return "improves" if found.mean > 0 else "worsens"


def sheet(result: TruePoseResult) -> Image.Image:
    """The first pairs: source, the variants, truth."""
    strips = [
        np.concatenate(
            [pair.source.image, *(drawn[i] for drawn in result.pictures.values()),
             pair.target.image],
            axis=1,
        )
        for i, pair in enumerate(result.pairs[:_ROWS])
    ]  # fmt: skip
    return Image.fromarray(np.concatenate(strips))


def write_report(result: TruePoseResult, out: Path, command: str) -> Path:
    """truepose.md and .json, images/truepose.jpg in the folder `out`; the first's path."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    sheet(result).save(out / "images" / "truepose.jpg", quality=88)
    scores = {
        name: {key: [float(v) if np.isfinite(v) else None for v in row[key]] for key in MEASURES}
        for name, row in result.scores.items()
    }
    seeds = [[p.identity_seed, p.source_pose_seed, p.target_pose_seed] for p in result.pairs]
    told = {"command": command, "seeds": seeds, "scores": scores}
    (out / "truepose.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    path = out / "truepose.md"
    path.write_text(markdown(result, command, "images/truepose.jpg"), encoding="utf-8")
    return path
