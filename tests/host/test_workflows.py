# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped workflows: both forms say the same, fit the nodes, and run."""

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
from pose_transfer.detectors.demo import (
    load_demo_detector,
    load_demo_face_encoder,
    load_demo_parser,
)
from pose_transfer.evaluation.metrics import colour_errors, region_colours, silhouette_iou
from pose_transfer.evaluation.person_measures import face_scores
from pose_transfer.mannequin import Sample, render
from pose_transfer.pose import read_keypoints

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
CONTROLS = ("fixed", "increment", "decrement", "randomize")
NOTES = ("Note", "MarkdownNote")
LEFT_WRIST = 7


@pytest.fixture(scope="module")
def node_info(comfy: Any) -> dict[str, Any]:
    return comfy.object_info()


def widgets_of(info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Names and options of the inputs that are widgets, in the order of the node."""
    found = {}
    for kind in ("required", "optional"):
        for name, (io_type, *options) in info["input"].get(kind, {}).items():
            if io_type in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or isinstance(
                io_type, list
            ):
                found[name] = options[0] if options else {}
    return found


def as_api(ui: dict[str, Any], node_info: dict[str, Any]) -> dict[str, Any]:
    """The API form of a workflow in the editor's form, as the front end makes it."""
    links = {link[0]: [str(link[1]), link[2]] for link in ui["links"]}
    api = {}
    for node in ui["nodes"]:
        if node["type"] in NOTES:
            continue
        values = list(node["widgets_values"])
        inputs = {}
        for name, options in widgets_of(node_info[node["type"]]).items():
            inputs[name] = values.pop(0)
            if options.get("control_after_generate"):
                assert values.pop(0) in CONTROLS
        assert not values, f"{node['title']} has more widget values than widgets: {values}"
        inputs |= {i["name"]: links[i["link"]] for i in node["inputs"] if i["link"] is not None}
        api[str(node["id"])] = {
            "class_type": node["type"],
            "inputs": inputs,
            "_meta": {"title": node["title"]},
        }
    return api


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_say_the_same(name: str, node_info: dict[str, Any]) -> None:
    ui = json.loads((WORKFLOWS / f"{name}.json").read_text())
    assert as_api(ui, node_info) == load_workflow(WORKFLOWS / "api" / f"{name}.json")


@pytest.mark.parametrize("name", NAMES)
def test_every_link_fits_the_nodes(name: str, node_info: dict[str, Any]) -> None:
    ui = json.loads((WORKFLOWS / f"{name}.json").read_text())
    nodes = {node["id"]: node for node in ui["nodes"]}
    for _, origin, slot, target, target_slot, _ in ui["links"]:
        source, sink = nodes[origin], nodes[target]
        socket = sink["inputs"][target_slot]["name"]
        inputs = node_info[sink["type"]]["input"]
        wanted = {**inputs.get("required", {}), **inputs.get("optional", {})}[socket][0]
        offered = node_info[source["type"]]["output"][slot]
        assert wanted in (offered, "*"), f"{source['title']} -> {sink['title']}.{socket}"
        assert source["outputs"][slot]["name"] == node_info[source["type"]]["output_name"][slot]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_offered_as_a_template(name: str, server: ComfyServer) -> None:
    with urllib.request.urlopen(f"{server.address}/workflow_templates") as answer:
        offered = json.load(answer)
    assert [name in names for names in offered.values()].count(True) == 1


def test_the_demo_shows_the_person_in_the_pose(comfy: Any) -> None:
    workflow = WORKFLOWS / "api" / "fpdm_demo.json"
    person = load_workflow(workflow)["1"]["inputs"]
    result = comfy.run(workflow, timeout=300)
    (sheet,) = result.images["Save comparison"]
    (picture,) = result.images["Save result"]
    assert Image.open(io.BytesIO(sheet)).size[0] > 4 * 192
    (metrics,) = result.texts["Metrics"]
    assert metrics.startswith("result against truth: SSIM")

    image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    source = render(person["identity"], person["source_pose"])
    truth = render(person["identity"], person["target_pose"])
    assert image.shape == truth.image.shape

    # The pose is the target's, not the source's.
    overlap = silhouette_iou(image, truth.image, truth.parsing > 0)
    assert overlap > 0.75
    assert overlap > silhouette_iou(source.image, truth.image, truth.parsing > 0) + 0.1

    # Of many people in that pose, the picture has the colours of the source's person: hair, face,
    # both garments, shoes. (Pixel by pixel a stripe at the wrong place would outweigh them.)
    regions = (1, 2, 3, 4, 7)
    found = region_colours(image, truth.parsing, regions)

    def unlike(other: Sample) -> float:
        wanted = region_colours(other.image, other.parsing, regions)
        return float(np.nanmean(np.abs(found - wanted)))

    strangers = [render(seed, person["target_pose"]) for seed in range(100, 130)]
    assert unlike(truth) < min(unlike(stranger) for stranger in strangers)
    assert colour_errors(image, truth.image, truth.parsing, (3, 4)).max() < 30

    # And the face. Measured: cosine .63, of the likest stranger .30.
    def alike(others: list[Sample]) -> np.ndarray:
        drawn = np.repeat(image[None], len(others), axis=0)
        return face_scores(drawn, [x.image for x in others], load_demo_face_encoder())["face"]

    assert alike([truth])[0] > 0.45
    assert alike([truth])[0] > np.nanmax(alike(strangers)) + 0.1


def test_the_person_takes_the_pose_that_was_edited(comfy: Any) -> None:
    """The arm that the template raises is up, all else as in the photo, and it is that person."""
    workflow = load_workflow(WORKFLOWS / "api" / "edit_pose.json")
    seeds = workflow["1"]["inputs"]
    (picture,) = comfy.run(workflow, timeout=300).images["Save result"]
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    source = render(seeds["identity"], seeds["source_pose"])
    assert image.shape == source.image.shape

    edited = read_keypoints(workflow["2"]["inputs"]["pose"])[0].people[0].body
    unedited = source.pose.people[0].body
    ((person, _),) = load_demo_detector().detect(image)

    def off(wanted: np.ndarray) -> np.ndarray:
        return np.hypot(*(person.body - wanted)[:, :2].T)

    seen = (person.body[:, 2] > 0) & (edited[:, 2] > 0)
    assert seen.sum() >= 14 and off(edited)[seen].mean() < 8  # px; a torso has 70
    assert off(edited)[LEFT_WRIST] < 24 < off(unedited)[LEFT_WRIST]

    labels, _ = load_demo_parser().parse(image)
    regions = (1, 2, 3, 4, 7)
    found = region_colours(image, labels, regions)

    def unlike(other: Sample) -> float:
        wanted = region_colours(other.image, other.parsing, regions)
        return float(np.nanmean(np.abs(found - wanted)))

    strangers = [render(seed, seeds["source_pose"]) for seed in range(100, 130)]
    assert unlike(source) < min(map(unlike, strangers))


def test_equal_seeds_give_equal_pictures_and_others_do_not(comfy: Any) -> None:
    def run(seed: int) -> np.ndarray:
        overrides = {"Steps": {"steps": 2}, "Noise": {"noise_seed": seed}}
        result = comfy.run(WORKFLOWS / "api" / "fpdm_demo.json", overrides, timeout=300)
        return np.asarray(Image.open(io.BytesIO(result.images["Save result"][0])))

    first, other, again = run(5), run(6), run(5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
