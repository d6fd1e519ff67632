# SPDX-License-Identifier: GPL-3.0-or-later
"""What pip left behind: whether a package is whole, and why a run failed, in words."""

from __future__ import annotations

import os
from pathlib import Path

UNREACHABLE = (
    "Retrying (Retry(",
    "NewConnectionError",
    "Max retries exceeded",
    "Read timed out",
    "Temporary failure in name resolution",
    "ProxyError",
    "Network is unreachable",
    "(from versions: none)",  # no index answered at all
)


def is_whole(site: Path, info: Path) -> bool:
    """Whether every file that the package's RECORD lists is there, at its size."""
    record = info / "RECORD"
    if not record.is_file() or not (info / "METADATA").is_file():
        return False
    for line in record.read_text(errors="replace").splitlines():
        name, _, size = (part.strip('"') for part in line.rsplit(",", 2))
        if name.endswith(".pyc"):
            continue
        try:
            found = os.stat(site / name).st_size
        except OSError:
            return False
        if size and found != int(size):
            return False
    return True


def pip_failure(output: str, log: Path) -> str:
    tail = "\n".join(line for line in output.splitlines() if line.strip())[-1500:]
    if any(sign in output for sign in UNREACHABLE):
        cause = (
            "the Python package registry could not be reached. Check the network, the proxy "
            "settings and pip's index settings (PIP_INDEX_URL, pip.conf)"
        )
    elif "No space left on device" in output:
        cause = "the disk is full. Make room, or set XDG_CACHE_HOME to a folder on another disk"
    elif "DO NOT MATCH THE HASHES" in output:
        cause = "the registry sent an archive that is not the pinned one. Check the mirror in use"
    elif "No matching distribution" in output:
        cause = "the registry in use lacks a pinned package. Check pip's index settings"
    else:
        cause = "pip failed"
    return f"{tail}\n\n{cause}, then run the same command again: what is done is kept. Log: {log}"
