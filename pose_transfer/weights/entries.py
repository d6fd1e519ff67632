# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a model that can be downloaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFile:
    """One file: `path` below its model's folder, with '/'. `url` None: the archive holds it.

    `size` in bytes and `sha256` (64 hex digits) as published, None where nothing was.
    """

    path: str
    url: str | None
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Archive:
    """A zip from which the files of a model that have no address of their own are taken."""

    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Model:
    """Files that belong together; `name` is what `download` takes.

    `folder` lies below ComfyUI's `models`, with '/'. `source` is the page that published the files.
    `commercial_use` is False where the licence, or that of what the model needs, excludes it.
    """

    name: str
    folder: str
    files: tuple[WeightFile, ...]
    licence: str
    needed_by: str
    source: str
    archive: Archive | None = None
    commercial_use: bool = True

    @property
    def downloads(self) -> tuple[WeightFile | Archive, ...]:
        """What is fetched: the archive if there is one, and every file with an address."""
        archive = () if self.archive is None else (self.archive,)
        return (*archive, *(file for file in self.files if file.url))

    @property
    def download_size(self) -> int | None:
        """Bytes to fetch; None where the size of a part was not published."""
        sizes = [part.size for part in self.downloads if part.size is not None]
        return sum(sizes) if len(sizes) == len(self.downloads) else None

    @property
    def verified(self) -> bool:
        """Whether everything that is fetched has a published sha256."""
        return all(part.sha256 for part in self.downloads)

    @property
    def terms(self) -> str:
        """The licence, with a warning where it excludes commercial use."""
        return self.licence if self.commercial_use else f"{self.licence} (NOT for commercial use)"


def readable_size(size: int | None) -> str:
    """Bytes for people, in decimal units as download pages show them."""
    if size is None:
        return "not published"
    if size < 10**6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e6:.0f} MB" if size < 10**9 else f"{size / 1e9:.2f} GB"
