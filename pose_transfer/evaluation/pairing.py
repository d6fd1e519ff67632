# SPDX-License-Identifier: GPL-3.0-or-later
"""Which generated picture belongs to which true one, and to which source; reading pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import images
from ..errors import PoseTransferError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
NAMED = 8
"""So many names are spelt out in a message; the report's JSON has them all."""

Size = tuple[int, int]
"""(height, width) in px."""


@dataclass(frozen=True)
class FilePair:
    """A generated picture, the true one, and the source where it is known.

    `name` is the generated file's path in its folder without the suffix, with '/'.
    """

    name: str
    generated: Path
    truth: Path
    source: Path | None = None


@dataclass(frozen=True)
class Matched:
    """Pairs in the order of their names, and the names that have no partner."""

    pairs: tuple[FilePair, ...]
    without_truth: tuple[str, ...] = ()
    without_generated: tuple[str, ...] = ()
    without_source: tuple[str, ...] = ()

    def remarks(self) -> list[str]:
        """One sentence for each kind of picture that is left out."""
        said = (
            ("Generated pictures without a truth, left out", self.without_truth),
            ("True pictures that were not generated, left out", self.without_generated),
            ("Pairs without a source", self.without_source),
        )
        return [f"{what}: {len(names)}: {spell(names)}." for what, names in said if names]


def spell(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def list_pictures(folder: Path) -> dict[str, Path]:
    """Pictures of a folder and all below by their name: relative path without suffix, sorted.

    Raises PoseTransferError for a folder that is missing or without a picture, and for two files
    of one name.
    """
    if not folder.is_dir():
        raise PoseTransferError(f"There is no folder {folder}. Name one that holds pictures.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise PoseTransferError(
                f"{folder} holds {found[name].name} and {path.name}, two pictures of one name. "
                "Remove one of them, or name the pairs in a CSV file (--pairs)."
            )
        found[name] = path
    if not found:
        raise PoseTransferError(
            f"{folder} holds no picture ({', '.join(SUFFIXES)}). Name the folder that does."
        )
    return found


def match_by_name(generated: Path, truth: Path, source: Path | None = None) -> Matched:
    """Pairs of equal names; suffixes may differ. Raises PoseTransferError where none match."""
    made, true = list_pictures(generated), list_pictures(truth)
    sources = {} if source is None else list_pictures(source)
    pairs = tuple(
        FilePair(name, path, true[name], sources.get(name))
        for name, path in made.items()
        if name in true
    )
    if not pairs:
        raise PoseTransferError(
            f"No picture in {generated} ({spell(list(made))}) has the name of one in {truth} "
            f"({spell(list(true))}). Rename them, or name the pairs in a CSV file (--pairs) with "
            "the columns generated, truth and, if you like, source."
        )
    return Matched(
        pairs,
        tuple(name for name in made if name not in true),
        tuple(name for name in true if name not in made),
        tuple(pair.name for pair in pairs if source is not None and pair.source is None),
    )


def match_by_table(
    table: Path, generated: Path, truth: Path, source: Path | None = None
) -> Matched:
    """Pairs as a CSV file with the columns `generated`, `truth` and `source` (optional) has them.

    Its paths lie in the three folders; the source column is read where `source` is given.
    Pictures that the file does not name are no pairs. Raises PoseTransferError for a column or a
    picture that is missing.
    """
    wanted = {"generated": generated, "truth": truth}
    if source is not None:
        wanted["source"] = source
    rows = read_table(table, tuple(wanted))
    pairs = []
    for row in rows:
        paths = {column: folder / row[column] for column, folder in wanted.items()}
        name = Path(row["generated"]).with_suffix("").as_posix()
        pairs.append(FilePair(name, paths["generated"], paths["truth"], paths.get("source")))
    require_files(table, [p for x in pairs for p in (x.generated, x.truth, x.source) if p])
    named = {pair.generated.resolve() for pair in pairs}
    others = [n for n, path in list_pictures(generated).items() if path.resolve() not in named]
    return Matched(tuple(pairs), without_truth=tuple(others))


def read_table(table: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header. Raises PoseTransferError, also for an empty cell."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            head, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PoseTransferError(
            f"{table} cannot be read as a CSV file ({error}). Save it as comma-separated UTF-8."
        ) from error
    lacking = [column for column in columns if column not in head]
    if lacking:
        raise PoseTransferError(
            f"{table} has the columns {', '.join(head) or '(none)'} and lacks "
            f"{', '.join(lacking)}. Its first line must name {', '.join(columns)}."
        )
    for number, row in enumerate(rows, start=2):
        empty = [column for column in columns if not row[column]]
        if empty:
            raise PoseTransferError(f"{table}, line {number}: {', '.join(empty)} is empty.")
    if not rows:
        raise PoseTransferError(f"{table} has no line below its header. Add one for each pair.")
    return rows


def require_files(table: Path, paths: Iterable[Path]) -> None:
    """Raises PoseTransferError that names the files which a table mentions and which are absent."""
    absent = sorted({str(path) for path in paths if not path.is_file()})
    if absent:
        raise PoseTransferError(
            f"{table} names {len(absent)} files that are not there: {spell(absent)}. Correct the "
            "paths: they are relative to the folders that were given."
        )


def picture_size(path: Path) -> Size:
    """(height, width) in which a picture is read. Raises PoseTransferError."""
    width, height = images.picture_size(path)
    return height, width


def read_picture(path: Path, size: Size | None = None) -> NDArray[np.uint8]:
    """RGB (H, W, 3) uint8, resized to `size` by PIL's bicubic filter as the released code does.

    Upright, transparency over white. Raises PoseTransferError for a file that is no picture.
    """
    rgb = images.open_picture(path)
    if size is not None and (rgb.height, rgb.width) != size:
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def require_equal_sizes(pairs: Iterable[FilePair]) -> None:
    """Raises PoseTransferError that names the pairs whose pictures differ in size."""
    wrong = []
    for pair in pairs:
        made, true = picture_size(pair.generated), picture_size(pair.truth)
        if made != true:
            wrong.append(f"{pair.name} ({made[0]}x{made[1]} and {true[0]}x{true[1]})")
    if wrong:
        raise PoseTransferError(
            f"The generated and the true picture differ in size in {len(wrong)} pairs, height x "
            f"width: {spell(wrong)}. Nothing is resized unasked: give --size HxW, such as "
            "--size 512x352, and all pictures are brought to it by a bicubic filter."
        )
