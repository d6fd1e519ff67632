# SPDX-License-Identifier: GPL-3.0-or-later
"""The workflow for the released weights, run on the demo's models in their place."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pose_transfer.client import ComfyServer, WorkflowError, load_workflow
from pose_transfer.mannequin import render
from pose_transfer.weights.registry import find_model

WORKFLOWS = Path(__file__).parents[2] / "workflows"
API = WORKFLOWS / "api" / "fpdm_photo.json"


def test_the_host_s_list_of_missing_models_gets_the_file(server: ComfyServer) -> None:
    (file,) = find_model("fpdm").files
    ui = json.loads((WORKFLOWS / "fpdm_photo.json").read_text())
    (model,) = ui["models"]
    assert (model["name"], model["url"]) == (file.path, file.url)
    with urllib.request.urlopen(f"{server.address}/models") as answer:
        assert model["directory"] in json.load(answer)
    (loader,) = (node for node in ui["nodes"] if node["type"] == "PoseTransferLoadFPDM")
    assert loader["widgets_values"][0] == file.path


@pytest.fixture(scope="module")
def photos(comfy: Any) -> dict[str, dict[str, str]]:
    """Two rendered people in place of the photos that an artist chooses."""
    chosen = {}
    for title, identity, pose in (
        ("Photo of the person", 19, 29),
        ("Photo with the pose", 49, 9),
    ):
        data = io.BytesIO()
        Image.fromarray(render(identity, pose).image).save(data, "png")
        name = comfy.upload_image(f"person_{identity}.png", data.getvalue())
        chosen[title] = {"image": name}
    return chosen


def test_without_the_released_file_the_loader_names_it(
    comfy: Any, photos: dict[str, dict[str, str]]
) -> None:
    with pytest.raises(WorkflowError, match=r"no FPDM checkpoint called 'fpdm_stage2\.ckpt'"):
        comfy.run(API, photos)


def test_it_runs_from_two_photos_to_a_picture(
    comfy: Any, photos: dict[str, dict[str, str]]
) -> None:
    """The demo's detector and models; everything else as shipped."""
    workflow = load_workflow(API)
    small = {"width": 192, "height": 256}
    overrides = {
        **photos,
        "Person at 352 x 512": small,
        "Pose at 352 x 512": small,
        "Draw target pose": small,
        "Detect person": {"detector": "mannequin (demo)"},
        "Detect pose to take": {"detector": "mannequin (demo)"},
        "Load FPDM": {"checkpoint": "mannequin demo (comes with the pack)"},
        "Steps": {"steps": 2},
    }
    result = comfy.run(workflow, overrides, timeout=300)
    (picture,) = result.images["Save result"]
    assert Image.open(io.BytesIO(picture)).size == (192, 256)
