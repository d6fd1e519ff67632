# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for SCHP's ONNX exports with a known result: the nearest of given colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MEAN = np.array([0.406, 0.456, 0.485])
DEVIATION = np.array([0.225, 0.224, 0.229])


def colours(labels: int) -> NDArray[np.uint8]:
    """RGB colours that tell `labels` labels apart; the first one, black, is the background's."""
    levels = np.array([(r, g, b) for r in (0, 120, 255) for g in (0, 120, 255) for b in (0, 255)])
    more = np.array([(60, 60, 60), (190, 60, 190)])
    return np.concatenate([levels, more])[:labels].astype(np.uint8)


def write_schp(path: Path, labels: int, side: int, outputs: tuple[str, ...] = (
    "parsing", "fusion", "edge"
)) -> Path:  # fmt: skip
    """A network for 1 x 3 x side x side BGR input, normalised as the released SCHP wants it.

    "fusion" has for every label minus half the squared distance of the pixel's colour to the
    label's, at a quarter of the size; "parsing" has the same with the labels in opposite order,
    "edge" two channels.
    """
    # |x - c|^2 / 2 = |x|^2 / 2 - x.c + |c|^2 / 2, and the first term is equal for all labels.
    wanted = (colours(labels)[:, ::-1] / 255 - MEAN) / DEVIATION
    bias = -(wanted**2).sum(1) / 2
    variants = {"fusion": (wanted, bias), "parsing": (wanted[::-1], bias[::-1]),
                "edge": (wanted[:2], bias[:2])}  # fmt: skip
    small = (side + 3) // 4
    nodes = [helper.make_node(
        "Resize", ["input.1", "", "", "size"], ["small"], mode="linear",
        coordinate_transformation_mode="align_corners",
    )]  # fmt: skip
    tensors = [numpy_helper.from_array(np.array([1, 3, small, small], np.int64), "size")]
    for name in outputs:
        weight, offset = variants[name]
        tensors += [
            numpy_helper.from_array(weight[:, :, None, None].astype(np.float32), f"{name}.weight"),
            numpy_helper.from_array(offset.astype(np.float32), f"{name}.bias"),
        ]
        nodes.append(helper.make_node("Conv", ["small", f"{name}.weight", f"{name}.bias"], [name]))
    graph = helper.make_graph(
        nodes,
        "schp",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, side, side])],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [1, len(variants[name][1]), small, small]
            )
            for name in outputs
        ],
        tensors,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
