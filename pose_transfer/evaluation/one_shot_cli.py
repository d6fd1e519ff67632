# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.evaluation one-shot`: measure OnePoseTrans's parts in a ComfyUI."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..client import ComfyServer
from .one_shot import TITLES, USUAL, evaluate, write_report

PACK = Path(__file__).resolve().parents[2]
WORKFLOW = PACK / "workflows" / "api" / "oneposetrans_demo.json"


def main(arguments: Sequence[str]) -> int:
    """Runs the command; the exit status: 0 if all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m pose_transfer.evaluation one-shot", description=__doc__
    )
    parser.add_argument("--persons", type=int, default=40, help="held-out persons; minutes each")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument(
        "--variants", nargs="+", choices=list(TITLES), default=USUAL, help="(%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the report")
    parser.add_argument(
        "--server", help="address of a running ComfyUI that has the pack; else COMFYUI_PATH's"
    )
    given = parser.parse_args(arguments)
    try:
        with _server(given.server) as address:
            result = evaluate(address, WORKFLOW, given.persons, given.seed, given.variants)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    command = shlex.join(["python", "-m", "pose_transfer.evaluation", "one-shot", *arguments])
    print(f"Report: {write_report(result, given.out, command)}")
    return 0


@contextmanager
def _server(address: str | None) -> Iterator[str]:
    if address is not None:
        yield address
        return
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        raise ValueError(
            "There is no ComfyUI: give the address of one that has this pack (--server), or set "
            "COMFYUI_PATH to the folder of yours."
        )
    with (
        tempfile.TemporaryDirectory(prefix="pose-transfer-one-shot-") as folder,
        ComfyServer(Path(comfyui), Path(folder), {"pose-transfer": PACK}) as server,
    ):
        yield server.address
