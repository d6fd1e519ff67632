# SPDX-License-Identifier: GPL-3.0-or-later
"""OnePoseTrans's workflows: the demo as shipped, those for photos on the demo's models instead."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pose_transfer.client import ComfyServer, load_workflow
from pose_transfer.client.workflow import Workflow
from pose_transfer.evaluation.metrics import region_colours, silhouette_iou
from pose_transfer.mannequin import render
from pose_transfer.weights.registry import MODELS

WORKFLOWS = Path(__file__).parents[2] / "workflows"
PHOTO = ("oneposetrans_sdxl", "oneposetrans_sd15")


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_demo_learns_a_person_from_one_picture(comfy: Any) -> None:
    """Also what the base cannot know from the caption: skin, hair, the background."""
    workflow = load_workflow(WORKFLOWS / "api" / "oneposetrans_demo.json")
    person = next(n["inputs"] for n in workflow.values() if n["_meta"]["title"] == "Person")
    result = comfy.run(workflow, timeout=600)
    (made,) = (picture(data) for data in result.images["Save result"])
    assert len(result.images["Save previews"]) == 3
    identity, pattern = person["identity"], person["upper_pattern"]
    truth = render(identity, person["target_pose"], upper_pattern=pattern)
    source = render(identity, person["source_pose"], upper_pattern=pattern)

    overlap = silhouette_iou(made, truth.image, truth.parsing > 0)
    assert overlap > 0.7
    assert overlap > silhouette_iou(source.image, truth.image, truth.parsing > 0) + 0.1

    regions = (1, 2, 3, 4, 5)  # hair, face, both garments, arms
    found = region_colours(made, truth.parsing, regions)

    def unlike(image: np.ndarray, parsing: np.ndarray) -> float:
        return float(np.nanmean(np.abs(found - region_colours(image, parsing, regions))))

    strangers = [render(seed, person["target_pose"]) for seed in range(100, 130)]
    assert unlike(truth.image, truth.parsing) < min(unlike(s.image, s.parsing) for s in strangers)
    # The old background is kept but where somebody stood.
    away = (truth.parsing == 0) & (source.parsing == 0)
    away[:, 40:152] = False
    assert np.percentile(np.abs(made[away].astype(int) - source.image[away]), 90) <= 2


@pytest.mark.parametrize("name", PHOTO)
def test_the_host_s_list_of_missing_models_gets_the_files(name: str, server: ComfyServer) -> None:
    known = {(m.folder, f.path): f.url for m in MODELS for f in m.files}
    ui = json.loads((WORKFLOWS / f"{name}.json").read_text())
    with urllib.request.urlopen(f"{server.address}/models") as answer:
        folders = json.load(answer)
    chosen = {v for node in ui["nodes"] for v in node.get("widgets_values", [])}
    assert len(ui["models"]) >= 4
    for model in ui["models"]:
        assert known[model["directory"], model["name"]] == model["url"]
        assert model["directory"] in folders
        assert model["name"] in chosen


def on_the_demo(workflow: Workflow, person: str, pose: str) -> Workflow:
    """The workflow with the demo's models in place of files that cannot be had here."""
    ids = {node["_meta"]["title"]: node_id for node_id, node in workflow.items()}

    def inputs(title: str) -> dict[str, Any]:
        return workflow[ids[title]]["inputs"]

    models = ids["Load checkpoint"]
    workflow[models] |= {"class_type": "PoseTransferDemoModels", "inputs": {}}
    for title in ("Apply VCM", "VCM for refining"):
        del inputs(title)["clip_vision"]
    inputs("Pose control")["control_net"] = [models, 4]
    for title in ("Load ControlNet", "Load CLIP Vision"):
        del workflow[ids[title]]
    inputs("Load VCM").update(
        image_weights="mannequin demo (comes with the pack)", face_weights="of the same file"
    )
    for title in ("Detect person", "Detect pose to take"):
        inputs(title)["detector"] = "mannequin (demo)"
    for title in ("Parse person", "Parse result"):
        inputs(title)["parser"] = "mannequin (demo)"
    if "Face" in ids:
        inputs("Face")["encoder"] = "mannequin (demo)"
    inputs("Draw target pose").update(width=192, height=256, style="fpdm")
    inputs("Size").update(width=192, height=256)
    inputs("Tune LoRA").update(steps=2, resolution=192, crop="whole photo", preview_every=0)
    for title in ("Sample", "Refine", "Fill the background"):
        inputs(title)["steps"] = 2
    inputs("Photo of the person")["image"] = person
    inputs("Photo with the pose")["image"] = pose
    return workflow


@pytest.mark.parametrize("name", PHOTO)
def test_a_workflow_for_photos_runs_on_the_demo_s_models(name: str, comfy: Any) -> None:
    source = render(19, 29)
    uploaded = []
    for label, image in (("person", source.image), ("pose", render(49, 9).image)):
        data = io.BytesIO()
        Image.fromarray(image).save(data, "png")
        uploaded.append(comfy.upload_image(f"{name}_{label}.png", data.getvalue()))
    workflow = on_the_demo(load_workflow(WORKFLOWS / "api" / f"{name}.json"), *uploaded)
    result = comfy.run(workflow, timeout=600)
    (made,) = (picture(data) for data in result.images["Save result"])
    assert made.shape == source.image.shape
    assert made.std() > 5
    assert len(result.images["Save comparison"]) == 1
