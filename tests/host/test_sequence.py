# SPDX-License-Identifier: GPL-3.0-or-later
"""Films: the workflow's person stays who they are and follows the poses; nothing is made twice."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from pose_transfer.client import load_workflow
from pose_transfer.evaluation.films import REGIONS, wavering
from pose_transfer.evaluation.metrics import silhouette_iou
from pose_transfer.evaluation.person_measures import silhouette_scores
from pose_transfer.mannequin.motion import render_motion

WORKFLOW = Path(__file__).parents[2] / "workflows" / "api" / "fpdm_sequence.json"
CLOSE = 1e-4


def test_films_in_chunks_stopped_and_gone_on_with(
    run_in_host: Callable[..., dict[str, Any]], untrained_demo: tuple[Path, Path]
) -> None:
    base, fpdm = untrained_demo
    report = run_in_host("in_host_sequence.py", base_path=str(base), fpdm_path=str(fpdm))
    steps, frames, passes = 2, 5, 3

    assert report["shape"] == [frames, 64, 48, 3]
    assert report["as single pictures"] < CLOSE
    assert report["frames differ"] > 100 * CLOSE
    assert report["two at once"] < CLOSE
    assert report["all at once"] < CLOSE
    assert report["batches of two"] == [2 * passes] * 2 * steps + [passes] * steps
    assert report["batches of all"] == [frames * passes] * steps
    assert report["looks at the source"] == 3, "once for each of the three films"

    assert report["own noise by number"] < CLOSE
    assert report["same pose, same noise"] < CLOSE
    assert report["calls for a still"] == steps
    assert report["same pose, own noise"] > 10 * CLOSE

    assert report["calls until it stopped"] == 2 * steps + 1
    assert report["calls for the rest"] == 3 * steps
    assert report["gone on with"] < CLOSE
    assert report["calls for nothing new"] == 0
    assert report["calls for known poses in another order"] == 0
    assert report["calls for one more frame"] == steps
    for change in ("source", "weight", "range"):
        assert report[f"calls after another {change}"] == steps, change
    assert report["calls after another sigmas"] == steps - 1

    assert report["halved"] < CLOSE
    assert report["halved batches"] == [5] + [2] * 2 * steps + [1] * steps
    assert report["one frame does not fit"] == "out of memory"
    assert report["batches that fit"] == [2] * 2 * steps + [1] * steps

    assert "frame 1 of the 3 frames" in report["empty frame"]
    assert "batch of 2 pictures" in report["two sources"]
    assert "no step" in report["no steps"]
    assert "fusion_start is 0.5 and fusion_end is 0.5" in report["range"]
    assert "2 different canvas sizes" in report["sizes"]
    assert report["skipped"][:2] == [2, 3]
    assert report["skipped"][2] < CLOSE
    assert report["size"] == [1, 40, 32, 3]


def film_of(data: bytes) -> np.ndarray:
    """(N, H, W, 3) uint8 of an animated WebP."""
    frames = ImageSequence.Iterator(Image.open(io.BytesIO(data)))
    return np.stack([np.asarray(frame.convert("RGB")) for frame in frames])


STEADY = 10.0
"""Deviation of a region's mean colour over the frames, 0..255, below which it is one colour."""


def test_the_person_follows_the_poses_and_stays_the_same(comfy: Any) -> None:
    workflow = load_workflow(WORKFLOW)
    (motion,) = (node["inputs"] for node in workflow.values() if node["_meta"]["title"] == "Motion")
    result = comfy.run(WORKFLOW, timeout=300)
    film = film_of(result.images["Save film"][0])
    given = motion["start_pose"], motion["end_pose"], motion["frames"]
    truth = render_motion(motion["identity"], *given)
    assert film.shape == (motion["frames"], 256, 192, 3)
    assert film_of(result.images["Save poses"][0]).shape == film.shape

    # Each frame shows its own pose; a still picture could not.
    parsings, regions = [sample.parsing for sample in truth], tuple(REGIONS.values())
    overlaps = silhouette_scores(film, [sample.image for sample in truth], parsings)["iou"]
    assert (overlaps > 0.8).all(), overlaps
    assert silhouette_iou(film[0], truth[-1].image, truth[-1].parsing > 0) < 0.7

    # Hair, garments and shoes keep their colours. (Measured: at most 6 levels, of which the light
    # on a turning figure makes up to 5.) Different people in the same poses waver far more.
    found = wavering(film, parsings, regions)
    assert (found < STEADY).all(), found
    strangers = [render_motion(100 + n, *given)[n] for n in range(motion["frames"])]
    mixed = wavering([s.image for s in strangers], [s.parsing for s in strangers], regions)
    assert (mixed > 2 * STEADY).all(), mixed


def drawn(comfy: Any, start: int, end: int, smooth: bool) -> list[np.ndarray]:
    """The drawn poses of a short motion, with or without smoothing between."""
    graph: dict[str, Any] = {
        "motion": {
            "class_type": "PoseTransferDemoMotion",
            "inputs": {
                "identity": 3,
                "start_pose": start,
                "end_pose": end,
                "frames": 6,
                "loop": False,
            },
        },
        "smooth": {
            "class_type": "PoseTransferSmoothPose",
            "inputs": {
                "pose": ["motion", 0],
                "frame_rate": 25.0,
                "min_cutoff": 0.5,
                "speed_response": 0.0,
                "centred": True,
            },
        },
        "draw": {
            "class_type": "PoseTransferDrawPose",
            "inputs": {
                "pose": ["smooth" if smooth else "motion", 0],
                "width": 0,
                "height": 0,
                "style": "fpdm",
            },
        },
        "save": {
            "class_type": "SaveImage",
            "inputs": {"images": ["draw", 0], "filename_prefix": "smoothed"},
            "_meta": {"title": "Save"},
        },
    }
    if not smooth:
        del graph["smooth"]
    result = comfy.run(graph, timeout=120)
    return [np.asarray(Image.open(io.BytesIO(data))) for data in result.images["Save"]]


def test_smoothing_leaves_who_stands_still_and_calms_who_moves(comfy: Any) -> None:
    still = drawn(comfy, 9, 9, smooth=True)
    given = drawn(comfy, 9, 9, smooth=False)
    assert len(still) == 6
    assert all(np.array_equal(a, b) for a, b in zip(still, given, strict=True))

    def changes(frames: list[np.ndarray]) -> float:
        pairs = zip(frames[1:], frames[:-1], strict=True)
        return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]))

    assert changes(drawn(comfy, 29, 9, smooth=True)) < 0.7 * changes(drawn(comfy, 29, 9, False))
