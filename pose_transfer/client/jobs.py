# SPDX-License-Identifier: GPL-3.0-or-later
"""Every source times every pose: a workflow and lists of inputs become jobs with stable names.

A job's id is a hash of its workflow, its name, and its inputs (files by content), so it is the same
in every run, on every machine, and another one as soon as anything about the picture changes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .workflow import Overrides, Workflow, with_overrides

LABEL_BYTES = 80
SEED_INPUTS = ("seed", "noise_seed")


@dataclass(frozen=True)
class InputFile:
    """A file that is uploaded; it must be under this path wherever the upload is made."""

    path: Path
    name: str
    """Relative to the folder that was given."""
    sha256: str


Value = InputFile | str | int | float | bool


@dataclass(frozen=True)
class Choice:
    """One of the values that an input takes; `label` is its part of the result's name."""

    label: str
    value: Value


@dataclass(frozen=True)
class Axis:
    """An input, by node title and name, and all the values it takes."""

    title: str
    input: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Setting:
    """An input, by node title and name, and its value in one job."""

    title: str
    input: str
    value: Value

    @property
    def key(self) -> str:
        return f"{self.title}.{self.input}"


@dataclass(frozen=True)
class Job:
    """One run of the workflow. `name` is a path without suffix, below the folder of results."""

    id: str
    name: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Plan:
    """The workflow and the product of the axes; jobs are made as they are asked for.

    Raises ValueError where an axis names a node or an input that the workflow has not, or that
    another axis has.
    """

    workflow: Workflow
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        keys = [(axis.title, axis.input) for axis in self.axes]
        for title, name in keys:
            with_overrides(self.workflow, {title: {name: None}})
            if keys.count((title, name)) > 1:
                raise ValueError(f"The input '{title}.{name}' is given two lists of values.")

    def __len__(self) -> int:
        return math.prod(len(axis.choices) for axis in self.axes)

    def __iter__(self) -> Iterator[Job]:
        """The last axis runs fastest, so a server may keep what it made of the first."""
        for choices in itertools.product(*(axis.choices for axis in self.axes)):
            settings = tuple(
                Setting(axis.title, axis.input, choice.value)
                for axis, choice in zip(self.axes, choices, strict=True)
            )
            name = "/".join(choice.label for choice in choices) or "result"
            values = [[s.title, s.input, _comparable(s.value)] for s in settings]
            yield Job(_hash([self.workflow_sha256, name, values])[:32], name, settings)

    @cached_property
    def workflow_sha256(self) -> str:
        return _hash(self.workflow)


def file_axis(title: str, name: str, folder: Path, suffixes: Sequence[str]) -> Axis:
    """All files of the folder, and of those below, that end so; or the one file that is given.

    Raises ValueError where there are none.
    """
    if folder.is_file():
        paths, folder = [folder], folder.parent
    else:
        paths = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
        )
    if not paths:
        raise ValueError(
            f"There is no file for {title!r} in {folder}: looked for {', '.join(suffixes)}."
        )
    names = [path.relative_to(folder).as_posix() for path in paths]
    stems = [str(Path(n).with_suffix("")) for n in names]
    return Axis(
        title,
        name,
        tuple(
            Choice(label, InputFile(path.resolve(), n, _file_sha256(path)))
            for label, path, n in zip(_labels(stems, names), paths, names, strict=True)
        ),
    )


def value_axis(title: str, name: str, values: Sequence[str | int | float | bool]) -> Axis:
    """The values, labelled `input-value`; ValueError for none, or for one that comes twice."""
    texts = [json.dumps(value) for value in values]
    twice = [text for text, count in Counter(texts).items() if count > 1]
    if twice or not values:
        what = f"has {', '.join(twice)} twice" if twice else "is empty"
        raise ValueError(f"The list of values for '{title}.{name}' {what}.")
    labels = _labels([f"{name}-{value}" for value in values], texts)
    return Axis(title, name, tuple(map(Choice, labels, values)))


def seeds(workflow: Workflow, settings: Sequence[Setting]) -> dict[str, int]:
    """All seeds of the workflow with these settings, by `title.input`."""
    overrides: dict[str, dict[str, Any]] = {}
    for setting in settings:
        overrides.setdefault(setting.title, {})[setting.input] = setting.value
    return {
        f"{node.get('_meta', {}).get('title') or node['class_type']}.{name}": value
        for node in with_overrides(workflow, overrides).values()
        for name, value in node["inputs"].items()
        if name in SEED_INPUTS and isinstance(value, int)
    }


def overrides_of(settings: Sequence[Setting], uploaded: dict[str, str]) -> Overrides:
    """What to change in the workflow; `uploaded` has the server's name of a file by its sha256."""
    overrides: dict[str, dict[str, Any]] = {}
    for s in settings:
        value = uploaded[s.value.sha256] if isinstance(s.value, InputFile) else s.value
        overrides.setdefault(s.title, {})[s.input] = value
    return overrides


def file_label(text: str) -> str:
    """The text as part of a file's name on any disk."""
    safe = re.sub(r"[^\w.\-]+", "_", text).strip("._") or "_"
    return safe.encode()[:LABEL_BYTES].decode(errors="ignore")


def _labels(texts: Sequence[str], wholes: Sequence[str]) -> list[str]:
    """A label for each text; where two would be one, also part of a hash of what they stand for."""
    plain = [file_label(text) for text in texts]
    count = Counter(label.casefold() for label in plain)
    return [
        label if count[label.casefold()] == 1 else f"{label}-{_hash(whole)[:8]}"
        for label, whole in zip(plain, wholes, strict=True)
    ]


def _comparable(value: Value) -> Any:
    return {"sha256": value.sha256} if isinstance(value, InputFile) else value


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
