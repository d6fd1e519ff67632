# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pack this is."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
"""The pack's folder, or site-packages where only the library is installed."""


def pack_version() -> str:
    """The version that the pack's project file names, or that is installed."""
    project = PACK / "pyproject.toml"
    if project.is_file():
        found = re.search(r'^version = "(.+)"', project.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return importlib.metadata.version("comfyui-pose-transfer")
