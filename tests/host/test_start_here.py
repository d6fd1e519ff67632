# SPDX-License-Identifier: GPL-3.0-or-later
"""The workflow start_here_demo: three methods draw one person in one pose."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pose_transfer.client import load_workflow
from pose_transfer.client.workflow import Workflow
from pose_transfer.evaluation.metrics import region_colours, silhouette_iou
from pose_transfer.mannequin import Sample, render

WORKFLOWS = Path(__file__).parents[2] / "workflows"
METHODS = ("FPDM", "OnePoseTrans", "TruePose")
STRIP = ("source", *METHODS, "truth")
# The mannequin world's labels for hair, face, both garments and shoes: what a method is held to.
# Guided without training, the small base does not know which way the head looks.
EVERYTHING, CLOTHES = (1, 2, 3, 4, 7), (3, 4, 7)
SPACING = 8  # px between two pictures of the strip


@pytest.fixture(scope="module")
def workflow() -> Workflow:
    return load_workflow(WORKFLOWS / "api" / "start_here_demo.json")


@pytest.fixture(scope="module")
def person(workflow: Workflow) -> dict[str, int]:
    """The seeds of the workflow's person."""
    return next(n["inputs"] for n in workflow.values() if n["_meta"]["title"] == "Person")


@pytest.fixture(scope="module")
def truth(person: dict[str, int]) -> Sample:
    return render(person["identity"], person["target_pose"])


@pytest.fixture(scope="module")
def strip(comfy: Any, workflow: Workflow, truth: Sample) -> dict[str, NDArray[np.uint8]]:
    """The pictures of the saved strip by their names."""
    (saved,) = comfy.run(workflow, timeout=900).images["Save side by side"]
    picture = np.asarray(Image.open(io.BytesIO(saved)).convert("RGB"))
    height, width = truth.image.shape[:2]
    assert picture.shape == (height, len(STRIP) * (width + SPACING) - SPACING, 3)
    return {
        name: picture[:, column * (width + SPACING) :][:, :width]
        for column, name in enumerate(STRIP)
    }


def test_source_and_truth_frame_what_was_drawn(
    strip: dict[str, NDArray[np.uint8]], person: dict[str, int], truth: Sample
) -> None:
    source = render(person["identity"], person["source_pose"])
    assert np.array_equal(strip["source"], source.image)
    assert np.array_equal(strip["truth"], truth.image)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_draws_the_target_s_pose(
    method: str, strip: dict[str, NDArray[np.uint8]], truth: Sample
) -> None:
    person = truth.parsing > 0
    overlap = silhouette_iou(strip[method], truth.image, person)
    assert overlap > 0.75
    assert overlap > silhouette_iou(strip["source"], truth.image, person) + 0.1


@pytest.mark.parametrize(
    ("method", "regions"),
    [("FPDM", EVERYTHING), ("OnePoseTrans", EVERYTHING), ("TruePose", CLOTHES)],
)
def test_a_method_draws_the_source_s_person(
    method: str,
    regions: tuple[int, ...],
    strip: dict[str, NDArray[np.uint8]],
    person: dict[str, int],
    truth: Sample,
) -> None:
    """Of many people in that pose it is the source's whose colours the picture has."""
    found = region_colours(strip[method], truth.parsing, regions)

    def unlike(other: Sample) -> float:
        wanted = region_colours(other.image, other.parsing, regions)
        return float(np.nanmean(np.abs(found - wanted)))

    strangers = [render(seed, person["target_pose"]) for seed in range(100, 130)]
    assert unlike(truth) < min(map(unlike, strangers))


def test_the_methods_draw_different_pictures(strip: dict[str, NDArray[np.uint8]]) -> None:
    drawn = [strip[method].astype(int) for method in METHODS]
    for one, other in zip(drawn, [*drawn[1:], drawn[0]], strict=True):
        assert np.abs(one - other).mean() > 1


def test_every_method_is_compared_with_the_truth_under_a_slider(workflow: Workflow) -> None:
    ui = json.loads((WORKFLOWS / "start_here_demo.json").read_text(encoding="utf-8"))
    assert len(ui["groups"]) >= len(METHODS) + 2
    compared = [n for n in workflow.values() if n["class_type"] == "PoseTransferCompare"]
    assert [node["_meta"]["title"] for node in compared] == [f"{m}'s result" for m in METHODS]
    assert all("truth" in node["inputs"] for node in compared)
