# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures' regions on disk: a parser runs once for each picture, before training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...detectors.base import PersonParser
from ...drafts import replacing
from ...errors import CheckpointError
from ...truepose import region_maps
from ...types import Parsing
from .layouts import Picture

CELL = 8
"""Side of what one latent stands for, px."""


@dataclass(frozen=True)
class Regions:
    """A folder of soft region masks, one file for each picture and size.

    A file's name is the hash of everything that decides its content: the parser's weights, the
    size, the picture's path, length and time of change.
    """

    folder: Path
    parser: str
    height: int
    width: int

    def read(self, path: Path, flipped: bool) -> Tensor:
        """Area averages over latent cells, (R, H/8, W/8) float32 in [0, 1]."""
        maps = torch.from_numpy(np.load(self._file(path), allow_pickle=False)).float() / 255
        return maps.flip(-1) if flipped else maps  # no region is of one side only

    def fill(
        self,
        pictures: Iterable[tuple[Picture, str]],
        parser: PersonParser,
        accelerator: Accelerator,
    ) -> None:
        """Parse pictures, each with where it is named, as far as they are not there.

        Every process does its part.
        Raises PoseTransferError for a picture that cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = list({picture.path: (picture, where) for picture, where in pictures}.values())
        mine = [
            (picture, where)
            for picture, where in wanted[accelerator.process_index :: accelerator.num_processes]
            if not self._file(picture.path).exists()
        ]
        for number, (picture, where) in enumerate(mine):
            size = self.width, self.height
            image = picture.image(where).resize(size, Image.Resampling.BICUBIC)
            labels, names = parser.parse(np.array(image))
            maps = F.avg_pool2d(region_maps(Parsing(labels[None], names)), CELL)[0]
            with replacing(self._file(picture.path)) as draft, draft.open("wb") as file:
                np.save(file, (maps * 255).round().byte().numpy())
            if accelerator.is_main_process and number % 200 == 0:
                print(f"regions: {number + 1} of {len(mine)} pictures", flush=True)
        accelerator.wait_for_everyone()

    def _file(self, path: Path) -> Path:
        stat = os.stat(path)
        key = json.dumps(
            [self.parser, self.height, self.width, str(path.absolute()), stat.st_size,
             stat.st_mtime_ns]
        )  # fmt: skip
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"


def load_parser(path: Path) -> PersonParser:
    """SegFormer from its folder, SCHP from parsing_atr.onnx or parsing_lip.onnx.

    Raises CheckpointError.
    """
    if path.is_dir():
        from ...detectors.segformer import load_segformer

        return load_segformer(path)
    from ...detectors.schp import ATR, LIP, load_schp

    variants = {"parsing_atr.onnx": ATR, "parsing_lip.onnx": LIP}
    if path.name not in variants:
        raise CheckpointError(
            f"model.parser: {path} is no parser: expected a folder with segformer_b2_clothes, or "
            f"the file {' or '.join(variants)}."
        )
    return load_schp(path, variants[path.name])
