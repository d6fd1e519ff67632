# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.training.demo`: make the demo weights from nothing.

Stages, in order: render, autoencoder, source_tower, image_tower, pose_tower, fusion,
fusion_baseline, latents, places, first_block, diffusion, decoder, export, judge, person, face, vcm.
Each leaves its state in the work folder and is skipped when it is done; a stopped one goes on where
it was.
Independent stages may run in processes of their own beside each other, also while `render` is still
at work.

On demand only: `ablation` trains the second stage's end once more for each of B3 to B5 of the
benchmark; B3, B4, B5 and B6+ are its parts. `shipped` starts a new work folder from the shipped
weights, with the second stage near its schedule's end: to train them on, or for the ablation
without a whole run (`--stages shipped render ablation`).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from . import shipped
from .fpdm_stages import ABLATION
from .reader_stages import ReaderStages
from .settings import PRESETS
from .vcm import VCMStage

STAGES = (
    "render", "autoencoder", "source_tower", "image_tower", "pose_tower", "fusion",
    "fusion_baseline", "latents", "places", "first_block", "diffusion", "decoder", "export",
    "judge", "person", "face", "vcm",
)  # fmt: skip
EXTRA_STAGES = ("shipped", "ablation", *ABLATION)


class DemoTraining(VCMStage, ReaderStages):
    """The stages over one work folder."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--work", type=Path, default=cache / "comfyui-pose-transfer" / "training")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "demo" / "weights"
    )
    parser.add_argument("--preset", choices=PRESETS, default=None, help="default: by the hardware")
    parser.add_argument("--stages", nargs="+", choices=STAGES + EXTRA_STAGES, default=STAGES)
    parser.add_argument("--diffusion-steps", type=int, help="length of the diffusion schedule")
    parser.add_argument("--until", type=int, help="stop the diffusion stage at this step")
    options = parser.parse_args()
    preset = options.preset or ("gpu" if torch.cuda.is_available() else "cpu")
    settings = PRESETS[preset]
    if options.diffusion_steps:
        settings = replace(
            settings, diffusion=replace(settings.diffusion, steps=options.diffusion_steps)
        )
    training = DemoTraining(options.work, settings, options.out, preset)
    for name in options.stages:
        if name == "diffusion":
            training.diffusion(options.until)
        elif name == "shipped":
            shipped.seed(training)
        elif name in ABLATION:
            training.variant(name)
        else:
            getattr(training, name)()


if __name__ == "__main__":
    main()
