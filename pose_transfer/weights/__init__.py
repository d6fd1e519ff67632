# SPDX-License-Identifier: GPL-3.0-or-later
"""Weight files: reading and writing them, where they come from, and getting them when asked.

`files` needs torch and is imported on first use, so that the registry and
`python -m pose_transfer.weights` start at once and work where torch does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .entries import Archive, Model, WeightFile
from .registry import MODELS, find_model, missing

if TYPE_CHECKING:
    from .files import Weights, fingerprint, load_into, read_weights, with_prefix, write_weights

__all__ = [
    "MODELS",
    "Archive",
    "Model",
    "WeightFile",
    "Weights",
    "find_model",
    "fingerprint",
    "load_into",
    "missing",
    "read_weights",
    "with_prefix",
    "write_weights",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import files

    return getattr(files, name)
