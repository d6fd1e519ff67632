# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for DWPose's two networks: the released layout, but a function that can be foreseen.

They read a picture that tells them the answer (`telling_picture`): every pixel's red level is its
column and its green level its row, and the people are rectangles of full blue. The finder gives the
rectangles' boxes; the estimator gives for each of the 133 points the place where red and green have
the levels that belong to it. So a wrong channel order, scale, offset or normalisation anywhere
between picture and keypoint moves the result.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from tests.onnx_graph import OnnxGraph

SIDE = 640
STRIDES = (8, 16, 32)
SEAM = 4  # px
CELLS = sum((SIDE // stride) ** 2 for stride in STRIDES)
WIDTH, HEIGHT = 288, 384
POINTS = 133
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)


def telling_picture(
    height: int, width: int, people: list[tuple[int, int, int, int]], px_per_level: int = 1
) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB of at most 256 levels; at most two people x, y, width, height.

    The first one's blue is 255, the second one's 170.
    """
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[..., 0] = np.arange(width) // px_per_level
    picture[..., 1] = np.arange(height)[:, None] // px_per_level
    for (x, y, w, h), blue in zip(people, (255, 170), strict=False):
        picture[y : y + h, x : x + w, 2] = blue
    return picture


def write_finder(path: Path) -> Path:
    """yolox_l.onnx's layout: images (1, 3, 640, 640) -> output (1, 8400, 85), not decoded.

    Blue of 213 to 255 is one person, of 128 to 212 another. The first comes from a cell of stride
    32 with a weaker copy of it from stride 8, the second from stride 16. Two more boxes are always
    there: a sure one of another class, and an unsure person.
    """
    graph = _Graph()
    index = graph.constant(np.arange(SIDE, dtype=np.float32))
    blue = graph.slice("images", 0, 1, axis=1)  # BGR
    rows = []
    for low, high, cell, stride, scores in (
        (212.5, 300.0, 6400 + 1600 + 20 * 5 + 7, 32, {4: 0.95, 5: 0.9}),
        (212.5, 300.0, 80 * 3 + 2, 8, {4: 0.9, 5: 0.8}),
        (127.5, 212.5, 6400 + 40 * 11 + 9, 16, {4: 0.8, 5: 0.7}),
    ):
        outside = graph(
            "Cast",
            graph(
                "Or",
                graph("Less", blue, graph.constant(np.float32(low))),
                graph("Greater", blue, graph.constant(np.float32(high))),
            ),
            to=TensorProto.FLOAT,
        )
        # The seam around the brighter person passes through the other's levels: wear it off.
        worn = graph("MaxPool", outside, kernel_shape=[2 * SEAM + 1] * 2, pads=[SEAM] * 4)
        inside = graph(
            "Squeeze", graph("Sub", graph.constant(np.float32(1)), worn), graph.ints(0, 1)
        )
        x0, x1 = graph.extent(graph("ReduceMax", inside, graph.ints(0), keepdims=0), index)
        y0, y1 = graph.extent(graph("ReduceMax", inside, graph.ints(1), keepdims=0), index)
        first = {32: 8000, 16: 6400, 8: 0}[stride]
        grid_y, grid_x = divmod(cell - first, SIDE // stride)
        numbers = [
            graph.shifted(graph.scaled(graph("Add", x0, x1), 0.5 / stride), -grid_x),
            graph.shifted(graph.scaled(graph("Add", y0, y1), 0.5 / stride), -grid_y),
            graph("Log", graph.scaled(graph("Sub", x1, x0), 1 / stride)),
            graph("Log", graph.scaled(graph("Sub", y1, y0), 1 / stride)),
        ]
        classes = np.zeros(85, dtype=np.float32)
        for column, value in scores.items():
            classes[column] = value
        seen = graph("ReduceMax", inside, graph.ints(0, 1), keepdims=0)
        score_row = graph("Mul", graph.constant(classes[4:]), seen)
        row = graph("Concat", *(graph.as_vector(n) for n in numbers), score_row, axis=0)
        rows.append((cell, graph("Reshape", row, graph.ints(1, 1, 85))))
    for cell, scores in (
        (80 * 70 + 60, {4: 0.9, 5: 0.01, 7: 0.95}),
        (80 * 70 + 20, {4: 0.7, 5: 0.4}),
    ):
        always = np.zeros((1, 1, 85), dtype=np.float32)
        always[0, 0, 2:4] = 2  # e^2 cells of 8 px
        for column, value in scores.items():
            always[0, 0, column] = value
        rows.append((cell, graph.constant(always)))
    pieces, at = [], 0
    for cell, row in sorted(rows, key=lambda item: item[0]):
        pieces += [graph.constant(np.zeros((1, cell - at, 85), dtype=np.float32)), row]
        at = cell + 1
    pieces.append(graph.constant(np.zeros((1, CELLS - at, 85), dtype=np.float32)))
    graph("Concat", *pieces, axis=1, output="output")
    return graph.write(path, ("images", (1, 3, SIDE, SIDE)), {"output": (1, CELLS, 85)})


def write_estimator(path: Path, points: NDArray[np.float32]) -> Path:
    """dw-ll_ucoco_384.onnx's layout: input (batch, 3, 384, 288) -> simcc_x, simcc_y.

    `points` (133, 3): where the estimator shall find each point, and its score there.
    """
    graph = _Graph()
    outputs = {}
    for channel, (name, size) in enumerate((("simcc_x", WIDTH), ("simcc_y", HEIGHT))):
        plane = graph("Squeeze", graph.slice("input", channel, channel + 1, axis=1), graph.ints(1))
        levels = graph.shifted(graph.scaled(plane, DEVIATION[channel]), MEAN[channel])
        along = graph("ReduceMax", levels, graph.ints(1 + channel), keepdims=1)
        row = graph("Reshape", along, graph.ints(-1, 1, size))
        curve = graph("MatMul", row, graph.constant(_twice_as_fine(size)))
        wanted = graph.constant(points[None, :, channel, None])
        away = graph("Abs", graph("Sub", curve, wanted))
        top = graph.constant(points[None, :, 2, None])
        graph("Sub", top, graph.scaled(away, 0.05), output=name)
        outputs[name] = ("batch", POINTS, 2 * size)
    return graph.write(path, ("input", ("batch", 3, HEIGHT, WIDTH)), outputs)


def _twice_as_fine(size: int) -> NDArray[np.float32]:
    """(size, 2 size): interpolates a row at every half pixel."""
    matrix = np.zeros((size, 2 * size), dtype=np.float32)
    for sample in range(2 * size):
        left = min(sample // 2, size - 1)
        right = min(left + sample % 2, size - 1)
        matrix[left, sample] += 0.5
        matrix[right, sample] += 0.5
    return matrix


class _Graph(OnnxGraph):
    """With the steps that these networks repeat."""

    def slice(self, value: str, start: int, end: int, axis: int) -> str:
        return self("Slice", value, self.ints(start), self.ints(end), self.ints(axis))

    def scaled(self, value: str, factor: float) -> str:
        return self("Mul", value, self.number(factor))

    def shifted(self, value: str, offset: float) -> str:
        return self("Add", value, self.number(offset))

    def as_vector(self, value: str) -> str:
        return self("Reshape", value, self.ints(1))

    def extent(self, seen: str, index: str) -> tuple[str, str]:
        """The first and one past the last place of a run of ones, both ends worn off by SEAM."""
        last = self("ReduceMax", self("Mul", seen, index), self.ints(0), keepdims=0)
        from_end = self("Sub", self.number(SIDE), index)
        first = self("ReduceMax", self("Mul", seen, from_end), self.ints(0), keepdims=0)
        whole = self("Sub", self.number(SIDE), first)
        return self.shifted(whole, -SEAM), self.shifted(last, 1 + SEAM)
