# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's report: benchmark.md, its plots and contact sheet, and benchmark.json.

The text is a function of the result: the same weights, seed and pairs give the same file.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..mannequin import LABELS, PATTERNS
from . import detectors, films_report
from .figures import draw_figures
from .metrics import RIGHT_COLOUR
from .page import markdown_table
from .results import BenchmarkResult, Method
from .retrieval import POSES_PER_PERSON
from .sampling import SamplingSettings
from .scores import REGIONS
from .statistics import Estimate, bootstrap, paired_difference

MEASURES: dict[str, tuple[str, float, int]] = {
    # score: (heading, factor, decimals)
    "ssim": ("SSIM", 1, 3),
    "psnr": ("PSNR, dB", 1, 2),
    "iou": ("silhouette IoU", 1, 3),
    "colour": ("colour error, 0..255", 1, 1),
    "colour_right": ("right colours, %", 100, 1),
    "pattern": ("pattern similarity", 1, 3),
    "class_right": ("right pattern class, %", 100, 1),
}
FILMS = 6
"""Films that the command measures when nothing else is said."""
VIEWS = ("front", "side", "back")
TARGETS = (("colour_right", 0.95), ("class_right", 0.85), ("iou", 0.85))
"""What the project set itself for the shipped model, before it was trained."""


def write_report(result: BenchmarkResult, folder: Path) -> None:
    """Write benchmark.md, benchmark.json and images/benchmark_* into `folder`.

    Raises MissingDependencyError where matplotlib is not installed.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    draw_figures(result, images)
    if result.films:
        films_report.draw_strips(result.films, folder)
    (folder / "benchmark.md").write_text(markdown(result), encoding="utf-8")
    (folder / "benchmark.json").write_text(
        json.dumps(summary(result), indent=1) + "\n", encoding="utf-8"
    )


def summary(result: BenchmarkResult) -> dict[str, object]:
    """Every mean with its interval, for programs."""
    return {
        "pairs": len(result.data.pairs),
        "seed": result.seed,
        "steps": result.settings.steps,
        "source_weight": result.settings.source_weight,
        "fusion_weight": result.settings.fusion_weight,
        "weights_sha256": dict(result.fingerprints),
        "views": {view: int((result.data.views == view).sum()) for view in VIEWS},
        "missing": [variant.name for variant in result.missing],
        "methods": {
            method.name: {
                name: _finite(bootstrap(values)) for name, values in method.scores.items()
            }
            for method in result.methods
        },
        "retrieval": {
            name: {gallery: vars(scores) for gallery, scores in row.items()}
            for name, row in result.retrieval.items()
        },
        **({"films": films_report.summary(result.films)} if result.films else {}),
        **({"detectors": detectors.summary(result.detectors)} if result.detectors else {}),
    }


def _finite(estimate: Estimate) -> dict[str, float | int | None]:
    """JSON knows no NaN and no infinity."""
    return {key: value if np.isfinite(value) else None for key, value in vars(estimate).items()}


def command(result: BenchmarkResult) -> str:
    """The command line that makes this report."""
    standard = SamplingSettings()
    words = ["python -m pose_transfer.evaluation demo", f"--pairs {len(result.data.pairs)}"]
    words += [f"--seed {result.seed}", "--out docs/"]
    if result.variants_given:
        words.append("--variants DIR")
    if result.gallery != 1000:
        words.append(f"--gallery {result.gallery}")
    films = len(result.films.films) if result.films else 0
    if films != FILMS:
        words.append(f"--films {films}")
    pictures = len(result.detectors.alone.found) if result.detectors else 0
    if pictures != 300:
        words.append(f"--detector-pictures {pictures}")
    if result.device != "cpu":
        words.append(f"--device {result.device}")
    for option in ("steps", "source_weight", "fusion_weight"):
        if (value := getattr(result.settings, option)) != getattr(standard, option):
            words.append(f"--{option.replace('_', '-')} {value}")
    return " ".join(words)


def markdown(result: BenchmarkResult) -> str:
    """The whole report as text."""
    sections = [
        _introduction(result),
        _main_table(result),
        _targets(result),
        _ablation(result),
        _carried(result),
        _retrieval(result),
        _details(result),
        _definitions(result),
        films_report.section(result.films) if result.films else "",
        detectors.section(result.detectors) if result.detectors else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _cell(estimate: Estimate, factor: float = 1, decimals: int = 3) -> str:
    if np.isnan(estimate.mean):
        return "-"
    if np.isinf(estimate.mean):
        return "inf"
    mean, low, high = (
        f"{factor * x:.{decimals}f}" for x in (estimate.mean, estimate.low, estimate.high)
    )
    return f"{mean} [{low}, {high}]"


def _introduction(result: BenchmarkResult) -> str:
    views = ", ".join(f"{int((result.data.views == v).sum())} {v}" for v in VIEWS)
    files = ", ".join(f"`{name}` {digits}" for name, digits in result.fingerprints.items())
    s = result.settings
    return f"""# How well the demo models re-pose a person

Made by `{command(result)}`; do not edit by hand.

