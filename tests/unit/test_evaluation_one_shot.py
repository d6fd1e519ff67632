# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence for OnePoseTrans: which nodes a variant runs, and what is made of its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pose_transfer.client import load_workflow
from pose_transfer.client.workflow import Workflow, title_of
from pose_transfer.evaluation import one_shot
from pose_transfer.evaluation.cli import main
from pose_transfer.mannequin import HELD_OUT_PATTERNS, render

WORKFLOW = Path(__file__).parents[2] / "workflows" / "api" / "oneposetrans_demo.json"


def reached(workflow: Workflow, node_id: str) -> set[str]:
    """Titles of a node and of all that it depends on."""
    links = [v for v in workflow[node_id]["inputs"].values() if isinstance(v, list)]
    return {title_of(workflow, node_id)}.union(*(reached(workflow, link[0]) for link in links))


@pytest.mark.parametrize(
    ("name", "tunes", "sees"),
    [
        ("caption", False, False),
        ("vcm", False, True),
        ("lora", True, False),
        ("both", True, True),
        ("beside", True, True),
    ],
)
def test_a_variant_does_without_what_it_is_not_about(name: str, tunes: bool, sees: bool) -> None:
    (person,) = one_shot.held_out_persons(1)
    workflow = one_shot.variant(load_workflow(WORKFLOW), name, person, "zigzag")
    used = reached(workflow, "drawn")
    assert ("Tune LoRA" in used) == tunes
    assert ("Face" in used) == sees
    apply_vcm = next(n for n in workflow.values() if n["_meta"]["title"] == "Apply VCM")
    assert (apply_vcm["inputs"]["image_scale"] > 0) == sees
    # Nothing else would be run by the host: it starts from nodes that put something out.
    ends = [i for i, n in workflow.items() if n["class_type"] in ("SaveImage", "LossGraphNode")]
    assert ends == ["drawn"]
    drawn = next(n for n in workflow.values() if n["_meta"]["title"] == "Person")["inputs"]
    assert drawn["identity"] == person.identity_seed and drawn["upper_pattern"] == "zigzag"


def test_beside_the_module_the_lora_learns_and_acts_on_what_the_module_gives() -> None:
    (person,) = one_shot.held_out_persons(1)
    workflow = one_shot.variant(load_workflow(WORKFLOW), "beside", person, "zigzag")
    ids = {node["_meta"]["title"]: node_id for node_id, node in workflow.items()}

    def source(title: str, name: str) -> str:
        node_id, _ = workflow[ids[title]]["inputs"][name]
        return title_of(workflow, node_id)

    assert "Tune LoRA" not in reached(workflow, ids["Apply VCM"])
    assert source("Tune LoRA", "model") == source("Apply LoRA", "model") == "Apply VCM"
    assert source("Pose of the photo", "positive") == "Apply VCM"
    assert source("Sample", "model") == source("Refine", "model") == "Apply LoRA"
    assert "Apply VCM" not in reached(
        one_shot.variant(load_workflow(WORKFLOW), "both", person, "zigzag"), ids["Tune LoRA"]
    )


def test_the_persons_wear_what_no_model_has_seen() -> None:
    (person,) = one_shot.held_out_persons(1)
    seeds = person.identity_seed, person.source_pose_seed
    assert person.identity_seed % 10 == 9
    expected = render(*seeds, upper_pattern=HELD_OUT_PATTERNS[0]).image
    assert np.array_equal(person.source.image, expected)
    assert not np.array_equal(person.source.image, render(*seeds).image)


def test_the_report_says_what_is_better_and_what_worse(tmp_path: Path) -> None:
    persons = one_shot.held_out_persons(3)
    truths = np.stack([person.target.image for person in persons])
    sources = np.stack([person.source.image for person in persons])
    grey = np.full_like(truths, 127)
    pictures = {"caption": grey, "vcm": sources, "lora": truths, "both": grey}
    result = one_shot.measure(persons, pictures)
    assert result.estimate("lora", "pattern").mean == 1.0
    assert result.estimate("lora", "colour").mean == 0.0
    path = one_shot.write_report(result, tmp_path, "the command")
    rows = {
        line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:]
        for line in path.read_text().splitlines()
        if line.startswith("| with ")
    }
    assert "**-" in rows["with the one-shot LoRA, against the base, with the caption only"][0]
    assert "better**" in rows["with the one-shot LoRA, against the base, with the caption only"][0]
    assert "worse**" in rows["with both, against with the one-shot LoRA"][0]
    told = json.loads((tmp_path / "one_shot.json").read_text())
    assert len(told["scores"]["both"]["colour"]) == 3
    assert (tmp_path / "images" / "one_shot.jpg").stat().st_size > 1000


def test_without_a_comfyui_the_command_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    assert main(["one-shot", "--persons", "1"]) == 1
    assert "--server" in capsys.readouterr().err
