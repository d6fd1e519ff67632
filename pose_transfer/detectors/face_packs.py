# SPDX-License-Identifier: GPL-3.0-or-later
"""Where insightface's model packs lie on disk. Nothing is downloaded here.

The packs are for non-commercial research only, whatever the licence of insightface's code says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import CheckpointError
from ..weights import missing

ANTELOPEV2 = "antelopev2"
BUFFALO_L = "buffalo_l"
PACKS = (ANTELOPEV2, BUFFALO_L)


def find_pack(pack: str, roots: Sequence[str | Path]) -> Path:
    """The folder with a pack's ONNX files, below one of the folders `models/insightface`.

    The zip of antelopev2 holds a folder of its own, so many people have its files one level too
    deep (models/antelopev2/antelopev2): both places are searched, and the fuller one is taken.
    Raises CheckpointError, which says how to get the files.
    """
    usual = [Path(root, "models", pack) for root in roots]
    places = [place for folder in usual for place in (folder, folder / pack)]
    fullest = max(places, key=_networks, default=None)
    if fullest is None or not _networks(fullest):
        raise CheckpointError(missing(pack, usual))
    return fullest


def _networks(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*.onnx"))