{len(result.data.pairs)} pairs of held-out identities and poses of the mannequin world (test split,
seed {result.seed}); target views: {views}. DDIM, {s.steps} steps, source weight {s.source_weight},
fusion weight {s.fusion_weight}; every method that samples starts from the same noise. In brackets:
95 % confidence interval, percentile bootstrap over the pairs. Weights (sha256): {files or "-"}.

![The first pairs: source, pose, truth, result](images/benchmark_pairs.jpg)"""


def _main_table(result: BenchmarkResult) -> str:
    shown = [name for name in MEASURES if any(name in m.scores for m in result.methods)]
    rows = []
    for method in result.methods:
        cells = [_cell(bootstrap(method.scores[name]), *MEASURES[name][1:]) for name in shown]
        rows.append([f"**{method.name}**: {method.title}", *cells])
    for variant in result.missing:
        rows.append([f"**{variant.name}**: {variant.title}", *["not measured"] * len(shown)])
    text = "## All methods\n\n" + markdown_table(["", *(MEASURES[name][0] for name in shown)], rows)
    text += "\n\n![Every measure by method](images/benchmark_methods.png)"
    if "class_right" not in shown:
        text += "\n\nThe pattern judge's weights were not at hand: no pattern classes."
    if result.missing:
        names = ", ".join(variant.name for variant in result.missing)
        text += (
            f"\n\nNot measured: {names}. Their weights are not shipped; train them and name their "
            "folder with `--variants`."
        )
    return text


def _targets(result: BenchmarkResult) -> str:
    shipped, copy, mean = (result.method(name) for name in ("B6", "copy", "mean"))
    if shipped is None:
        return ""
    lines = []
    for name, floor in TARGETS:
        heading, factor, decimals = MEASURES[name]
        if name not in shipped.scores:
            lines.append(f"- {heading}: not measured.")
            continue
        got = bootstrap(shipped.scores[name])
        verdict = "reached" if got.mean >= floor else "**not reached**"
        lines.append(
            f"- {heading}: {_cell(got, factor, decimals)}, wanted at least {factor * floor:g}: "
            f"{verdict}."
        )
    for name in ("ssim", "psnr"):
        heading, factor, decimals = MEASURES[name]
        for other in (copy, mean):
            if other is not None:
                gain = paired_difference(shipped.scores[name], other.scores[name])
                verdict = "above" if gain.low > 0 else "**not clearly above**"
                lines.append(
                    f"- {heading} against {other.title}: {_cell(gain, factor, decimals)}: "
                    f"{verdict}."
                )
    return "## Against the targets\n\nFor B6, the shipped model.\n\n" + "\n".join(lines)


def _ablation(result: BenchmarkResult) -> str:
    """Paired differences of B6 to the other variants, with as many steps behind it as they."""
    shipped = result.method("B6+") or result.method("B6")
    others = [m for name in ("B3", "B4", "B5") if (m := result.method(name)) is not None]
    if shipped is None or not others:
        return ""
    table, worse = _gains(shipped, others)
    verdict = (
        f"{shipped.name} is clearly below in: " + "; ".join(worse) + "."
        if worse
        else f"{shipped.name} is clearly below the others in no measure: the paper's ordering is "
        "not refuted."
    )
    past = (
        "" if result.method("B6+") is None
        else " B3 to B6+ began with the shipped weights and were trained on, each with its own in "
        "the fusion slot and for the same few steps: what a network without it would have become "
        "from the start, they do not tell."
    )  # fmt: skip
    return (
        "## Ablation: what the fusion embedding adds\n\nMean difference over the same pairs and "
        "noise (for the colour error less is better). A difference is clear where its interval "
        f"leaves out 0.{past}\n\n{table}\n\n{verdict}"
    )


def _carried(result: BenchmarkResult) -> str:
    """Paired differences of the shipped model to itself without the part that is not FPDM's."""
    shipped, without = result.method("B6"), result.method("B6-")
    if shipped is None or without is None:
        return ""
    table, _ = _gains(shipped, [without])
    return (
        "## What the carried colours add\n\nThe demo's FPDM has one part that the paper's has not: "
        "the source's colours, carried to where the pose wants them by the places that the demo's "
        "towers know (`fpdm/transport.py`). With it, less without it, same weights:\n\n" + table
    )


def _gains(shipped: Method, others: list[Method]) -> tuple[str, list[str]]:
    """A table of paired differences, and in what the shipped model is clearly below."""
    shown = [name for name in MEASURES if name in shipped.scores]
    rows, worse = [], []
    for other in others:
        cells = []
        for name in shown:
            gain = paired_difference(shipped.scores[name], other.scores[name])
            cells.append(_cell(gain, *MEASURES[name][1:]))
            lost = gain.low > 0 if name == "colour" else gain.high < 0
            if lost:
                worse.append(f"{MEASURES[name][0]} against {other.name}")
        rows.append([f"{shipped.name} - {other.name}", *cells])
    return markdown_table(["", *(MEASURES[name][0] for name in shown)], rows), worse


