# SPDX-License-Identifier: GPL-3.0-or-later
"""SegFormer that was trained on clothes, through transformers; from local files only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import CheckpointError, MissingDependencyError
from .base import Picture

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"


class SegFormer:
    """A parser of photos; the label names are those of its configuration, ATR's if released.

    `network` is a SegformerForSemanticSegmentation, to be moved to the device that shall run it;
    `preprocess` the SegformerImageProcessor that belongs to it.
    """

    name = "SegFormer clothes"

    def __init__(self, network: nn.Module, preprocess: Any) -> None:
        self.network, self._preprocess = network, preprocess
        names: dict[int, str] = network.config.id2label  # pyright: ignore
        self.labels = tuple(names[index] for index in sorted(names))

    @property
    def provider(self) -> str:
        return str(next(self.network.parameters()).device)

    @torch.inference_mode()
    def parse(self, picture: Picture) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """As the model's page does: its logits, brought to the picture's size, then the largest."""
        pixels = self._preprocess(images=picture, return_tensors="pt")["pixel_values"]
        logits = self.network(pixel_values=pixels.to(self.provider)).logits
        logits = nn.functional.interpolate(
            logits.float(), size=picture.shape[:2], mode="bilinear", align_corners=False
        )
        return logits[0].argmax(0).byte().cpu().numpy(), self.labels


def load_segformer(folder: str | Path) -> SegFormer:
    """From a folder with config.json and model.safetensors, as segformer_b2_clothes has them.

    Without preprocessor_config.json the pictures are prepared as for segformer_b2_clothes: 512x512
    px, bilinear, ImageNet's mean and deviation. Nothing is downloaded. Raises CheckpointError, and
    MissingDependencyError without transformers.
    """
    folder = Path(folder)
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise CheckpointError(
                f"{folder} has no {file}, expected {CONFIG} and {WEIGHTS}. Download both files of "
                "segformer_b2_clothes into that folder."
            )
    try:
        from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor
    except ImportError as error:
        raise MissingDependencyError(
            f"SegFormer needs the package transformers, which cannot be imported ({error}). "
            "Install it into ComfyUI's Python with 'pip install transformers', restart ComfyUI, or "
            "choose another parser."
        ) from error
    try:
        loaded: Any = SegformerForSemanticSegmentation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        network, found = loaded
        # Its own defaults are what segformer_b2_clothes wants.
        preprocess = (
            SegformerImageProcessor.from_pretrained(folder, local_files_only=True)
            if (folder / PREPROCESSOR).is_file()
            else SegformerImageProcessor()
        )
    except Exception as error:  # safetensors, JSON and transformers share no base class
        raise CheckpointError(
            f"The SegFormer in {folder} cannot be loaded: {str(error)[:400]} Download its files "
            "again."
        ) from error
    wrong = sorted(map(str, {*found["missing_keys"], *found["mismatched_keys"]}))
    if wrong:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not fit {CONFIG}: {len(wrong)} weights are missing or have "
            f"another shape, the first is {wrong[0]}. Download both files from the same place."
        )
    return SegFormer(network.eval().requires_grad_(False), preprocess)
