# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches of generated persons against the true ones: outline, colours, patterns, faces.

Every function takes pictures (N, H, W, 3) uint8 RGB and gives one number per picture, (N,), NaN
where the truth does not show what is asked for. The parsing is the truth's, so that a picture is
asked for the right thing in the right place. No label of any taxonomy is known here: callers name
the regions, so one measure serves every benchmark, of whatever method.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..detectors import FaceEncoder
from ..detectors.base import Face, Picture
from .metrics import colour_errors, colours_right, silhouette_iou
from .pattern import pattern_similarities

Scores = dict[str, NDArray[np.float64]]


def mean_of_visible(values: NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN where all are."""
    visible = values[~np.isnan(values)]
    return float(visible.mean()) if len(visible) else float("nan")


def silhouette_scores(
    generated: Iterable[Picture], truths: Iterable[Picture], parsings: Iterable[NDArray[np.uint8]]
) -> Scores:
    """`iou`, 0..1, of the outlines; label 0 of a parsing (H, W) is the background.

    For pictures with a flat backdrop; see `metrics.silhouette_iou`.
    """
    triples = zip(generated, truths, parsings, strict=True)
    values = [silhouette_iou(picture, truth, labels > 0) for picture, truth, labels in triples]
    return {"iou": np.array(values, np.float64)}


def colour_scores(
    generated: Iterable[Picture],
    truths: Iterable[Picture],
    parsings: Iterable[NDArray[np.uint8]],
    regions: Mapping[str, int],
    garments: Iterable[str],
) -> Scores:
    """Errors of the regions' mean colours, 0..255.

    `regions` maps names to label numbers, `garments` are some of these names. `colour_<region>`,
    `colour` (mean over the visible regions) and `colour_right` (0 or 1: all visible garments are
    within `metrics.RIGHT_COLOUR`).
    """
    labels, names = tuple(regions.values()), list(regions)
    columns = [names.index(name) for name in garments]
    rows = [
        colour_errors(picture, truth, parsing, labels)
        for picture, truth, parsing in zip(generated, truths, parsings, strict=True)
    ]
    return {
        "colour": np.array([mean_of_visible(row) for row in rows], np.float64),
        "colour_right": np.array([colours_right(row[columns]) for row in rows], np.float64),
        **{
            f"colour_{name}": np.array([row[column] for row in rows], np.float64)
            for column, name in enumerate(names)
        },
    }


def pattern_scores(
    generated: Iterable[Picture],
    truths: Iterable[Picture],
    parsings: Iterable[NDArray[np.uint8]],
    garments: Mapping[str, int],
) -> Scores:
    """How much of each garment's pattern was kept, 0..1 (see `pattern.py`).

    `garments` maps names to label numbers; `pattern_<garment>` and `pattern`, the mean of those
    that are visible.
    """
    labels = tuple(garments.values())
    rows = [
        pattern_similarities(picture, truth, parsing, labels)
        for picture, truth, parsing in zip(generated, truths, parsings, strict=True)
    ]
    return {
        "pattern": np.array([mean_of_visible(row) for row in rows], np.float64),
        **{
            f"pattern_{name}": np.array([row[column] for row in rows], np.float64)
            for column, name in enumerate(garments)
        },
    }


def face_similarity(found: Sequence[Face], expected: Sequence[Face]) -> float:
    """Cosine, -1..1, of the embeddings of the largest faces of two pictures.

    0 where the reference shows a face and the picture none, for a lost face must not improve a
    mean; NaN where the reference shows none.
    """
    if not expected:
        return float("nan")
    if not found:
        return 0.0
    a, b = (max(x, key=lambda face: face.box.area).raw.astype(float) for x in (found, expected))
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def face_scores(
    generated: Iterable[Picture], references: Iterable[Picture], encoder: FaceEncoder
) -> Scores:
    """`face`: `face_similarity` of every pair; references are the truths or the sources."""

    pairs = zip(generated, references, strict=True)
    values = [face_similarity(encoder.faces(x), encoder.faces(y)) for x, y in pairs]
    return {"face": np.array(values, np.float64)}
