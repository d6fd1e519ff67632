# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside `path` to write to; it becomes `path` when the block ends well, else goes.

    Whole for whoever looks; `put_on_disk` is for power cuts. The folder must be there. Raises what
    the disk refuses (OSError), ValueError for a name with a null character.
    """
    # Cut, or a long name that the disk would take could not be drafted.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:60]}.", suffix=".part")
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        # mkstemp makes a file that only its owner may read; this is as public as its folder.
        draft.chmod(0o644)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def put_on_disk(path: Path) -> None:
    """Returns when what was written to the file, or the names in the folder, survive a power cut.

    A draft has to be put there before it is renamed, its folder afterwards.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows opens no folder; NTFS journals its names itself
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows wants to write
    try:
        os.fsync(handle)
    except OSError as error:
        if not (is_folder and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise  # else a network's disk that has no such thing for folders
    finally:
        os.close(handle)
