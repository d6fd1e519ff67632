# SPDX-License-Identifier: GPL-3.0-or-later
"""The workflows around poses and people, run as shipped, checked against what was rendered."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pose_transfer.client import ComfyServer, load_workflow
from pose_transfer.client.workflow import Workflow
from pose_transfer.mannequin import LABELS, Sample, render
from pose_transfer.parsing import palette_picture
from pose_transfer.pose import BODY_NAMES, draw, read_keypoints
from pose_transfer.types import Parsing, Pose

WORKFLOWS = Path(__file__).parents[2] / "workflows" / "api"
Pictures = dict[str, NDArray[np.uint8]]


def person(workflow: Workflow, node: str) -> Sample:
    """The source person of a Demo Person node."""
    inputs = workflow[node]["inputs"]
    return render(inputs["identity"], inputs["source_pose"])


def run(comfy: Any, name: str) -> tuple[Workflow, Pictures]:
    workflow = load_workflow(WORKFLOWS / f"{name}.json")
    result = comfy.run(workflow, timeout=300)
    pictures = {
        title: np.asarray(Image.open(io.BytesIO(files[0])).convert("RGB"))
        for title, files in result.images.items()
    }
    return workflow, pictures


def saved_pose(server: ComfyServer, prefix: str) -> Pose:
    """The pose in the newest file of that name in the output folder."""
    files = sorted((server.base_directory / "output").glob(f"{prefix}_*.json"))
    (pose,) = read_keypoints(json.loads(files[-1].read_text()))
    return pose


def height_of(sample: Sample) -> float:
    rows = np.flatnonzero((sample.parsing > 0).any(axis=1))
    return float(rows[-1] - rows[0])


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def detected(comfy: Any) -> tuple[Workflow, Pictures]:
    return run(comfy, "pose_from_photo")


def test_the_detected_pose_is_the_rendered_one(
    detected: tuple[Workflow, Pictures], server: ComfyServer
) -> None:
    truth = person(detected[0], "1")
    (wanted,), (found,) = truth.pose.people, saved_pose(server, "pose_from_photo").people
    both = (wanted.body[:, 2] > 0) & (found.body[:, 2] > 0)
    assert both.sum() >= 0.9 * (wanted.body[:, 2] > 0).sum()
    distance = np.linalg.norm(wanted.body[both, :2] - found.body[both, :2], axis=1)
    assert (distance < 0.05 * height_of(truth)).mean() >= 0.9


def test_the_pose_map_shows_that_pose(
    detected: tuple[Workflow, Pictures], server: ComfyServer
) -> None:
    (found,) = detected[1]["Save pose map"][None]
    assert found.shape == (768, 576, 3)
    assert np.array_equal(found, draw(saved_pose(server, "pose_from_photo"), 768, 576, "openpose"))


def test_the_retargeted_pose_has_one_persons_limbs_and_the_others_directions(
    comfy: Any, server: ComfyServer
) -> None:
    workflow, pictures = run(comfy, "retarget_pose")
    somebody, other = person(workflow, "1"), person(workflow, "2")
    pose = saved_pose(server, "retarget_pose")

    limbs = [
        (BODY_NAMES.index(f"{side}_{upper}"), BODY_NAMES.index(f"{side}_{lower}"))
        for side in ("left", "right")
        for upper, lower in (
            ("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")
        )
    ]  # fmt: skip

    def bones(pose: Pose) -> dict[tuple[int, int], NDArray[np.float64]]:
        body = pose.people[0].body.astype(np.float64)
        vectors = {(a, b): body[b, :2] - body[a, :2] for a, b in limbs if body[[a, b], 2].all()}
        return {limb: bone for limb, bone in vectors.items() if np.linalg.norm(bone) > 12}

    own, theirs, new = (bones(p) for p in (somebody.pose, other.pose, pose))
    limbs = [limb for limb in limbs if limb in own and limb in theirs and limb in new]
    assert len(limbs) >= 5

    def unit(bone: NDArray[np.float64]) -> NDArray[np.float64]:
        return bone / np.linalg.norm(bone)

    turned = [np.degrees(np.arccos(np.clip(unit(theirs[k]) @ unit(new[k]), -1, 1))) for k in limbs]
    assert np.median(turned) < 8

    # Detected on both sides, so a few pixels of noise are in each length.
    def lengths(of: dict[tuple[int, int], NDArray[np.float64]]) -> NDArray[np.float64]:
        found = np.array([np.linalg.norm(of[k]) for k in limbs])
        return found / found.sum()

    assert np.abs(lengths(new) - lengths(own)).sum() < np.abs(lengths(new) - lengths(theirs)).sum()
    height, width = other.image.shape[:2]
    assert np.array_equal(pictures["Save pose map"], draw(pose, height, width, "fpdm"))
    # The overlay lies over the person's picture, darkened.
    dark = np.abs(pictures["Save overlay"] - 0.45 * somebody.image).max(axis=-1) < 2
    assert 0.5 < dark.mean() < 0.99


def test_the_parsing_and_what_is_made_of_it(comfy: Any) -> None:
    workflow, pictures = run(comfy, "person_parsing")
    truth = person(workflow, "1")
    colours = palette_picture(Parsing(truth.parsing[None], LABELS))[0]
    assert (pictures["Save parsing"] == colours).all(axis=-1).mean() > 0.95

    upper = truth.parsing == LABELS.index("upper")
    assert overlap(pictures["Save mask"][..., 0] > 127, upper) > 0.8

    composite, inside = pictures["Save composite"], truth.parsing > 0
    value = workflow["2"]["inputs"]["color"]
    background = np.array([value >> 16, value >> 8 & 255, value & 255])
    is_background = np.abs(composite.astype(int) - background).max(axis=-1) < 12
    assert overlap(~is_background, inside) > 0.9
    kept = np.abs(composite.astype(int) - truth.image).max(axis=-1) < 12
    assert kept[inside].mean() > 0.85

    # The face crop shows the face: its colour is the middle of the picture.
    face = truth.image[truth.parsing == LABELS.index("face")].mean(axis=0)
    middle = pictures["Save face"][96:160, 96:160].reshape(-1, 3).mean(axis=0)
    assert np.abs(middle - face).max() < 40
