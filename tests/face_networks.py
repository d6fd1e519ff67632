# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for insightface's packs: the released layout, but functions that can be foreseen.

What the detector takes for a face is a square of pure red (`paint_face`) of exactly 16 px on the
picture that it is given, with nothing red around it, and not at the picture's edge. So a larger
square is found at a smaller detection size only, one at the edge with a border around it only, and
none at all where red and blue are mixed up. The square's green makes the face's box larger. The
recognition network weighs the mean colour of the face that insightface cut out for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.onnx_graph import OnnxGraph

NAMES = {
    "antelopev2": ("scrfd_10g_bnkps.onnx", "glintr100.onnx"),
    "buffalo_l": ("det_10g.onnx", "w600k_r50.onnx"),
}
MARK = 16
"""Side of the square, px."""
SCORE = 0.9
# From the middle of the square, px: left, top, right, bottom of a box without green; five points.
BOX = (20.0, 24.0, 20.0, 28.0)
POINTS = ((-8.0, -8.0), (8.0, -8.0), (0.0, 2.0), (-6.0, 11.0), (6.0, 11.0))

_STRIDES = (8, 16, 32)
_FACE_STRIDE = 16
_ANCHORS = 2
_WEIGHTS = np.random.default_rng(5).normal(size=(3, 512)).astype(np.float32)
_BIAS = np.random.default_rng(6).normal(size=512).astype(np.float32)


def write_pack(folder: Path, pack: str = "antelopev2") -> Path:
    """A folder with detector and recognition network, and one of the networks that we leave out."""
    folder.mkdir(parents=True)
    detector, recognition = NAMES[pack]
    write_detector(folder / detector)
    write_recognition(folder / recognition)
    _write_age(folder / "genderage.onnx")
    return folder


def paint_face(
    picture: NDArray[np.uint8], x: int, y: int, green: int = 0, scale: int = 1
) -> NDArray[np.float32]:
    """Paints a face on a picture (H, W, 3) RGB with its square at x, y; its five points (5, 2)."""
    side = MARK * scale
    picture[y : y + side, x : x + side] = (255, green, 0)
    return (np.array(POINTS) * scale + (x + side / 2, y + side / 2)).astype(np.float32)


def embedding(aligned: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the recognition network says of an upright face (112, 112, 3) RGB: (512,)."""
    mean = ((aligned.astype(np.float32) - 127.5) / 127.5).mean(axis=(0, 1))
    return mean @ _WEIGHTS + _BIAS


def write_detector(path: Path) -> Path:
    """SCRFD with keypoints: input.1 (1, 3, ?, ?) -> nine outputs, scores, boxes and points of each
    stride, two anchors in every cell.
    """
    graph = _Graph()
    red, green, blue = (graph.channel("input.1", c) for c in range(3))
    # 255 and 0 are 0.99609 and -0.99609 there.
    mark = graph("Clip", graph("Sub", graph("Sub", red, blue), graph.number(0.9922)), *graph.unit())
    scores, boxes, points = [], [], []
    for stride in _STRIDES:
        covered, level = graph.pooled(mark, stride), graph.pooled(green, stride)
        larger = graph("Add", graph("Mul", level, graph.number(0.5)), graph.number(1.5))
        score = _alone(graph, covered) if stride == _FACE_STRIDE else None
        if score is None:
            score = graph("Mul", covered, graph.number(0.0))
        scores.append(_two_anchors(graph, graph.column(score), 1, second=0.0))
        half = stride / 2  # anchors are where cells begin
        at = (half, half, -half, -half)
        sides = graph("Mul", graph.column(larger), graph.row(np.array(BOX) / stride))
        offsets = graph("Sub", sides, graph.row(np.array(at) / stride))
        boxes.append(_two_anchors(graph, offsets, 4))
        offsets = (np.array(POINTS) + half).reshape(-1) / stride
        none = graph("Mul", graph.column(larger), graph.number(0.0))
        points.append(_two_anchors(graph, graph("Add", none, graph.row(offsets)), 10))
    names = [str(448 + 23 * i) for i in range(9)]
    for name, value in zip(names, [*scores, *boxes, *points], strict=True):
        graph("Identity", value, output=name)
    sizes = [1] * 3 + [4] * 3 + [10] * 3
    outputs = {name: ("?", size) for name, size in zip(names, sizes, strict=True)}
    return graph.write(path, ("input.1", (1, 3, "?", "?")), outputs)


def write_recognition(path: Path) -> Path:
    """ArcFace: input.1 (N, 3, 112, 112) -> 683 (N, 512)."""
    graph = _Graph()
    mean = graph("ReduceMean", "input.1", graph.ints(2, 3), keepdims=0)
    graph("Gemm", mean, graph.constant(_WEIGHTS), graph.constant(_BIAS), output="683")
    return graph.write(path, ("input.1", ("None", 3, 112, 112)), {"683": ("None", 512)})


def _write_age(path: Path) -> Path:
    """genderage.onnx: data (N, 3, 96, 96) -> fc1 (N, 3)."""
    graph = _Graph()
    graph("ReduceMean", "data", graph.ints(2, 3), keepdims=0, output="fc1")
    return graph.write(path, ("data", ("None", 3, 96, 96)), {"fc1": ("None", 3)})


def _alone(graph: _Graph, covered: str) -> str:
    """SCORE in cells that are wholly covered and none of whose neighbours is, else nearly 0."""
    edges = graph.ints(0, 0, 1, 1, 0, 0, 1, 1)
    bordered = graph("Pad", covered, edges, graph.number(1.0))
    ring = np.ones((1, 1, 3, 3), dtype=np.float32)
    ring[..., 1, 1] = 0
    around = graph("Conv", bordered, graph.constant(ring))
    own = _step(graph, graph("Sub", covered, graph.number(0.9)))
    free = _step(graph, graph("Sub", graph.number(0.03), around))
    return graph("Mul", graph("Mul", own, free), graph.number(SCORE))


def _step(graph: _Graph, value: str) -> str:
    return graph("Sigmoid", graph("Mul", value, graph.number(1000.0)))


def _two_anchors(graph: _Graph, column: str, size: int, second: float = 1.0) -> str:
    """(cells, size) -> (2 cells, size): each row, and the same times `second`."""
    other = graph("Mul", column, graph.number(second))
    both = graph("Concat", column, other, axis=1)
    return graph("Reshape", both, graph.ints(-1, size))


class _Graph(OnnxGraph):
    """With the steps that these networks repeat."""

    def unit(self) -> tuple[str, str]:
        return self.number(0.0), self.number(1.0)

    def row(self, values: NDArray[np.float64]) -> str:
        return self.constant(values.astype(np.float32)[None])

    def pooled(self, value: str, stride: int) -> str:
        return self("AveragePool", value, kernel_shape=[stride] * 2, strides=[stride] * 2)

    def column(self, value: str) -> str:
        """(1, 1, h, w) -> (h w, 1)."""
        return self("Reshape", value, self.ints(-1, 1))

    def channel(self, value: str, index: int) -> str:
        return self("Slice", value, self.ints(index), self.ints(index + 1), self.ints(1))
