# SPDX-License-Identifier: GPL-3.0-or-later
"""TruePose's workflows: the demo's as shipped, that for photos on the demo's models."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pose_transfer.client import ComfyServer, load_workflow
from pose_transfer.client.workflow import Workflow
from pose_transfer.evaluation.metrics import (
    RIGHT_COLOUR,
    colour_errors,
    region_colours,
    silhouette_iou,
)
from pose_transfer.mannequin import LABELS, Sample, render
from pose_transfer.weights.registry import MODELS

WORKFLOWS = Path(__file__).parents[2] / "workflows"
PHOTO = "truepose_training_free"


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_host_s_list_of_missing_models_gets_the_files(server: ComfyServer) -> None:
    known = {(m.folder, f.path): f.url for m in MODELS for f in m.files}
    ui = json.loads((WORKFLOWS / f"{PHOTO}.json").read_text())
    with urllib.request.urlopen(f"{server.address}/models") as answer:
        folders = json.load(answer)
    chosen = {v for node in ui["nodes"] for v in node.get("widgets_values", [])}
    assert len(ui["models"]) == 2
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
    for title in ("Pose of the photo", "Pose control"):
        inputs(title)["control_net"] = [models, 4]
    del workflow[ids["Load ControlNet"]]
    for title in ("Detect person", "Detect pose to take"):
        inputs(title)["detector"] = "mannequin (demo)"
    inputs("Parse person")["parser"] = "mannequin (demo)"
    inputs("Shrink photo")["megapixels"] = 192 * 256 / 2**20
    inputs("Draw target pose").update(width=192, height=256, style="fpdm")
    inputs("Draw source pose")["style"] = "fpdm"
    inputs("Size").update(width=192, height=256)
    inputs("Sample")["steps"] = 4
    inputs("Caption")["value"] = render(19, 29).caption
    inputs("Photo of the person")["image"] = person
    inputs("Photo with the pose")["image"] = pose
    return workflow


def uploaded(comfy: Any, label: str, image: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "png")
    return comfy.upload_image(f"{PHOTO}_{label}.png", data.getvalue())


def test_the_workflow_for_photos_runs_on_the_demo_s_models(comfy: Any) -> None:
    source = render(19, 29)
    photos = (uploaded(comfy, "person", source.image),
              uploaded(comfy, "pose", render(49, 9).image))  # fmt: skip
    workflow = on_the_demo(load_workflow(WORKFLOWS / "api" / f"{PHOTO}.json"), *photos)
    (guided,) = comfy.run(workflow, timeout=900).images["Save result"]
    ids = {node["_meta"]["title"]: node_id for node_id, node in workflow.items()}
    workflow[ids["Guide attention"]]["inputs"]["strength"] = 0.0
    (alone,) = comfy.run(workflow, timeout=900).images["Save result"]
    made, plain = picture(guided), picture(alone)
    assert made.shape == source.image.shape and made.std() > 5
    assert np.abs(made.astype(int) - plain).mean() > 2, "the source is attended to"


def test_without_training_and_without_a_word_the_clothes_come_over(comfy: Any) -> None:
    """The demo's base is told the pose alone; all that it knows of the person is the guide."""
    source, truth = render(129, 29), render(129, 9)
    photos = uploaded(comfy, "129", source.image), uploaded(comfy, "129_pose", truth.image)
    workflow = on_the_demo(load_workflow(WORKFLOWS / "api" / f"{PHOTO}.json"), *photos)
    ids = {node["_meta"]["title"]: node_id for node_id, node in workflow.items()}
    inputs = {title: workflow[node_id]["inputs"] for title, node_id in ids.items()}
    inputs["Caption"]["value"] = inputs["Not wanted"]["text"] = ""
    inputs["Sample"].update(steps=12, cfg=2.0, scheduler="sgm_uniform")
    inputs["Source features"]["mode"] = "clean, once"
    regions = tuple(LABELS.index(name) for name in ("hair", "face", "upper", "lower", "shoes"))

    def off(strength: float) -> float:
        inputs["Guide attention"]["strength"] = strength
        (made,) = comfy.run(workflow, timeout=900).images["Save result"]
        return float(colour_errors(picture(made), truth.image, truth.parsing, regions).mean())

    # Measured: 64.3 alone, 17.7 guided; 38.5 where the source is not told its own pose.
    alone, guided = off(0.0), off(4.0)
    inputs["Source features"]["conditioning"] = [ids["Described"], 0]
    assert guided < 22 < 50 < alone
    assert guided + 10 < off(4.0)


