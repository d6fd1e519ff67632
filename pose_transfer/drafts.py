# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside `path` to write to; it becomes `path` when the block ends well, else goes.

    The folder must be there. Raises what the disk refuses (OSError), ValueError for a name with a
    null character.
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
