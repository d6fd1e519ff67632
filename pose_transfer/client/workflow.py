# SPDX-License-Identifier: GPL-3.0-or-later
"""Workflows in API format: `{node id: {"class_type", "inputs", "_meta": {"title"}}}`.

Scripts address nodes by title, as an artist sees them; ids are the host's business.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Workflow = dict[str, dict[str, Any]]
Overrides = Mapping[str, Mapping[str, Any]]
"""`{node title: {input name: value}}`"""


def load_workflow(path: str | Path) -> Workflow:
    """Reads a workflow in API format; ValueError for any other JSON."""
    try:
        workflow = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON file: {error}.") from None
    if isinstance(workflow, dict) and "nodes" in workflow:
        raise ValueError(
            f"{path} is a workflow in the editor's format; the server wants the API format "
            "(in ComfyUI: menu File, Export (API))."
        )
    if not isinstance(workflow, dict) or not all(
        isinstance(node, dict) and "class_type" in node and "inputs" in node
        for node in workflow.values()
    ):
        raise ValueError(
            f"{path} is no workflow in API format: each entry needs class_type and inputs."
        )
    return workflow


def title_of(workflow: Workflow, node_id: str) -> str:
    """The node's title; its class where it has none, its id where the workflow lacks it."""
    node = workflow.get(node_id)
    if node is None:
        return f"#{node_id}"
    return node.get("_meta", {}).get("title") or node["class_type"]


def with_overrides(workflow: Workflow, overrides: Overrides) -> Workflow:
    """A copy of the workflow with some inputs replaced.

    Raises:
        ValueError: no node, or several, of that title; or the node has no input of that name.
    """
    changed = copy.deepcopy(workflow)
    titles = [title_of(workflow, node_id) for node_id in workflow]
    for title, inputs in overrides.items():
        ids = [node_id for node_id, t in zip(workflow, titles, strict=True) if t == title]
        if len(ids) != 1:
            found = "several nodes" if ids else "no node"
            raise ValueError(
                f"The workflow has {found} with the title {title!r}. Its titles: "
                f"{', '.join(sorted(titles))}."
            )
        own = changed[ids[0]]["inputs"]
        for name, value in inputs.items():
            if name not in own:
                raise ValueError(
                    f"Node {title!r} has no input {name!r}. Its inputs: {', '.join(own)}."
                )
            own[name] = value
    return changed
