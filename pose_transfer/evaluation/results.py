# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark run found, before it is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .detectors import DetectorResult
from .films_report import FilmResult
from .models import Variant
from .retrieval import RetrievalScores
from .sampling import SamplingSettings
from .scores import PairSet


@dataclass(frozen=True, eq=False)
class Method:
    """A way to make the target picture: its pictures (N, H, W, 3) uint8 and scores, each (N,)."""

    name: str
    title: str
    pictures: NDArray[np.uint8]
    scores: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """Everything that the report shows. `missing` are variants whose weights were not at hand."""

    data: PairSet
    methods: tuple[Method, ...]
    missing: tuple[Variant, ...]
    retrieval: Mapping[str, Mapping[str, RetrievalScores]]
    settings: SamplingSettings
    seed: int
    device: str
    fingerprints: Mapping[str, str]
    variants_given: bool
    gallery: int
    detectors: DetectorResult | None = None
    films: FilmResult | None = None

    def method(self, name: str) -> Method | None:
        """The method of that name, None where it was not measured."""
        return next((method for method in self.methods if method.name == name), None)
