# SPDX-License-Identifier: GPL-3.0-or-later
"""Tuned LoRAs on disk: one safetensors file each, complete or not there at all.

`python -m pose_transfer.oneposetrans.cache list FOLDER` shows them, `... prune FOLDER` removes the
oldest. The files are ordinary LoRAs; how the tuning went stands in their metadata, and the previews
beside them in a PNG of the same name, side by side. Whatever else lies in the folder is left alone:
ours are named by 32 hexadecimal digits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..drafts import replacing
from ..errors import CheckpointError
from ..images import from_uint8, to_uint8
from ..weights import read_weights, write_weights

_METADATA = "pose_transfer_tuning"
_OURS = re.compile(r"[0-9a-f]{32}\.(safetensors|png)")
_DRAFT = re.compile(rf"\.{_OURS.pattern}\.\w+\.part")  # as `replacing` names them
_STALE = 3600.0  # seconds after which a draft's writer is surely gone
_LISTED = 60  # characters of a caption in the list


@dataclass(frozen=True, eq=False)
class TunedLoRA:
    """`tensors` as files hold them, the loss of each step, and previews (N, H, W, 3) in [0, 1].

    `about` is what the list shows: JSON values such as the caption and the settings.
    """

    tensors: dict[str, Tensor]
    loss: tuple[float, ...]
    previews: Tensor
    about: Mapping[str, object]


def lora_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.safetensors"


def save(folder: Path, key: str, tuned: TunedLoRA) -> Path:
    """Writes the previews, then the LoRA: whoever finds the LoRA finds all of it."""
    path = lora_path(folder, key)
    folder.mkdir(parents=True, exist_ok=True)
    strip = np.concatenate(list(to_uint8(tuned.previews)), axis=1)
    with replacing(path.with_suffix(".png")) as draft:
        Image.fromarray(strip).save(draft, format="PNG")
    told = {"loss": tuned.loss, "previews": len(tuned.previews), **tuned.about}
    write_weights(path, tuned.tensors, {"format": "pt", _METADATA: json.dumps(told)})
    return path


def load(folder: Path, key: str) -> TunedLoRA | None:
    """The LoRA of that key, or None, also for a file that is damaged: a warning then names it.

    Such a file stays where it is until `save` replaces it.
    """
    path = lora_path(folder, key)
    if not path.is_file():
        return None
    try:
        weights = read_weights(path)
        about = _told(weights.metadata)
        loss = tuple(float(value) for value in about.pop("loss"))
        frames = int(about.pop("previews"))
    except (CheckpointError, KeyError, TypeError, ValueError) as error:
        reason = error if isinstance(error, CheckpointError) else "it does not say how it was tuned"
        logging.warning("The tuned LoRA %s is left aside and tuned again: %s", path, reason)
        return None
    with contextlib.suppress(OSError):  # a folder that may only be read
        os.utime(path)  # pruning removes what was not used for long
    return TunedLoRA(weights.tensors, loss, _previews(path, frames), about)


def _previews(path: Path, frames: int) -> Tensor:
    try:
        with Image.open(path.with_suffix(".png")) as file:
            strip = from_uint8(np.array(file.convert("RGB")))
        return torch.stack(strip[0].chunk(frames, dim=1))
    # Only the picture was lost or exchanged: the LoRA is good without it.
    except (OSError, SyntaxError, RuntimeError, Image.DecompressionBombError):
        return torch.zeros(1, 64, 64, 3)


def listing(folder: Path) -> str:
    """A table: key, when it was last used, size, steps and last loss, caption."""
    lines = [f"{'key':32}  {'last used':16}  {'MB':>7}  {'steps':>5}  {'loss':>8}  caption"]
    for path in _files(folder):
        about, stat = _about(path), path.stat()
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(stat.st_mtime))
        losses = about.get("loss") or [float("nan")]
        caption = str(about.get("caption", "?")).replace("\n", " ")[:_LISTED]
        lines.append(
            f"{path.stem:32}  {used:16}  {stat.st_size / 1e6:7.1f}  {len(losses):5}  "
            f"{losses[-1]:8.4f}  {caption}"
        )
    return "\n".join(lines)


def prune(folder: Path, keep: int) -> list[Path]:
    """Removes all but the `keep` LoRAs used last, and what killed processes left; returns those."""
    removed = _files(folder)[keep:]
    pictures = [path.with_suffix(".png") for path in removed]
    left = [path for path in folder.iterdir() if _is_stale(path)]
    for path in (*removed, *pictures, *left):
        path.unlink(missing_ok=True)
    return removed + left


def _is_stale(path: Path) -> bool:
    """A draft, or previews without their LoRA, whose writer is surely gone."""
    if _DRAFT.fullmatch(path.name) is None and not _is_orphan(path):
        return False
    try:
        return path.is_file() and time.time() - path.stat().st_mtime > _STALE
    except OSError:  # gone meanwhile
        return False


def _is_orphan(path: Path) -> bool:
    is_picture = path.suffix == ".png" and _OURS.fullmatch(path.name) is not None
    return is_picture and not path.with_suffix(".safetensors").exists()


def _files(folder: Path) -> list[Path]:
    """Tuned LoRAs, the one used last first; files of other origin are left alone."""
    found = [
        path
        for path in folder.glob("*.safetensors")
        if _OURS.fullmatch(path.name) and path.is_file() and _about(path)
    ]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _about(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return _told(file.metadata() or {})
    except (OSError, SafetensorError, KeyError, ValueError):
        return {}


def _told(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What `save` wrote; KeyError or ValueError where nobody or another wrote it."""
    about = json.loads(metadata[_METADATA])
    if not isinstance(about, dict):
        raise ValueError(f"{_METADATA} is a {type(about).__name__}, expected names and values.")
    return about


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status: 0 if all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m pose_transfer.oneposetrans.cache",
        description="LoRAs that Tune LoRA made, in ComfyUI's output/pose_transfer/loras.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("list", "show them"), ("prune", "remove those not used for longest")):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", type=Path, metavar="FOLDER")
        if name == "prune":
            command.add_argument("--keep", type=int, default=20, help="how many stay (20)")
    asked = parser.parse_args(arguments)
    if not asked.folder.is_dir():
        print(f"There is no folder {asked.folder}.", file=sys.stderr)
        return 1
    if asked.command == "list":
        print(listing(asked.folder))
        return 0
    if asked.keep < 0:
        print(f"--keep is {asked.keep}, expected 0 or more.", file=sys.stderr)
        return 1
    for path in prune(asked.folder, asked.keep):
        print(f"removed {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