def test_the_demo_keeps_the_person_in_the_pose(comfy: Any) -> None:
    """The outline is the pose's, and the colours are those of the source's person."""
    workflow = load_workflow(WORKFLOWS / "api" / "truepose_demo.json")
    person = workflow["1"]["inputs"]
    result = comfy.run(workflow, timeout=600)
    (made,) = (picture(data) for data in result.images["Save result"])
    assert len(result.images["Save attention"]) == 1
    source, truth = (
        render(person["identity"], person[pose]) for pose in ("source_pose", "target_pose")
    )
    # Measured: 0.953; two other seeds 0.927 and 0.934; the source as it stands 0.568.
    overlap = silhouette_iou(made, truth.image, truth.parsing > 0)
    assert overlap > 0.92
    assert overlap > silhouette_iou(source.image, truth.image, truth.parsing > 0) + 0.3

    # Measured: face 8.8, upper 9.1, lower 7.0, shoes 5.7. In the median of strangers in that
    # pose: 34, 42, 28, 49. Hair (26) is left out: the pair shortens it.
    regions = tuple(LABELS.index(name) for name in ("face", "upper", "lower", "shoes"))
    assert colour_errors(made, truth.image, truth.parsing, regions).max() < RIGHT_COLOUR

    # Measured, hair and all: 11.4 to the truth, 21.8 to the nearest of the strangers.
    regions = (LABELS.index("hair"), *regions)
    found = region_colours(made, truth.parsing, regions)

    def unlike(other: Sample) -> float:
        wanted = region_colours(other.image, other.parsing, regions)
        return float(np.nanmean(np.abs(found - wanted)))

    strangers = [render(seed, person["target_pose"]) for seed in range(100, 130)]
    assert unlike(truth) + 5 < min(unlike(stranger) for stranger in strangers)


def test_a_region_is_taken_from_another_person(comfy: Any) -> None:
    """The upper garment has the other's colours, all else is as it is without the other."""
    workflow = load_workflow(WORKFLOWS / "api" / "truepose_edit_region.json")
    ids = {node["_meta"]["title"]: node_id for node_id, node in workflow.items()}
    inputs = {title: workflow[node_id]["inputs"] for title, node_id in ids.items()}
    result = comfy.run(workflow, timeout=900)
    (edited,) = (picture(data) for data in result.images["Save result"])
    assert len(result.images["Save side by side"]) == 1
    inputs["All but the upper garment"]["upper"] = 1.0
    inputs["Sample"]["model"] = [ids["All but the upper garment"], 0]
    (alone,) = (picture(x) for x in comfy.run(workflow, timeout=900).images["Save result"])

    own, other = (
        render(inputs[title]["identity"], inputs["Person"]["target_pose"])
        for title in ("Person", "Wears the garment")
    )
    # Measured: 0.940, and 0.942 without the other; the source as it stands 0.557.
    assert silhouette_iou(edited, own.image, own.parsing > 0) > 0.92

    # Mean difference, 0..255. Measured: garment 85.6, all else 3.3, of the person's hair 4.0,
    # face 4.9, lower garment 3.6, shoes 6.9. (Arms 19.7: the other's sleeves are short.)
    change = np.abs(edited.astype(float) - alone).mean(2)
    upper = LABELS.index("upper")
    assert change[own.parsing == upper].mean() > 70
    assert change[own.parsing != upper].mean() < 5
    for name in ("hair", "face", "lower", "shoes"):
        assert change[own.parsing == LABELS.index(name)].mean() < 10, name

    # Measured, edited: 14.0 to the other's garment, 74.5 to the person's own; alone: 4.0 to it.
    def off(made: np.ndarray, sample: Sample) -> float:
        found = region_colours(made, own.parsing, (upper,))
        wanted = region_colours(sample.image, sample.parsing, (upper,))
        return float(np.abs(found - wanted).mean())

    assert off(edited, other) < 18 < 60 < off(edited, own)
    assert off(alone, own) < RIGHT_COLOUR
