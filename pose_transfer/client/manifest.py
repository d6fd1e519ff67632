# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a folder of results: one line of JSON for each job that ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from ..errors import PoseTransferError

NAME = "manifest.jsonl"
LOCK = ".manifest.lock"


@dataclass(frozen=True, slots=True)
class Done:
    """A job that was done: its name and the sizes in bytes of its files, by path in the folder."""

    job: str
    name: str
    files: tuple[tuple[str, int], ...]


class Manifest:
    """Context manager: the manifest of `folder`, locked against other runs that write there.

    A line that a kill or a power cut left half written is taken away; its job counts as not done.
    Each line is on the disk when `append` returns.

    Raises PoseTransferError when another process has it, or when a line before the last is damaged.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self._lock = filelock.FileLock(folder / LOCK, timeout=0)
        self._file: BinaryIO | None = None
        self._done: dict[str, Done] = {}
        self._by_name: dict[str, Done] = {}

    def __enter__(self) -> Manifest:
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise PoseTransferError(
                f"Another run is writing to {self.path.parent}. Wait for its end, or give this one "
                "another --out."
            ) from None
        try:
            self._file = self.path.open("a+b")
            self._read(self._file)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
            self._file = None
        self._lock.release()

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds a line: `job`, `name`, `status`, `files`, and whatever else is to be known."""
        assert self._file, "use Manifest in a `with` block"
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._note(line)

    def done(self, job: str) -> Done | None:
        """The job of this id, if it was ever done."""
        return self._done.get(job)

    def done_as(self, name: str) -> Done | None:
        """The job that was last done under this name."""
        return self._by_name.get(name)

    def _read(self, file: BinaryIO) -> None:
        file.seek(0)
        sound = 0
        for number, line in enumerate(file, 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it does not end")
                self._note(json.loads(line))
            except (ValueError, LookupError, TypeError) as error:
                if file.read(1):
                    raise PoseTransferError(
                        f"{self.path}, line {number} is damaged ({error}). Take the line out; its "
                        "job will be done again."
                    ) from None
                break
            sound += len(line)
        file.truncate(sound)
        file.seek(0, os.SEEK_END)

    def _note(self, line: Mapping[str, Any]) -> None:
        if line["status"] == "done":
            files = tuple((file["path"], file["bytes"]) for file in line["files"])
            entry = Done(line["job"], line["name"], files)
            self._done[entry.job] = self._by_name[entry.name] = entry
