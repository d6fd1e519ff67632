# SPDX-License-Identifier: GPL-3.0-or-later
"""The FPDM Guider's inputs in a workflow: old ones go on, new ones arrive, wrong ones are named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pose_transfer.client import WorkflowError, load_workflow

DEMO = Path(__file__).parents[2] / "workflows" / "api" / "fpdm_demo.json"
OLD = {"model", "positive", "negative", "source_weight", "fusion_weight"}


def picture(comfy: Any, without_new: bool = False, **inputs: Any) -> np.ndarray:
    """The demo's result after two steps, with other inputs of the guider."""
    workflow = load_workflow(DEMO)
    nodes = {node["_meta"]["title"]: node["inputs"] for node in workflow.values()}
    nodes["Steps"]["steps"] = 2
    guider = nodes["FPDM guider"]
    guider.update(inputs)
    for name in set(guider) - OLD if without_new else ():
        del guider[name]
    result = comfy.run(workflow, timeout=300)
    return np.asarray(Image.open(io.BytesIO(result.images["Save result"][0])))


def test_a_workflow_from_before_the_advanced_inputs_gives_the_same_picture(comfy: Any) -> None:
    now = picture(comfy, fusion_weight=2.5)
    assert np.array_equal(picture(comfy, without_new=True, fusion_weight=2.5), now)
    own = picture(comfy, fusion_weight=2.5, separate_pose=True, pose_weight=5.0)
    assert not np.array_equal(own, now)


def test_a_range_that_ends_before_it_starts_is_named(comfy: Any) -> None:
    with pytest.raises(WorkflowError, match=r"pose_start is 0\.6 and pose_end is 0\.4"):
        picture(comfy, separate_pose=True, pose_start=0.6, pose_end=0.4)
