# SPDX-License-Identifier: GPL-3.0-or-later
"""Model files are read once, for as long as they stay the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Loaded = TypeVar("Loaded")

_loaded: dict[Callable[..., Any], tuple[tuple[Any, ...], Any]] = {}


def load_once(load: Callable[..., Loaded], *paths: Path | None) -> Loaded:
    """`load(*paths)`, or what it returned before for the same, unchanged files.

    Of each loader (a function of a module: it is the key) only the latest result is kept, so that
    an artist who tries one model after the other does not fill the memory. A folder counts as
    changed when one of its files is.
    """
    key = (paths, *(_stamp(path) for path in paths))
    kept = _loaded.get(load)
    if kept is None or kept[0] != key:
        # The old one is let go first: both may not fit into memory.
        _loaded.pop(load, None)
        kept = _loaded[load] = (key, load(*paths))
    return kept[1]


def _stamp(path: Path | None) -> tuple[tuple[int, int], ...]:
    if path is None or not path.exists():
        return ()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in (file.stat() for file in files))
