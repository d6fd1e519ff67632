# SPDX-License-Identifier: GPL-3.0-or-later
"""The parsers that the node offers.

Their modules are imported when one is chosen: each needs packages that may not be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..pose_transfer.detectors import PersonParser
from . import host
from .once import load_once

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
        parser, patcher = load_once(_segformer, weights.parent)
        host.on_device(patcher)
        return parser
    if name == SCHP_ATR:
        return load_once(_schp_atr, *_schp_file("schp_atr", "parsing_atr.onnx"))
    if name == SCHP_LIP:
        return load_once(_schp_lip, *_schp_file("schp_lip", "parsing_lip.onnx"))
    from ..pose_transfer.detectors.demo import load_demo_parser

    return load_once(load_demo_parser)


def _schp_file(model: str, file: str) -> list[Path]:
    return host.model_files(host.PARSING_FOLDER, model, [file])


def _segformer(folder: Path) -> tuple[PersonParser, Any]:
    from ..pose_transfer.detectors.segformer import load_segformer

    parser = load_segformer(folder)
    # In a list: the host sets `device` on what it manages, which transformers' classes forbid.
    return parser, host.managed(nn.ModuleList([parser.network]))


def _schp_atr(path: Path) -> PersonParser:
    from ..pose_transfer.detectors.schp import ATR, load_schp

    return load_schp(path, ATR)


def _schp_lip(path: Path) -> PersonParser:
    from ..pose_transfer.detectors.schp import LIP, load_schp

    return load_schp(path, LIP)
