# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs of pictures with keypoints, as they lie on a disk: DeepFashion's layout and a plain one.

DeepFashion's In-shop pictures lie in folders, as WOMEN/Dresses/id_00002629/02_1_front.jpg, while
the lists of pairs and joints that the papers share name them in one word, as
fashionWOMENDressesid0000262902_1front.jpg. Both have the same letters and digits, and by these a
picture is found.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...errors import PoseError, PoseTransferError
from ...images import open_picture, picture_size
from ...pose import read_keypoints, require_person
from ...types import Person, Pose
from .settings import DataSettings

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_SHOWN_PROBLEMS = 8


class DataError(PoseTransferError):
    """Training data that cannot be used; the text names the file and the row."""


@dataclass(frozen=True)
class Keypoints:
    """Where one picture's joints are written: a file of their own, or one line of a table."""

    file: Path
    line: str | None = None

    def read(self, picture_size: Callable[[], tuple[int, int]]) -> Pose:
        """The first person with a visible point, in pixels of the pose's canvas.

        `picture_size()` is (width, height) px, for files that do not tell their canvas. Raises
        PoseError.
        """
        table_or_rows = self.line is not None or self.file.suffix.lower() == ".txt"
        text = self.file.read_text(encoding="utf-8") if self.line is None else self.line
        # DeepFashion's joints count on small pictures, whatever size these pictures have.
        pose = read_keypoints(text, None if table_or_rows else picture_size())[0]
        return Pose(pose.width, pose.height, (Person(require_person(pose).body),))


@dataclass(frozen=True)
class Picture:
    """A picture file and its joints, where it has any."""

    path: Path
    keypoints: Keypoints | None

    def image(self, where: str) -> Image.Image:
        """The picture as `open_picture` gives it. DataError, with `where`, if unreadable."""
        try:
            return open_picture(self.path)
        except PoseTransferError as error:
            raise DataError(f"{where}: {error}") from error

    def pose(self, where: str) -> Pose:
        """The joints of the picture's first person. DataError, with `where`, without any."""
        if self.keypoints is None:
            raise DataError(f"{where}: the picture {self.path} has no keypoints.")
        try:
            return self.keypoints.read(lambda: self._size(where))
        except (PoseError, OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{where}: the keypoints of {self.path} in {self.keypoints.file} cannot be used: "
                f"{error}"
            ) from error

    def _size(self, where: str) -> tuple[int, int]:
        try:
            return picture_size(self.path)
        except PoseTransferError as error:
            raise DataError(f"{where}: {error}") from error


@dataclass(frozen=True)
class Pair:
    """One person in two pictures; `where` is the file and row that say so."""

    source: Picture
    target: Picture
    where: str


def read_pairs(settings: DataSettings, table: Path) -> tuple[Pair, ...]:
    """The pairs of a CSV file in the layout of `settings`.

    Raises DataError that names the first rows whose picture is missing or whose target has no
    keypoints, or what is wrong with the file.
    """
    if not settings.images.is_dir():
        raise DataError(f"images: the folder {settings.images} does not exist.")
    find: Callable[[str], Picture | None]
    if settings.layout == "deepfashion":
        columns, find = ("from", "to"), _deepfashion(settings)
    else:
        columns, find = ("source", "target"), _folder(settings)
    pairs: list[Pair] = []
    problems: list[str] = []
    found: dict[str, Picture | None] = {}
    for row, names in _rows(table, columns):
        where = f"{table}, row {row}"
        pictures = []
        for name, column in zip(names, columns, strict=True):
            if name not in found:
                found[name] = find(name)
            picture = found[name]
            if picture is None:
                problems.append(
                    f"{where}: the {column} picture {name!r} is not in {settings.images}"
                )
            elif column == columns[1] and picture.keypoints is None:
                problems.append(
                    f"{where}: the {column} picture {name!r} has no keypoints in "
                    f"{settings.keypoints or settings.images}"
                )
            else:
                pictures.append(picture)
        if len(pictures) == 2:
            pairs.append(Pair(pictures[0], pictures[1], where))
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        raise DataError(
            "\n".join(problems[:_SHOWN_PROBLEMS])
            + (f"\n... and {more} more" if more > 0 else "")
            + "\nAdd what is missing, or take these rows out."
        )
    if not pairs:
        raise DataError(f"{table} holds no pairs below its header {','.join(columns)}.")
    return tuple(pairs)


def _rows(table: Path, columns: tuple[str, str]) -> Iterator[tuple[int, tuple[str, str]]]:
    """(line in the file, the two names) for each row."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [x.strip() for x in reader.fieldnames or ()]
            if not set(columns) <= set(header):
                raise DataError(
                    f"{table}: the first line is {','.join(header)!r}, expected a header with the "
                    f"columns {' and '.join(columns)}."
                )
            reader.fieldnames = header
            for row in reader:
                names = tuple((row[c] or "").strip() for c in columns)
                if not all(names):
                    raise DataError(
                        f"{table}, row {reader.line_num}: expected two names, got {list(names)}."
                    )
                yield reader.line_num, names  # type: ignore[misc]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"pairs: {table} cannot be read ({error}).") from error


def _folder(settings: DataSettings) -> Callable[[str], Picture | None]:
    folder = settings.keypoints or settings.images

    def find(name: str) -> Picture | None:
        path = settings.images / name
        if not path.is_file():
            return None
        stem = folder / Path(name).with_suffix("")
        # OpenPose itself appends the second ending to a picture's name.
        for candidate in (f"{stem}.json", f"{stem}_keypoints.json"):
            if os.path.isfile(candidate):
                return Picture(path, Keypoints(Path(candidate)))
        return Picture(path, None)

    return find


def _deepfashion(settings: DataSettings) -> Callable[[str], Picture | None]:
    pictures = _index(settings.images, PICTURE_ENDINGS)
    assert settings.keypoints is not None, "the settings ask for it"
    joints = _joints(settings.keypoints)

    def find(name: str) -> Picture | None:
        key = _key(name)
        path = pictures.get(key)
        return None if path is None else Picture(path, joints.get(key))

    return find


def _joints(path: Path) -> dict[str, Keypoints]:
    if path.is_dir():
        return {key: Keypoints(file) for key, file in _index(path, (".txt",)).items()}
    out = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, numbers = line.partition(":")
            # Lines without any joint (all -1) are those of pictures in which none was found.
            if re.search(r"\d", numbers.replace("-1", "")):
                out[_key(name)] = Keypoints(path, line)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"keypoints: {path} cannot be read ({error}).") from error
    return out


def _index(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Key of the path below the folder -> file."""
    out: dict[str, Path] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(endings):
                path = Path(root, name)
                key = _key(path.relative_to(folder).as_posix())
                if key in out:
                    raise DataError(
                        f"{out[key]} and {path} have the same letters and digits in their names: "
                        "keep one of them."
                    )
                out[key] = path
    return out


def _key(name: str) -> str:
    """Letters and digits of a picture's name, without its ending and DeepFashion's first word."""
    stem = re.sub(r"\.\w+$", "", name.strip().lower())
    return re.sub(r"[^a-z0-9]", "", stem).removeprefix("fashion")
