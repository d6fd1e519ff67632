# SPDX-License-Identifier: GPL-3.0-or-later
"""Source, pose, result and truth side by side, and how near the result comes to the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..pose_transfer.images import as_rgb, broadcast_batches, from_uint8, resize_bicubic, to_uint8
from . import previews

BACKGROUND = (250, 250, 250)
INK = (40, 40, 40)


class Compare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PoseTransferCompare",
            display_name="Compare Poses",
            category="pose transfer/compare",
            description="Lays source, pose, result and truth over each other under a slider, puts "
            "them side by side, one row for each picture of the batch, and measures the result "
            "against the truth.",
            search_aliases=[
                "contact sheet",
                "side by side",
                "slider",
                "before and after",
                "ssim",
                "psnr",
                "metrics",
                "grid",
            ],
            inputs=[
                io.Image.Input("source", tooltip="The person as given."),
                io.Image.Input("pose_map", tooltip="The target pose as drawn."),
                io.Image.Input("result", tooltip="What was generated; its size is used for all."),
                io.Image.Input(
                    "truth",
                    optional=True,
                    tooltip="What it should look like, where that is known. Without it there are "
                    "no metrics.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet", tooltip="One picture with a row for each of the batch."
                ),
                io.String.Output(
                    display_name="metrics",
                    tooltip="SSIM (1 is equal) and PSNR (dB) of the result against the truth, and "
                    "of the source against it, which is what copying would score.",
                ),
            ],
            is_output_node=True,  # the slider is what many look for here
        )

    @classmethod
    def execute(
        cls,
        source: torch.Tensor,
        pose_map: torch.Tensor,
        result: torch.Tensor,
        truth: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        given = {"source": source, "pose_map": pose_map, "result": result, "truth": truth}
        rgb = {name: as_rgb(x, _title(name)) for name, x in given.items() if x is not None}
        height, width = rgb["result"].shape[1:3]
        same_size = {name: resize_bicubic(x, height, width) for name, x in rgb.items()}
        same = dict(zip(same_size, broadcast_batches(**same_size), strict=True))
        columns = {_title(name): to_uint8(x) for name, x in same.items()}
        sheet, measured = from_uint8(contact_sheet(columns)), measure(columns)
        # For web/compare.js; not the host's `images`, which would be shown below the slider.
        shown: dict[str, Any] = {
            f"pose_transfer_{name}": previews.files(x)
            for name, x in {**same, "sheet": sheet}.items()
        }
        if measured:
            shown["pose_transfer_metrics"] = measured
        return io.NodeOutput(sheet, describe(measured), ui=shown)


def _title(name: str) -> str:
    return name.replace("_", " ")


def contact_sheet(columns: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Columns of equally large pictures (B, H, W, 3) under their names -> (H', W', 3)."""
    batch, height, width, _ = next(iter(columns.values())).shape
    font_size = max(12, height // 18)
    header, gap = round(1.8 * font_size), max(4, height // 64)
    font = ImageFont.load_default(size=font_size)
    sheet = Image.new(
        "RGB",
        (len(columns) * (width + gap) + gap, header + batch * (height + gap)),
        BACKGROUND,
    )
    pen = ImageDraw.Draw(sheet)
    for column, (name, pictures) in enumerate(columns.items()):
        x = gap + column * (width + gap)
        pen.text((x + width / 2, header / 2), name, fill=INK, font=font, anchor="mm")
        for row, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (x, header + row * (height + gap)))
    return np.array(sheet)


def measure(columns: dict[str, NDArray[np.uint8]]) -> list[dict[str, str]]:
    """How near result and source come to the truth; nothing without a truth.

    Means over the batch, in digits: the PSNR of equal pictures is infinite, which JSON cannot say.
    """
    if "truth" not in columns:
        return []
    # It imports SciPy, which a graph without this node need not wait for.
    from ..pose_transfer.evaluation.metrics import psnr, ssim

    measured = []
    for name in ("result", "source"):
        pairs = list(zip(columns[name], columns["truth"], strict=True))
        measured.append(
            {
                "name": name,
                "ssim": f"{np.mean([ssim(*p) for p in pairs]):.3f}",
                "psnr": f"{np.mean([psnr(*p) for p in pairs]):.1f}",
            }
        )
    return measured


def describe(measured: list[dict[str, str]]) -> str:
    """The metrics in words."""
    if not measured:
        return "No metrics: connect the truth to measure the result against it."
    return "\n".join(
        f"{m['name']} against truth: SSIM {m['ssim']}, PSNR {m['psnr']} dB" for m in measured
    )
