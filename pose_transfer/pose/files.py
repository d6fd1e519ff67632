# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..errors import PoseTransferError


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8: under another name first, then renamed. The folder must be there.

    PoseTransferError when the disk refuses.
    """
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            # mkstemp makes a file that only its owner may read; this is as public as its folder.
            os.chmod(draft, 0o644)
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    except (OSError, ValueError) as error:  # the latter for a name with a null character
        raise PoseTransferError(
            f"{path} cannot be written ({error}). Choose a shorter or plainer name, or make room."
        ) from error
