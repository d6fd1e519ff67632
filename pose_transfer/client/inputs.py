# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command line says about inputs: which node a folder belongs to, values as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .workflow import Workflow, title_of, with_overrides

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
KEYPOINTS = (".json", ".txt", ".csv")
LOADERS = {
    "LoadImage": ("image", PICTURES),
    "PoseTransferLoadPose": ("file", KEYPOINTS),
}
"""Nodes that read an uploaded file: the input that names it, and what suffixes it has."""
SOURCE_LOADERS = ("LoadImage",)
POSE_LOADERS = ("PoseTransferLoadPose", "LoadImage")
SOURCE_TITLE = "Photo of the person"
POSE_TITLE = "Photo with the pose"
"""Titles in the workflows that come with the pack."""

Plain = str | int | float | bool


def find_loader(
    workflow: Workflow, asked: str | None, classes: Sequence[str], usual: str, option: str
) -> tuple[str, str, tuple[str, ...]]:
    """The title of the node that takes the files, its input, and the files' suffixes.

    That is the node that is asked for; else the only one of the first class that the workflow has;
    else the one with the usual title. Raises ValueError where that does not choose one.
    """
    titles = {title_of(workflow, i): node["class_type"] for i, node in workflow.items()}
    if asked is not None:
        with_overrides(workflow, {asked: {}})  # one node, and no other, has the title
        if titles[asked] not in LOADERS:
            raise ValueError(
                f"The node {asked!r} is a {titles[asked]}, which reads no file that can be sent. "
                f"{option} takes the title of one of: {', '.join(LOADERS)}."
            )
        return (asked, *LOADERS[titles[asked]])
    found: list[str] = []
    for class_type in classes:
        found = [title for title, own in titles.items() if own == class_type]
        if found:
            break
    if len(found) > 1 and usual in found:
        found = [usual]
    if len(found) != 1:
        what = f"several: {', '.join(map(repr, found))}" if found else "none"
        raise ValueError(
            f"Of the nodes that load a file ({', '.join(classes)}) the workflow has {what}. Name "
            f"one by its title: {option}."
        )
    return (found[0], *LOADERS[titles[found[0]]])


def read_assignment(workflow: Workflow, text: str) -> tuple[str, str, str]:
    """`Title.input=value` in its parts; ValueError where the workflow has no such input."""
    place, equals, value = text.partition("=")
    title, dot, name = place.rpartition(".")
    if not equals or not dot:
        raise ValueError(f"{text!r} is not of the form Title.input=value.")
    with_overrides(workflow, {title: {name: None}})
    return title, name, value


def read_value(workflow: Workflow, title: str, name: str, text: str) -> Plain:
    """The text as a value of the kind that the input has now; ValueError where it is none."""
    current = _current(workflow, title, name)
    if isinstance(current, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return _of_kind(current, value, f"'{title}.{name}'", text)


def read_values(workflow: Workflow, title: str, name: str, text: str) -> list[Plain]:
    """A list of values: separated by commas, or a JSON list where values have commas."""
    if not text.startswith("["):
        return [read_value(workflow, title, name, part) for part in text.split(",")]
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"The values for '{title}.{name}' are no JSON list: {error}.") from None
    current = _current(workflow, title, name)
    return [_of_kind(current, value, f"'{title}.{name}'", json.dumps(value)) for value in values]


def _current(workflow: Workflow, title: str, name: str) -> Any:
    current = next(
        node["inputs"][name] for i, node in workflow.items() if title_of(workflow, i) == title
    )
    if isinstance(current, list):
        raise ValueError(f"The input '{title}.{name}' is wired to a node; it takes no value.")
    return current


def _of_kind(current: Any, value: Any, place: str, text: str) -> Plain:
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(current):
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise ValueError(f"{place} takes {kinds[type(current)]}, not {text}.")
    return value
