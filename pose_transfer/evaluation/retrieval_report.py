# SPDX-License-Identifier: GPL-3.0-or-later
"""What retrieval found in a folder of pairs, written down: Markdown, CSV, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from .folder_report import csv_text
from .paper import RETRIEVAL
from .retrieval import RetrievalScores

Scores = Mapping[str, Mapping[str, RetrievalScores]]
"""Method -> gallery -> scores, as `evaluate_retrieval` gives them."""

_HEADING = "|  | R@1 | R@3 | R@5 | mean rank |\n| --- | --- | --- | --- | --- |"


def write_retrieval_report(scores: Scores, out: Path) -> list[Path]:
    """Write retrieval.md, .csv and .json into `out`, which is made; returns what was written."""
    out.mkdir(parents=True, exist_ok=True)
    summary = {
        method: {gallery: asdict(found) for gallery, found in row.items()}
        for method, row in scores.items()
    }
    texts = {
        "retrieval.md": f"# Retrieval: does the embedding find the target?\n\n{markdown(scores)}\n",
        "retrieval.csv": retrieval_csv(scores),
        "retrieval.json": json.dumps(summary, indent=1) + "\n",
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="")
    return [out / name for name in texts]


def markdown(scores: Scores) -> str:
    """A table for each gallery, and the paper's rows."""
    parts = []
    for gallery in next(iter(scores.values())):
        first = next(iter(scores.values()))[gallery]
        rows = [_row(method, row[gallery]) for method, row in scores.items()]
        parts.append(f"Gallery: {gallery}, {first.gallery} pictures; {first.queries} queries.")
        parts.append("\n".join([_HEADING, *rows]))
    paper = [
        f"| {method} (paper) | " + " | ".join(f"{value:.3f}" for value in row) + " |"
        for method, row in RETRIEVAL.items()
    ]
    parts.append("Reported by the FPDM paper on DeepFashion, not measured here:")
    parts.append("\n".join([_HEADING, *paper]))
    return "\n\n".join(parts)


def retrieval_csv(scores: Scores) -> str:
    """One line for each method and gallery."""
    rows = [
        [method, gallery, *(f"{x:.6f}" for x in (s.r1, s.r3, s.r5, s.mean_rank)), s.queries,
         s.gallery]
        for method, row in scores.items()
        for gallery, s in row.items()
    ]  # fmt: skip
    return csv_text(
        ["method", "gallery", "r1", "r3", "r5", "mean_rank", "queries", "gallery_pictures"], rows
    )


def _row(method: str, s: RetrievalScores) -> str:
    return f"| {method} | {s.r1:.3f} | {s.r3:.3f} | {s.r5:.3f} | {s.mean_rank:.3f} |"
