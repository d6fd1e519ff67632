# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run may not change while it goes on: what its rest would not have been the same with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from .config import ConfigError
from .layouts import Pair
from .task import Settings

Terms = dict[str, str]
"""Full name of a setting -> its value as text."""

_END = 1 << 20
"""So many bytes of a file are read: the end of one weight file is not that of another."""


def terms_of(settings: Settings, pairs: Sequence[Pair]) -> Terms:
    """Every setting that is not marked `settings.MAY_CHANGE`.

    Files count by their content, not by their place, and the pairs by the pictures' names below
    `data.images` and where their joints are written.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        for picture in (pair.source, pair.target):
            row = [os.path.relpath(picture.path, settings.data.images)]
            if (joints := picture.keypoints) is not None:
                folder = settings.data.keypoints or settings.data.images
                row.append(joints.line or os.path.relpath(joints.file, folder))
            digest.update(json.dumps(row).encode())
    return {
        **dict(_fixed(settings, "")),
        "data.pairs": f"{len(pairs)} pairs, sha256 {digest.hexdigest()[:16]}",
    }


def require_same_terms(checkpoint: Path, terms: Mapping[str, str]) -> None:
    """ConfigError, naming the settings, where a run to go on with was begun with others."""
    if not checkpoint.exists():
        return
    # Mapped: the tensors stay on the disk.
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    begun = state.get("terms", {})
    changed = [
        f"{key} is {terms[key]}, and was {begun[key]}"
        for key in terms
        if key in begun and begun[key] != terms[key]
    ]
    if changed:
        raise ConfigError(
            f"The run in {checkpoint} was begun with other settings: {'; '.join(changed)}. Put "
            "them back to go on with it, or give another training.output to begin anew."
        )


def _fixed(values: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for field in fields(values):
        key, value = prefix + field.name, getattr(values, field.name)
        if is_dataclass(value):
            yield from _fixed(value, f"{key}.")
        elif not field.metadata.get("may_change"):
            yield key, content(value) if isinstance(value, Path) else json.dumps(value)


def content(path: Path) -> str:
    """A file's or folder's content in short; what is missing is for its reader to say."""
    files = {"": path} if path.is_file() else {
        x.relative_to(path).as_posix(): x for x in path.rglob("*") if x.is_file()
    }  # fmt: skip
    digest, total = hashlib.sha256(), 0
    for name, file in sorted(files.items()):
        if name.startswith("."):  # folders of downloads have notes of their own there
            continue
        size = file.stat().st_size
        total += size
        with file.open("rb") as opened:
            opened.seek(max(size - _END, 0))
            digest.update(f"{name} {size} ".encode() + opened.read())
    return f"{total} bytes, sha256 {digest.hexdigest()[:16]}"
