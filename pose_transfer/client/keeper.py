# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of results: which jobs are done, and how their pictures and lines get there."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..drafts import put_on_disk, replacing
from ..errors import PoseTransferError
from .jobs import InputFile, Job, Plan, file_label, seeds
from .manifest import Done, Manifest
from .versions import pack_version
from .work import Outcome

SHOWN = 3


class Keeper:
    """Context manager: the only one who writes to `folder` while it is open.

    Pictures are named `<job>--<title of the node><suffix>`, are there whole or not at all, and
    come before their line in the manifest: what the manifest calls done is on the disk, and
    survives a power cut.
    """

    def __init__(self, folder: Path, plan: Plan):
        self.folder = folder
        self.plan = plan
        self._pack = pack_version()
        folder.mkdir(parents=True, exist_ok=True)
        self._manifest = Manifest(folder)

    def __enter__(self) -> Keeper:
        self._manifest.__enter__()
        for draft in self.folder.rglob(".*.part"):  # of a run that was killed
            draft.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._manifest.__exit__()

    @property
    def manifest_path(self) -> Path:
        return self._manifest.path

    def missing(self) -> tuple[int, Iterator[Job]]:
        """How many of the plan's jobs have no result yet, and these jobs.

        Raises PoseTransferError where the folder has results of the same names made otherwise.
        """
        wanted = bytearray()  # of a million jobs only this is kept
        others = []
        for job in self.plan:
            wanted.append(not self._is_there(self._manifest.done(job.id)))
            if wanted[-1] and self._is_there(self._manifest.done_as(job.name)):
                others.append(job.name)
        if others:
            more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
            raise PoseTransferError(
                f"{self.folder} has results of the same names, made by another workflow or of "
                f"other inputs: {', '.join(others[:SHOWN])}{more}. Give another --out, or delete "
                "them to have them made again."
            )
        return sum(wanted), itertools.compress(self.plan, wanted)

    def keep(self, job: Job, outcome: Outcome, attempts: int) -> None:
        """Writes what came of the job after so many tries."""
        line: dict[str, Any] = {
            "job": job.id,
            "name": job.name,
            "status": "failed" if outcome.failure else "done",
            "inputs": {setting.key: _described(setting.value) for setting in job.settings},
            "seeds": seeds(self.plan.workflow, job.settings),
            "workflow": self.plan.workflow_sha256,
            "versions": {"pack": self._pack, "host": outcome.host},
            "server": outcome.server,
            "attempts": attempts,
            "started": outcome.started,
            "seconds": round(outcome.seconds, 3),
            "files": [] if outcome.failure else self._write(job, outcome),
        }
        if outcome.failure:
            line["error"] = {
                "node": outcome.failure.node_title,
                "type": outcome.failure.node_type,
                "text": outcome.failure.text,
            }
        self._manifest.append(line)

    def _write(self, job: Job, outcome: Outcome) -> list[dict[str, Any]]:
        written = []
        folders: dict[Path, None] = {}
        count: Counter[str] = Counter()
        for title, picture in outcome.pictures:
            # No hyphen in it: the last "--" of a name ends the job's part.
            label = file_label(title).replace("-", "_")
            count[label] += 1
            number = f"-{count[label]}" if count[label] > 1 else ""
            path = self.folder / f"{job.name}--{label}{number}{_suffix(picture.filename)}"
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                draft.write_bytes(picture.data)
                put_on_disk(draft)
            folders |= dict.fromkeys(self._folders(path))
            written.append(
                {
                    "path": path.relative_to(self.folder).as_posix(),
                    "sha256": hashlib.sha256(picture.data).hexdigest(),
                    "bytes": len(picture.data),
                }
            )
        for folder in folders:
            put_on_disk(folder)
        return written

    def _folders(self, path: Path) -> Iterator[Path]:
        """The folders that hold the file: its own first, the folder of results last."""
        for folder in path.parents:
            yield folder
            if folder == self.folder:
                return

    def _is_there(self, done: Done | None) -> bool:
        return done is not None and all(
            path.is_file() and path.stat().st_size == size
            for path, size in ((self.folder / name, size) for name, size in done.files)
        )


def _suffix(filename: str) -> str:
    """The suffix that the server chose, if it is one: servers are not trusted with paths."""
    suffix = Path(filename).suffix.lower()
    return suffix if re.fullmatch(r"\.\w{1,5}", suffix) else ".bin"


def _described(value: Any) -> Any:
    if isinstance(value, InputFile):
        return {"file": value.name, "sha256": value.sha256}
    return value
