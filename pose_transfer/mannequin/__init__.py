# SPDX-License-Identifier: GPL-3.0-or-later
"""The mannequin world: procedural people with exact pose, parsing and captions.

The renderer is imported when something of it is asked for: the nodes' menus need the names only,
and ComfyUI should not wait for more when it starts.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .names import HELD_OUT_PATTERNS, LABELS, PATTERNS

if TYPE_CHECKING:
    from .dataset import Pair, pair_seeds, pairs, split_seeds
    from .identity import Garment, Identity, sample_identity, with_upper_pattern
    from .posing import BodyPose, sample_pose
    from .renderer import Rendering, Sample, render, render_figure

__all__ = [
    "HELD_OUT_PATTERNS",
    "LABELS",
    "PATTERNS",
    "BodyPose",
    "Garment",
    "Identity",
    "Pair",
    "Rendering",
    "Sample",
    "pair_seeds",
    "pairs",
    "render",
    "render_figure",
    "sample_identity",
    "sample_pose",
    "split_seeds",
    "with_upper_pattern",
]

_MODULES = {
    "dataset": ("Pair", "pair_seeds", "pairs", "split_seeds"),
    "identity": ("Garment", "Identity", "sample_identity", "with_upper_pattern"),
    "posing": ("BodyPose", "sample_pose"),
    "renderer": ("Rendering", "Sample", "render", "render_figure"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
