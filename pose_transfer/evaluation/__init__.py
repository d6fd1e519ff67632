# SPDX-License-Identifier: GPL-3.0-or-later
"""How good the re-posed pictures are: metrics, the pattern judge, retrieval, the benchmark.

`benchmark` is looked up on first use, so that a node which only needs a metric does not load
the samplers, the mannequin renderer and the demo models along with it. The function lives in
`protocol.py`; `benchmark.py` is only its command line and is run, not imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocol import benchmark

__all__ = ["benchmark"]


def __getattr__(name: str) -> Any:
    if name == "benchmark":
        from .protocol import benchmark

        return benchmark
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
