# SPDX-License-Identifier: GPL-3.0-or-later
"""Every node explains itself, and the catalogue costs the host little time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HELP = Path(__file__).parents[2] / "web" / "docs"


@pytest.fixture(scope="module")
def ours(comfy: Any) -> dict[str, dict[str, Any]]:
    info = comfy.object_info()
    return {name: node for name, node in info.items() if name.startswith("PoseTransfer")}


def test_every_input_and_output_has_a_tooltip(ours: dict[str, dict[str, Any]]) -> None:
    silent = []
    for name, node in ours.items():
        for kind in ("required", "optional"):
            for key, (_, *options) in node["input"].get(kind, {}).items():
                if not (options and options[0].get("tooltip")):
                    silent.append(f"{name}.{key}")
        tooltips = node["output_tooltips"]
        silent += [
            f"{name} -> {output}"
            for output, tooltip in zip(node["output_name"], tooltips, strict=True)
            if not tooltip
        ]
    assert silent == []


def test_every_node_has_words_to_find_it_by(ours: dict[str, dict[str, Any]]) -> None:
    for name, node in ours.items():
        assert node["description"], name
        assert node["search_aliases"], name
        assert node["display_name"] != name


def test_every_node_has_a_help_page_that_names_its_inputs(ours: dict[str, dict[str, Any]]) -> None:
    assert {page.stem for page in HELP.glob("*.md")} == set(ours)
    for name, node in ours.items():
        page = (HELP / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {node['display_name']}\n"), name
        inputs = [*node["input"].get("required", {}), *node["input"].get("optional", {})]
        assert [key for key in inputs if key not in page] == [], name


def test_importing_the_nodes_is_quick(in_host: Callable[[str], str]) -> None:
    """Importing diffusers takes seconds; the nodes do it when they run. So with the renderer."""
    output = in_host(
        "import json, time\n"
        "import comfy.sd, comfy_api.latest\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import pose_transfer_pack.nodes\n"
        "spent = time.process_time() - start\n"
        "loaded = set(sys.modules) - before\n"
        "packages = {m.split('.')[0] for m in loaded}\n"
        "ours = {m.partition('.pose_transfer.')[2] for m in loaded}\n"
        "print(json.dumps([spent, sorted(packages), sorted(ours)]))"
    )
    spent, packages, ours = json.loads(output.splitlines()[-1])
    assert not {"diffusers", "transformers", "scipy", "cv2", "accelerate"} & set(packages)
    assert "mannequin.names" in ours and "mannequin.renderer" not in ours
    assert spent < 0.3
