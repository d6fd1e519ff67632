# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.training METHOD --config FILE.yaml`: train on pictures of your own.

Alone on one CPU or GPU, or through `accelerate launch` on several and on several machines. A run
that was stopped, however hard, goes on where it last saved when the same command is given again.
See docs/training.md. The demo models have a command of their own, pose_transfer.training.demo.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import PoseTransferError
from .user.methods import METHODS
from .user.run import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status: 0 if all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m pose_transfer.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="method", required=True)
    for name, method in METHODS.items():
        command = commands.add_parser(name, help=method.help)
        command.add_argument("--config", type=Path, required=True, metavar="FILE.yaml")
        command.add_argument(
            "--until", type=int, metavar="STEP", help="stop there and write the weights; 0: write "
            "those of the last saved step",
        )  # fmt: skip
    asked = parser.parse_args(arguments)
    try:
        run(asked.method, asked.config, asked.until)
        return 0
    except PoseTransferError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