def _retrieval(result: BenchmarkResult) -> str:
    if not result.retrieval:
        return ""
    titles = {"A1": "source only", "A2": "IPF, baseline loss", "A3": "IPF, source-enhanced loss"}
    parts = []
    for gallery in ("targets", "targets and sources"):
        rows = []
        for name, title in titles.items():
            if name not in result.retrieval:
                rows.append([f"**{name}**: {title}", *["not measured"] * 4])
                continue
            s = result.retrieval[name][gallery]
            shares = [f"{share:.3f}" for share in (s.r1, s.r3, s.r5)]
            rows.append([f"**{name}**: {title}", *shares, f"{s.mean_rank:.2f}"])
        size = result.retrieval["A3"][gallery].gallery
        table = markdown_table(["", "R@1", "R@3", "R@5", "mean rank"], rows)
        parts.append(f"Gallery: {gallery}, {size} pictures.\n\n{table}")
    order = [result.retrieval[name]["targets"].r1 for name in titles if name in result.retrieval]
    holds = all(a < b for a, b in pairwise(order))
    verdict = "holds" if holds else "does **not** hold"
    names = " < ".join(name for name in titles if name in result.retrieval)
    queries = result.retrieval["A3"]["targets"].queries
    past = " A2's tower began with A3's weights." if "A2" in names and result.method("B6+") else ""
    return (
        "## Retrieval: does the fusion embedding point at the target?\n\n"
        f"{queries} queries of a held-out source and a target pose; every person is in the gallery "
        f"in {POSES_PER_PERSON} poses. With the sources in the gallery an embedding of the source "
        "alone finds itself first.\n\n" + "\n\n".join(parts)
        + f"\n\nThe ordering {names} in R@1 among the targets {verdict}.{past}"
    )  # fmt: skip


def _details(result: BenchmarkResult) -> str:
    shipped = result.method("B6")
    if shipped is None:
        return ""
    shown = [name for name in MEASURES if name in shipped.scores]
    rows = []
    for view in VIEWS:
        chosen = result.data.views == view
        cells = [
            _cell(bootstrap(shipped.scores[name][chosen]), *MEASURES[name][1:]) for name in shown
        ]
        rows.append([f"{view} ({int(chosen.sum())})", *cells])
    text = "## Where B6 is strong and weak\n\nBy the target's view:\n\n" + markdown_table(
        ["", *(MEASURES[name][0] for name in shown)], rows
    )
    text += "\n\n![Measures by view](images/benchmark_views.png)"
    names = [LABELS[region] for region in REGIONS]
    methods = [m for m in result.methods if m.name not in ("mean", "truth")]
    rows = [
        [m.name, *(f"{np.nanmean(m.scores[f'colour_{name}']):.1f}" for name in names)]
        for m in methods
        if all(not np.isnan(m.scores[f"colour_{name}"]).all() for name in names)
    ]
    text += "\n\nColour error by region, 0..255:\n\n" + markdown_table(["", *names], rows)
    return text + _pattern_classes(result, shipped)


def _pattern_classes(result: BenchmarkResult, shipped: Method) -> str:
    """Shares of garments whose pattern was named rightly, beside what the judge can do at all."""
    if "class_upper" not in shipped.scores:
        return ""
    rows = []
    compared = [m for name in ("truth", "autoencoder", "B6") if (m := result.method(name))]
    for number, pattern in enumerate(PATTERNS):
        cells = []
        for column, garment in enumerate(("upper", "lower")):
            chosen = result.data.classes[:, column] == number
            cells.append(str(int(chosen.sum())))
            for method in compared:
                values = method.scores[f"class_{garment}"][chosen]
                seen = values[~np.isnan(values)]
                cells.append(f"{100 * seen.mean():.0f}" if len(seen) else "-")
        rows.append([pattern, *cells])
    heading = [""]
    for garment in ("upper", "lower"):
        heading += [f"{garment}: count", *(f"{m.name}, %" for m in compared)]
    return (
        "\n\nRight pattern class by pattern; the judge on the truth is the ceiling:\n\n"
        + markdown_table(heading, rows)
    )


def _definitions(result: BenchmarkResult) -> str:
    return f"""## What is measured

- **SSIM**: Gaussian window of sigma 1.5 (11 x 11), data range 255, mean over RGB. **PSNR**: all
  pixels, data range 255. A blurred picture scores well in both: read them with the rest.
- **Silhouette IoU**: pixels that differ from a plane fitted to the frame's border, against the true
  figure. Pixels at which the true picture's own silhouette errs (ground shadow, rim) are left out.
- **Colour error**: mean absolute difference of a region's mean colour, regions by the truth's
  parsing. **Right colours**: both garments within {RIGHT_COLOUR:g} of 255, fixed before training.
- **Pattern similarity**: contrast-structure term of SSIM, summed over RGB, on windows of half a
  pattern period and more inside each garment, best over displacements up to 4 pixels; 1 for the
  truth, plain cloth rendered plain scores near 1. The level of chance is the row "stranger".
- **Right pattern class**: both garments have the identity's class of {len(PATTERNS)} in the eyes of
  a judge that was trained on true pictures apart from the models. The row "truth" is its ceiling.
- **stranger**: the next pair's person rendered in this pair's pose: right pose, wrong person."""
