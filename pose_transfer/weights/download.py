# SPDX-License-Identifier: GPL-3.0-or-later
"""Getting a model's files, only when asked, and telling which are there.

Nothing is opened but the zip archive of a model that comes as one; nothing that is there already is
overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .archive import place, unpack
from .entries import Archive, Model, WeightFile, readable_size
from .transfer import DownloadError, Progress, fetch, partial_of, sha256_of, silent


def download(model: Model, models: Path, progress: Progress = silent) -> dict[Path, str]:
    """Fetch what lacks of a model into its folder below `models`; the sha256 of all its files.

    Files that are there are checked. Raises DownloadError, also for a file that is there but is not
    the published one.
    """
    targets = _targets(model, models)
    lacking = {file: path for file, path in targets.items() if not path.exists()}
    got = {path: _known(file, path) for file, path in targets.items() if file not in lacking}
    for file, path in lacking.items():
        if file.url:
            got[path] = fetch(file.url, path, file.size, file.sha256, progress)
    packed = {file: path for file, path in lacking.items() if not file.url}
    if packed and model.archive:
        archive = place(models, f"{model.folder}.zip")
        if archive.exists():  # brought by hand
            _known(model.archive, archive)
        else:
            of = model.archive
            fetch(of.url, archive, of.size, of.sha256, progress)
        got |= unpack(archive, packed)
        archive.unlink()
    return got


@dataclass(frozen=True)
class FileState:
    """Whether a file is there: `words` say it, `right` is False for one that must be replaced."""

    path: Path
    right: bool
    words: str


def check(model: Model, models: Path) -> list[FileState]:
    """The state of each of a model's files; reads all that are there, uses no network."""
    return [_state(file, path) for file, path in _targets(model, models).items()]


def _state(file: WeightFile, path: Path) -> FileState:
    if not path.exists():
        partial = partial_of(path)
        if partial.exists():
            there = readable_size(partial.stat().st_size)
            return FileState(path, False, f"incomplete, {there} of {readable_size(file.size)}")
        return FileState(path, False, "not there")
    digest = sha256_of(path)
    if file.sha256 is None:
        return FileState(path, True, f"there, unverified: sha256 {digest}, none was published")
    if digest == file.sha256:
        return FileState(path, True, "there, as published")
    return FileState(path, False, f"another file: sha256 {digest}, expected {file.sha256}")


def _targets(model: Model, models: Path) -> dict[WeightFile, Path]:
    folder = place(models, model.folder)
    return {file: place(folder, file.path) for file in model.files}


def _known(file: WeightFile | Archive, path: Path) -> str:
    """The sha256 of a file that is there already, which must be the published one."""
    digest = sha256_of(path)
    if file.sha256 not in (None, digest):
        raise DownloadError(
            f"{path} is there already but is not the published file: its sha256 is {digest}, "
            f"expected {file.sha256}. Move it away, then download again."
        )
    return digest
