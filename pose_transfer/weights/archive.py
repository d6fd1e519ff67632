# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking known files out of a zip archive that is not trusted."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from .entries import WeightFile
from .transfer import CHUNK, DownloadError, partial_of


def place(folder: Path, relative: str) -> Path:
    """A path below `folder`; DownloadError for one that leads out of it on any system."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
        raise DownloadError(f"The path {relative!r} is refused: it leads out of {folder}.")
    return folder.joinpath(*parts)


def unpack(archive: Path, targets: Mapping[WeightFile, Path]) -> dict[Path, str]:
    """Take files out of an archive by their name, in whatever folder they lie there.

    All of them appear under their final names, or none. Their sha256 are returned, and checked
    where they were published. Nothing else in the archive is written; an archive with a path that
    leads out of a folder, or with a link, is refused altogether. Raises DownloadError.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = _members(packed, archive)
            return _unpack(packed, members, archive, targets)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError) as error:
        raise DownloadError(
            f"{archive} is no complete zip archive ({error}). Delete it and download it again."
        ) from error
    except OSError as error:
        raise DownloadError(f"{archive} cannot be unpacked: {error}.") from error


def _members(packed: zipfile.ZipFile, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by name without folders."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in packed.infolist():
        place(archive.parent, member.filename.removesuffix("/"))
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DownloadError(f"{archive} holds the link {member.filename!r}: refused.")
        if not member.is_dir():
            name = PurePosixPath(member.filename).name
            if name in members:
                raise DownloadError(f"{archive} holds {name} twice: refused.")
            members[name] = member
    return members


def _unpack(
    packed: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    archive: Path,
    targets: Mapping[WeightFile, Path],
) -> dict[Path, str]:
    digests: dict[Path, str] = {}
    try:
        for file, target in targets.items():
            member = members.get(PurePosixPath(file.path).name)
            if member is None or file.size not in (None, member.file_size):
                size = "nothing" if member is None else f"{member.file_size} bytes"
                raise DownloadError(
                    f"{archive} holds {size} as {file.path}, expected {file.size} bytes. It is not "
                    "the archive that was expected: delete it and download it again."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            digests[target] = _write(packed, member, partial_of(target))
            if file.sha256 not in (None, digests[target]):
                raise DownloadError(
                    f"{file.path} in {archive} has the sha256 {digests[target]}, expected "
                    f"{file.sha256}. Delete the archive and download it again."
                )
        for target in digests:
            os.replace(partial_of(target), target)
    finally:
        for target in targets.values():
            partial_of(target).unlink(missing_ok=True)
    return digests


def _write(packed: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> str:
    """Write one member; zipfile gives no more bytes than the size it states. Returns the sha256."""
    digest = hashlib.sha256()
    with packed.open(member) as source, path.open("wb") as file:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
