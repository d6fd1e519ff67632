# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.evaluation demo`: measure the demo models, write the report."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import detectors, films_report
from .models import load_demo_models
from .protocol import benchmark
from .report import FILMS
from .sampling import SamplingSettings


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pose_transfer.evaluation demo", description=__doc__
    )
    parser.add_argument("--pairs", type=int, default=200, help="held-out test pairs")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the report")
    parser.add_argument("--variants", type=Path, help="folder with B3, B4, B5 .safetensors")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gallery", type=int, default=1000, help="retrieval targets; 0: none")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--source-weight", type=float, default=2.0)
    parser.add_argument("--fusion-weight", type=float, default=2.0)
    parser.add_argument("--detector-pictures", type=int, default=300, help="for detectors; 0: none")
    parser.add_argument("--films", type=int, default=FILMS, help="people in motion; 0: none")
    parser.add_argument(
        "--latents", type=Path, help="folder that keeps what was sampled, for runs after this"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--detectors-only", action="store_true", help="measure these, keep the report's rest"
    )
    only.add_argument(
        "--films-only", action="store_true", help="measure these, keep the report's rest"
    )
    given = parser.parse_args(arguments)
    settings = SamplingSettings(given.steps, given.source_weight, given.fusion_weight)
    if given.detectors_only:
        detectors.update_report(detectors.measure_detectors(given.detector_pictures), given.out)
        print(f"Report: {given.out / 'benchmark.md'}")
        return
    if given.films_only:
        models = load_demo_models(given.device)
        place = {"seed": given.seed, "device": given.device, "batch_size": given.batch_size}
        films = films_report.measure(given.films, models, settings, **place)
        films_report.update_report(films, given.out)
        print(f"Report: {given.out / 'benchmark.md'}")
        return
    benchmark(
        given.pairs,
        given.out,
        given.variants,
        device=given.device,
        seed=given.seed,
        gallery=given.gallery,
        batch_size=given.batch_size,
        settings=settings,
        detector_pictures=given.detector_pictures,
        films=given.films,
        latents=given.latents,
    )
    print(f"Report: {given.out / 'benchmark.md'}")


if __name__ == "__main__":
    main()
