# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.weights`: list the model files, check those that are there, get some."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .download import check, download
from .entries import Model, readable_size
from .listing import as_markdown, as_text
from .registry import MODELS, find_model
from .transfer import DownloadError

PACK = Path(__file__).absolute().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status: 0 if all is well."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.command == "list":
            print(as_markdown(MODELS) if asked.markdown else as_text(MODELS))
            return 0
        models = _models_folder(asked.models)
        if asked.command == "check":
            return _check([find_model(name) for name in asked.names] or list(MODELS), models)
        for name in asked.names:
            _download(find_model(name), models)
        return 0
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pose_transfer.weights",
        description="Model files that the pack can use and does not ship.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="all models: files, size, licence, folder, source")
    listing.add_argument("--markdown", action="store_true", help="as the README's table")
    for name, many, text in (
        ("check", "*", "whether the files are there and as published; needs no network"),
        ("download", "+", "get a model's files; goes on where an earlier run was stopped"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("names", nargs=many, metavar="NAME", help="a model of the list")
        command.add_argument("--models", type=Path, metavar="DIR", help="ComfyUI's folder 'models'")
    return parser


def _models_folder(asked: Path | None) -> Path:
    """The host's models: as asked, or those of the ComfyUI in whose custom_nodes the pack lies."""
    folder = asked or PACK.parent.parent / "models"
    if asked is None and PACK.parent.name != "custom_nodes":
        raise DownloadError(
            f"{PACK} does not lie in ComfyUI's custom_nodes, so its models are unknown. "
            "Add --models and the path of the folder 'models' of your ComfyUI."
        )
    if not folder.is_dir():
        raise DownloadError(f"There is no folder {folder}. Make it, or name another by --models.")
    return folder


def _check(chosen: list[Model], models: Path) -> int:
    states = [(model, state) for model in chosen for state in check(model, models)]
    for model, state in states:
        print(f"{model.name}: {state.path}: {state.words}")
    return 0 if all(state.right for _, state in states) else 1


def _download(model: Model, models: Path) -> None:
    print(f"{model.name}: {readable_size(model.download_size)} from {model.source}")
    print(f"Licence: {model.terms}")
    print(f"Folder: {models.joinpath(*model.folder.split('/'))}", flush=True)
    published = {file.path for file in model.files if file.sha256}
    for path, digest in download(model, models, _Meter()).items():
        verdict = "as published" if path.name in published else "none was published to compare"
        print(f"{path.name}: sha256 {digest}, {verdict}")


class _Meter:
    """Prints a line for each tenth of a file."""

    def __init__(self) -> None:
        self._shown = ""

    def __call__(self, name: str, done: int, total: int | None) -> None:
        step = 10 * done // total * 10 if total else done // 10**8
        line = f"{name}: {step} %" if total else f"{name}: {readable_size(step * 10**8)}"
        if line != self._shown:
            self._shown = line
            print(f"{line} of {readable_size(total)}" if total else line, flush=True)
