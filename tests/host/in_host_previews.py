# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside the host: what nodes send of their work, and the pictures that they make for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from PIL import Image
from pose_transfer_pack.nodes import attention_sheet, compare, palette_sheet, previews, tuning_sheet
from pose_transfer_pack.pose_transfer.mannequin import render
from pose_transfer_pack.pose_transfer.oneposetrans.cache import TunedLoRA
from pose_transfer_pack.pose_transfer.parsing import LABELS, PALETTE


def check() -> dict[str, Any]:
    return {**_kept(), **_compared(), **_arranged(), **_palette(), **_attention(), **_tuning()}


def _read(file: dict[str, str]) -> np.ndarray:
    path = Path(folder_paths.get_temp_directory(), file["subfolder"], file["filename"])
    return np.asarray(Image.open(path))


def _kept() -> dict[str, Any]:
    noise = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    large = np.zeros((4000, 2000, 3), np.uint8)
    first, second = previews.shown([noise, large])["images"]
    return {
        "equal": bool(np.array_equal(_read(first), noise)),
        "made smaller": _read(second).shape,
        "temporary": first["type"],
        "chosen": [previews.chosen(1), previews.chosen(3), previews.chosen(1000)],
    }


def _compared() -> dict[str, Any]:
    source, result = torch.zeros(1, 16, 8, 3), torch.ones(2, 32, 24, 3)
    without = compare.Compare.execute(source, source, result)
    output = compare.Compare.execute(source, source, result, result * 0.5)
    shown = output.ui
    (sheet,) = shown["pose_transfer_sheet"]
    return {
        "keys": [sorted(without.ui), sorted(shown)],
        "counts": {name: len(files) for name, files in shown.items()},
        "shapes": {name: _read(x[0]).shape for name, x in shown.items() if "metrics" not in name},
        "sheet is the output": bool(
            np.allclose(_read(sheet), output.result[0][0].numpy() * 255, atol=1)
        ),
        "metrics": [
            f"{m['name']} against truth: SSIM {m['ssim']}, PSNR {m['psnr']} dB"
            for m in shown["pose_transfer_metrics"]
        ]
        == output.result[1].splitlines(),
    }


def _arranged() -> dict[str, Any]:
    tile = np.full((20, 10, 3), 7, np.uint8)
    return {
        "grids": [previews.grid([tile] * count).shape for count in (1, 2, 4, 9)],
        "all there": int((previews.grid([tile] * 5) == 7).all(-1).sum()) == 5 * 200,
        "titled": previews.titled(tile, "t", 12).shape,
    }


def _palette() -> dict[str, Any]:
    labels = render(9, 19).parsing
    sheet = palette_sheet.palette_sheet(labels)
    legend = sheet[2 * labels.shape[0] :].reshape(-1, 3)
    present = {LABELS[i] for i in np.unique(labels)}
    named = {x for x in LABELS if x != "background" and (legend == PALETTE[x]).all(-1).any()}
    every = np.arange(len(LABELS), dtype=np.uint8).repeat(600)[None].repeat(40, 0)
    return {
        "palette": sheet.shape,
        "legend": sorted(named) == sorted(present - {"background"}),
        "wide": palette_sheet.palette_sheet(every).shape[1],
    }


def _attention() -> dict[str, Any]:
    maps = torch.zeros(20, 9, 4, 3)
    maps[:, 2], maps[0, 5, 1, 1] = 0.5, 0.25
    sheets = attention_sheet.sheets_by_picture(maps, 32, 24)
    return {"attention": [len(sheets), sheets[0].shape[1] >= 2 * 24]}


def _tuning() -> dict[str, Any]:
    def sheet(count: int, steps: int, every: int) -> tuple[int, ...]:
        previews_ = torch.rand(count, 64, 48, 3)
        tuned = TunedLoRA({}, tuple(1 / (i + 1) for i in range(steps)), previews_, {})
        return tuning_sheet.tuning_sheet(tuned, every).shape

    return {
        "tuning": [sheet(3, 60, 20), sheet(1, 1, 0)],
        "steps": [
            tuning_sheet.preview_steps(60, 20, 3),
            tuning_sheet.preview_steps(50, 20, 3),
            tuning_sheet.preview_steps(60, 0, 1),
            tuning_sheet.preview_steps(31, 20, 2),
        ],
    }
