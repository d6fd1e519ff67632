# SPDX-License-Identifier: GPL-3.0-or-later
"""Also runs by its path, `python path/to/pose_transfer/fpdm`, from any working folder.

The Python that comes with ComfyUI for Windows finds modules in fixed folders only, so that
`python -m` finds nothing of ours there.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).absolute().parents[2])

from pose_transfer.fpdm.convert import main

if __name__ == "__main__":
    sys.exit(main())
