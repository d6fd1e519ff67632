# SPDX-License-Identifier: GPL-3.0-or-later
"""The parsers that the node offers, each loaded once for as long as its files stay the same.

Their modules are imported when one is chosen: each needs packages that may not be there.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from ..pose_transfer.detectors import PersonParser
from . import host

SEGFORMER = "SegFormer clothes"
SCHP_ATR = "SCHP ATR"
SCHP_LIP = "SCHP LIP"
DEMO = "mannequin (demo)"
PARSERS = (SEGFORMER, SCHP_ATR, SCHP_LIP, DEMO)


def load_parser(name: str) -> PersonParser:
    """The parser of that name. Raises CheckpointError and MissingDependencyError."""
    if name == SEGFORMER:
        folder = "segformer_b2_clothes"
        names = [f"{folder}/config.json", f"{folder}/model.safetensors"]
        _, weights = host.model_files(host.PARSING_FOLDER, folder, names)
        parser, patcher = _segformer(weights.parent, _stamp(weights))
        host.on_device(patcher)
        return parser
    if name == DEMO:
        return _demo()
    atr = name == SCHP_ATR
    model, file = ("schp_atr", "parsing_atr.onnx") if atr else ("schp_lip", "parsing_lip.onnx")
    (path,) = host.model_files(host.PARSING_FOLDER, model, [file])
    return _schp(path, atr, _stamp(path))


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns


@lru_cache(maxsize=1)
def _segformer(folder: Path, modified: int) -> tuple[PersonParser, Any]:
    from ..pose_transfer.detectors.segformer import load_segformer

    parser = load_segformer(folder)
    # In a list: the host sets `device` on what it manages, which transformers' classes forbid.
    return parser, host.managed(nn.ModuleList([parser.network]))


@lru_cache(maxsize=2)
def _schp(path: Path, atr: bool, modified: int) -> PersonParser:
    from ..pose_transfer.detectors.schp import ATR, LIP, load_schp

    return load_schp(path, ATR if atr else LIP)


@lru_cache(maxsize=1)
def _demo() -> PersonParser:
    from ..pose_transfer.detectors.demo import load_demo_parser

    return load_demo_parser()
