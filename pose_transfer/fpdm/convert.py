# SPDX-License-Identifier: GPL-3.0-or-later
"""Released checkpoints into one safetensors file of ours: smaller, mapped into memory, no pickle.

`python -m pose_transfer.fpdm convert stage2.ckpt [--fusion last.ckpt] fpdm.safetensors`
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from ..errors import CheckpointError
from ..weights.transfer import sha256_of
from .checkpoint import FPDM_PARTS, PREFIXES, load_checkpoint, save_checkpoint
from .model import FPDM

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""Short name -> what a file stores numbers as."""

SUFFIX = ".safetensors"


def convert(
    path: Path, target: Path, fusion_path: Path | None = None, dtype: str | None = None
) -> list[str]:
    """Write `target`, complete or not at all; returns the names of FPDM_PARTS that it lacks.

    `dtype`: a key of DTYPES, by default each part as `path` stores it: then both files give the
    same numbers. The file's metadata names what it was made from, with sha256. Raises
    CheckpointError for a file that cannot be read or a target that is not a new `.safetensors`.
    """
    sources = [path] if fusion_path is None else [path, fusion_path]
    if target.suffix.lower() != SUFFIX:
        raise CheckpointError(
            f"The new file is called {target.name}, expected a name that ends in {SUFFIX}."
        )
    if target.resolve() in [source.resolve() for source in sources]:
        raise CheckpointError(
            f"{target} would be written over what it is made from. Give the new file another name."
        )
    fpdm = load_checkpoint(path, fusion_path, dtype=None)
    provenance = {
        "made by": "python -m pose_transfer.fpdm convert",
        "from": [_described(source) for source in sources],
        "stored as": dtype or "in the files",
    }
    save_checkpoint(
        fpdm, target, dtype=None if dtype is None else DTYPES[dtype], provenance=provenance
    )
    return [part for part in FPDM_PARTS if getattr(fpdm, part) is None]


def with_base(
    fpdm: FPDM, unet: UNet2DConditionModel, vae: AutoencoderKL | None, latent_scale: float
) -> FPDM:
    """The same networks with another UNet and autoencoder; `fpdm` stays as it is.

    `latent_scale`: see FPDMPreprocess. Raises ValueError where the widths do not fit.
    """
    parts: dict[str, Any] = {part: getattr(fpdm, part) for part in PREFIXES}
    parts |= {"unet": unet, "vae": vae}
    return FPDM(**parts, preprocess=replace(fpdm.preprocess, latent_scale=latent_scale))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status: 0 if all is well."""
    asked = _parser().parse_args(arguments)
    start = time.perf_counter()
    try:
        lacking = convert(asked.checkpoint, asked.target, asked.fusion, asked.dtype)
    except (CheckpointError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    size, spent = asked.target.stat().st_size, time.perf_counter() - start
    print(f"{asked.target}: {size / 1e9:.2f} GB in {spent:.0f} s")
    if "combiner" in lacking or "image_tower" in lacking:
        print(
            "It has no fusion model, so Fusion Embedding cannot run on it: convert again with "
            "--fusion and stage 1's file, or choose that file beside it in Load FPDM."
        )
    if "unet" in lacking:
        print("It has no UNet: Load FPDM cannot use it alone.")
    if "vae" in lacking:
        print("It has no autoencoder: connect Stable Diffusion's to Load FPDM.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pose_transfer.fpdm", description="FPDM's model files."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "convert",
        help="released checkpoints into one .safetensors",
        description="Writes one .safetensors for Load FPDM. A pickle in the checkpoints is read "
        "as weights only, no code in it runs.",
    )
    command.add_argument("checkpoint", type=Path, metavar="IN", help="stage 2's checkpoint")
    command.add_argument("target", type=Path, metavar="OUT", help="the new .safetensors")
    command.add_argument(
        "--fusion", type=Path, metavar="FILE", help="stage 1's checkpoint, if IN is without"
    )
    command.add_argument(
        "--dtype", choices=list(DTYPES), help="store numbers so; by default as IN does"
    )
    return parser


def _described(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
