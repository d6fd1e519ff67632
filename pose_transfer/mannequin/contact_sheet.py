# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.mannequin.contact_sheet OUT.png`: look at the mannequin world.

Each row is one person in several poses, or with `--pairs` source, pose map, target and parsing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from ..pose import draw
from .dataset import pairs, split_seeds
from .renderer import render

_PARSING_COLOURS = np.array(
    [
        (255, 255, 255), (90, 60, 40), (250, 200, 160), (220, 60, 60),
        (60, 90, 200), (250, 150, 60), (90, 180, 90), (60, 60, 60),
    ],
    np.uint8,
)  # fmt: skip


def contact_sheet(split: str, rows: int, columns: int, start: int = 0) -> np.ndarray:
    """`rows` people in `columns` poses each, (H, W, 3) uint8."""
    identities = split_seeds(split, start, rows)
    poses = split_seeds(split, start, rows * columns).reshape(rows, columns)
    return np.concatenate(
        [
            np.concatenate([render(int(i), int(p)).image for p in row], axis=1)
            for i, row in zip(identities, poses, strict=True)
        ]
    )


def pair_sheet(split: str, rows: int) -> np.ndarray:
    """`rows` pairs as source, pose map, target and target parsing, (H, W, 3) uint8."""
    strips = []
    for pair in pairs(split, rows):
        height, width = pair.target.parsing.shape
        pose = draw(pair.target.pose, height, width, "fpdm")
        parsing = _PARSING_COLOURS[pair.target.parsing]
        strips.append(np.concatenate([pair.source.image, pose, pair.target.image, parsing], axis=1))
    return np.concatenate(strips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the picture to write (.png or .jpg)")
    parser.add_argument("--split", default="validation", choices=("train", "validation", "test"))
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--columns", type=int, default=8, help="poses of each person")
    parser.add_argument("--start", type=int, default=0, help="the first person's number")
    parser.add_argument("--pairs", action="store_true", help="show pairs with pose and parsing")
    options = parser.parse_args()
    if options.pairs:
        sheet = pair_sheet(options.split, options.rows)
    else:
        sheet = contact_sheet(options.split, options.rows, options.columns, options.start)
    Image.fromarray(sheet).save(options.out)


if __name__ == "__main__":
    main()
