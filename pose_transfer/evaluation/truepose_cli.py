# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.evaluation truepose`: measure TruePose's parts on the demo models."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..demo.models import TRUEPOSE_WEIGHTS
from .truepose import Settings, evaluate, hard_pairs, load_models
from .truepose_report import write_report


def main(arguments: Sequence[str]) -> int:
    """Runs the command; the exit status: 0 if all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m pose_transfer.evaluation truepose", description=__doc__
    )
    parser.add_argument("--pairs", type=int, default=200, help="hard held-out pairs")
    parser.add_argument("--seed", type=int, default=0, help="which of them, and their noise")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the report")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--strength", type=float, default=4.0, help="of the training-free guide")
    parser.add_argument("--batch-size", type=int, default=20, help="changes no picture")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--weights", type=Path, default=TRUEPOSE_WEIGHTS, help="the trained pair's file"
    )
    given = parser.parse_args(arguments)
    if min(given.pairs, given.steps, given.batch_size) < 1:
        parser.error("--pairs, --steps and --batch-size must be 1 or more")
    try:
        models = load_models(given.device, given.weights)
        settings = Settings(given.steps, given.guidance, given.strength)
        result = evaluate(
            models, hard_pairs(given.pairs, given.seed), settings, given.seed, given.batch_size,
            given.device,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    command = shlex.join(["python", "-m", "pose_transfer.evaluation", "truepose", *arguments])
    print(f"Report: {write_report(result, given.out, command)}")
    return 0
