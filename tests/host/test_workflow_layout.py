# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped workflows are tidy: nothing lies over anything, links go right, notes explain.

Sizes in px of the graph. The heights are the front end's: of its two ways to draw nodes the higher.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
NOTES = ("Note", "MarkdownNote")
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")

TITLE, FRAME = 30, 46  # a node's title bar; what it needs around its rows
SOCKET, WIDGET, LONG_TEXT, PICTURE = 20, 28, 56, 240  # a row; a text of lines needs so much more
APART = 20  # two nodes; the badge with the pack's name stands above a title
GROUP_TITLE, GROUP_EDGE = 34, 10
GRID = 10


class Box(NamedTuple):
    """A rectangle and what it belongs to."""

    left: float
    top: float
    right: float
    bottom: float
    title: str

    def is_apart(self, other: Box, gap: float = 0.0) -> bool:
        return (
            self.right + gap <= other.left
            or other.right + gap <= self.left
            or self.bottom + gap <= other.top
            or other.bottom + gap <= self.top
        )

    def holds(self, other: Box) -> bool:
        return (
            self.left + GROUP_EDGE <= other.left
            and self.top + GROUP_TITLE <= other.top
            and other.right + GROUP_EDGE <= self.right
            and other.bottom + GROUP_EDGE <= self.bottom
        )


def box_of(node: dict[str, Any]) -> Box:
    (x, y), (width, height) = node["pos"], node["size"]
    return Box(x, y - TITLE, x + width, y + height, node["title"])


def group_boxes(workflow: dict[str, Any]) -> list[Box]:
    boxes = [(*group["bounding"], group["title"]) for group in workflow["groups"]]
    return [Box(x, y, x + width, y + height, title) for x, y, width, height, title in boxes]


def needed_height(info: dict[str, Any]) -> int:
    """What the front end gives a node of that kind at least, its title not counted."""
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    height = rows = 0
    for io_type, *more in inputs.values():
        options = more[0] if more else {}
        if io_type not in WIDGETS and not isinstance(io_type, list):
            rows += 1
            continue
        height += WIDGET * (2 if options.get("control_after_generate") else 1)
        height += LONG_TEXT if options.get("multiline") else 0
    takes_a_picture = any(io_type == "IMAGE" for io_type, *_ in inputs.values())
    if info["has_intermediate_output"] or (info["output_node"] and takes_a_picture):
        height += PICTURE
    return FRAME + SOCKET * max(rows, len(info["output"])) + height


@pytest.fixture(scope="module")
def node_info(comfy: Any) -> dict[str, Any]:
    return comfy.object_info()


@pytest.fixture(params=NAMES)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{request.param}.json").read_text(encoding="utf-8"))


def test_every_node_has_the_height_that_its_rows_need(
    workflow: dict[str, Any], node_info: dict[str, Any]
) -> None:
    """A node that is stored smaller grows when the workflow opens, over the one below it."""
    low = {
        node["title"]: needed
        for node in workflow["nodes"]
        if node["type"] not in NOTES
        and node["size"][1] < (needed := needed_height(node_info[node["type"]]))
    }
    assert low == {}, "heights that these need"


def test_no_node_lies_over_another(workflow: dict[str, Any]) -> None:
    boxes = [box_of(node) for node in workflow["nodes"]]
    for one, other in itertools.combinations(boxes, 2):
        assert one.is_apart(other, APART), f"{one.title} and {other.title}"


def test_every_node_lies_in_one_group_and_no_group_cuts_one(workflow: dict[str, Any]) -> None:
    groups = group_boxes(workflow)
    for node in workflow["nodes"]:
        box = box_of(node)
        inside = [group.title for group in groups if group.holds(box)]
        touched = [group.title for group in groups if not group.is_apart(box)]
        assert inside == touched, f"{box.title} on the border of a group"
        assert len(inside) == 1 or node["type"] in NOTES, f"{box.title} in {inside}"


def test_groups_have_a_title_and_a_colour_and_lie_apart(workflow: dict[str, Any]) -> None:
    assert all(group["title"].strip() and group["color"] for group in workflow["groups"])
    for one, other in itertools.combinations(group_boxes(workflow), 2):
        assert one.is_apart(other), f"{one.title} and {other.title}"


def test_links_go_right_or_down_a_column(workflow: dict[str, Any]) -> None:
    boxes = {node["id"]: box_of(node) for node in workflow["nodes"]}
    for _, origin, _, target, *_ in workflow["links"]:
        source, sink = boxes[origin], boxes[target]
        below = sink.top >= source.bottom and sink.right > source.left
        assert sink.left >= source.right or below, f"{source.title} -> {sink.title}"


def test_a_note_explains_it(workflow: dict[str, Any]) -> None:
    notes = [n["widgets_values"][0] for n in workflow["nodes"] if n["type"] in NOTES]
    assert any(note.startswith("#") and len(note) >= 200 for note in notes)


def test_titles_are_there_and_differ(workflow: dict[str, Any]) -> None:
    titles = [node["title"] for node in workflow["nodes"]]
    assert all(title.strip() for title in titles)
    assert len(set(titles)) == len(titles)


def test_places_and_sizes_are_on_the_grid(workflow: dict[str, Any]) -> None:
    numbers = [*itertools.chain(*(node["pos"] + node["size"] for node in workflow["nodes"]))]
    numbers += itertools.chain(*(group["bounding"] for group in workflow["groups"]))
    assert [number for number in numbers if number % GRID] == []


def test_every_workflow_has_a_picture() -> None:
    """The host shows one of its own in the template browser where ours is missing."""
    assert {path.stem for path in WORKFLOWS.glob("*.jpg")} == set(NAMES)
