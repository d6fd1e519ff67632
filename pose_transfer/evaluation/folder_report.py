# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured in a folder, written down: Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from . import folder_figures
from .folder import MEASURES, FolderResult
from .page import markdown_table
from .paper import PaperTable, table_for
from .statistics import Estimate

SMALL_SET = 2048
"""Fewer pictures than features: the covariance is then singular and FID strongly biased."""


def write_folder_report(result: FolderResult, out: Path, worst: int = 8) -> list[Path]:
    """Write evaluation.md, .csv, .json, scores.csv, histograms.png and worst_<measure>.png.

    Into `out`; `worst` pairs are shown of each measure, 0 leaves the sheets out. Returns what was
    written. Raises MissingDependencyError where matplotlib is not installed, before anything is
    written.
    """
    histograms = folder_figures.histograms(result)
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "histograms.png"]
    histograms.savefig(written[0], dpi=110)
    sheets = []
    if worst:
        for name in result.scores:
            sheet = folder_figures.worst_sheet(result, name, worst)
            if sheet is not None:
                sheets.append(out / f"worst_{name}.png")
                sheet.save(sheets[-1])
    texts = {
        "evaluation.md": markdown(result, [path.name for path in sheets]),
        "evaluation.csv": summary_csv(result),
        "evaluation.json": json.dumps(summary(result), indent=1, ensure_ascii=False) + "\n",
        "scores.csv": scores_csv(result),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="")
        written.append(out / name)
    return written + sheets


def summary_csv(result: FolderResult) -> str:
    """The table of the report: one line for each measure, with all digits that are known.

    A cell is empty where there is no such value: FID has no interval, only the pictures of its
    reference.
    """
    rows: list[list[object]] = []
    for name, value in result.estimates().items():
        numbers = (_cell(x) for x in (value.mean, value.low, value.high))
        rows.append([name, MEASURES[name].heading, *numbers, value.count, "", _better(name)])
    for name, value in result.fid.items():
        pairs, reference = len(result.matched.pairs), result.counts[name]
        heading = MEASURES[name].heading
        rows.append([name, heading, _cell(value), "", "", pairs, reference, _better(name)])
    return csv_text(
        ["measure", "title", "mean", "low", "high", "pairs", "reference_pictures", "better"], rows
    )


def csv_text(heading: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Lines that end in a line feed on every system, as the other tables' do."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return out.getvalue()


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"


def _better(name: str) -> str:
    return "more" if MEASURES[name].more_is_better else "less"


def scores_csv(result: FolderResult) -> str:
    """One line for each pair; a cell is empty where the pair has no such value."""
    rows = [
        [pair.name, *(_cell(scores[row]) for scores in result.scores.values())]
        for row, pair in enumerate(result.matched.pairs)
    ]
    return csv_text(["name", *result.scores], rows)


def summary(result: FolderResult) -> dict[str, object]:
    """Means with their intervals, for programs."""
    matched = result.matched
    return {
        "pairs": len(matched.pairs),
        "resized_to": result.size and list(result.size),
        "sizes": [
            {"height": h, "width": w, "pairs": count} for (h, w), count in result.sizes.items()
        ],
        "measures": {name: _finite(value) for name, value in result.estimates().items()},
        "fid": {
            name: {
                "value": value if np.isfinite(value) else None,
                "reference_pictures": result.counts[name],
            }
            for name, value in result.fid.items()
        },
        "instruments": dict(result.instruments),
        "without_truth": list(matched.without_truth),
        "without_generated": list(matched.without_generated),
        "without_source": list(matched.without_source),
    }


def _finite(estimate: Estimate) -> dict[str, float | int | None]:
    """JSON knows no NaN and no infinity."""
    return {key: value if np.isfinite(value) else None for key, value in vars(estimate).items()}


def markdown(result: FolderResult, sheets: Sequence[str] = ()) -> str:
    """The report as text."""
    parts = [
        "# Generated pictures against the truth",
        _about(result),
        results_table(result),
        _fid_remarks(result),
        _paper(result),
        "## Distribution\n\n![Histogram of every measure](histograms.png)",
    ]
    if sheets:
        lines = "\n".join(f"![The worst pairs by {_heading(name)}]({name})" for name in sheets)
        parts.append(f"## Worst pairs\n\n{lines}")
    return "\n\n".join(part for part in parts if part) + "\n"


def results_table(result: FolderResult) -> str:
    """Every measure with its mean, 95 % interval and number of pairs."""
    rows = []
    for name, value in result.estimates().items():
        interval = (
            "-"
            if not np.isfinite(value.mean)
            else (f"{_number(name, value.low)} to {_number(name, value.high)}")
        )
        rows.append(
            [
                MEASURES[name].heading,
                _number(name, value.mean),
                interval,
                str(value.count),
                _better(name),
            ]
        )
    for name, value in result.fid.items():
        count = f"{len(result.matched.pairs)} and {result.counts[name]}"
        rows.append([MEASURES[name].heading, _number(name, value), "-", count, _better(name)])
    return markdown_table(["measure", "mean", "95 % interval", "pairs", "better"], rows)


def _number(name: str, value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.{MEASURES[name].decimals}f}"


def _heading(sheet: str) -> str:
    return MEASURES[sheet.removeprefix("worst_").removesuffix(".png")].heading


def _about(result: FolderResult) -> str:
    sizes = ", ".join(f"{count} of {h} x {w}" for (h, w), count in result.sizes.items())
    lines = [f"{len(result.matched.pairs)} pairs; height x width in px: {sizes}."]
    if result.size is not None:
        lines.append(
            f"All pictures were resized to {result.size[0]} x {result.size[1]} first (bicubic)."
        )
    lines += [f"{what}: {which}." for what, which in result.instruments.items()]
    return "\n".join(lines + result.matched.remarks())


def _fid_remarks(result: FolderResult) -> str:
    smallest = min([len(result.matched.pairs), *result.counts.values()])
    if not result.fid or smallest >= SMALL_SET:
        return ""
    return (
        f"**FID of {smallest} pictures is biased upwards**, the more the fewer they are: compare "
        "it only with FIDs of as many pictures."
    )


def _paper(result: FolderResult) -> str:
    """The paper's rows, where it measured pictures of this size."""
    tables = [table_for(size) for size in result.sizes] if len(result.sizes) == 1 else []
    table = next((table for table in tables if table is not None), None)
    if table is None:
        return ""
    return (
        f"## Reported by the FPDM paper, not measured here\n\n{paper_rows(table)}\n\n"
        f"On the test set of {table.title} (H x W). Only figures for that very test set can be "
        "compared with these, FID only with torchvision's Inception weights."
    )


def paper_rows(table: PaperTable) -> str:
    names = [name for name in MEASURES if any(name in row for row in table.rows.values())]
    rows = [
        [f"{method} (paper)", *(_number(name, row.get(name, np.nan)) for name in names)]
        for method, row in table.rows.items()
    ]
    return markdown_table(["", *(MEASURES[name].heading for name in names)], rows)
