# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from ..drafts import replacing
from ..errors import PoseTransferError


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8: under another name first, then renamed. The folder must be there.

    PoseTransferError when the disk refuses.
    """
    try:
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:  # the latter for a name with a null character
        raise PoseTransferError(
            f"{path} cannot be written ({error}). Choose a shorter or plainer name, or make room."
        ) from error
