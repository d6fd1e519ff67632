# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's section on the detectors: what it says, and that the rest of the report stays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pose_transfer.evaluation.detection import DetectionScores, group_scenes
from pose_transfer.evaluation.detectors import (
    HEADING,
    DetectorResult,
    measure_detectors,
    section,
    summary,
    update_report,
)
from pose_transfer.evaluation.verification import VerificationScores
from pose_transfer.mannequin import LABELS


def scores(level: float) -> DetectionScores:
    shares = [np.full(8, level)] * 4
    return DetectionScores(*shares, invented=np.zeros(8), iou=np.full(len(LABELS), level))


def result(level: float = 0.97, alike: int = 3) -> DetectorResult:
    faces = VerificationScores(
        same=np.array([0.9, 0.8, 0.3]), different=np.array([0.1, 0.2]),
        alike=np.array([0.6, 0.1, 0.1][:alike]), threshold=0.5, found=1.0, points_off=0.02,
    )  # fmt: skip
    return DetectorResult(scores(level), scores(0.5), faces, {"some.safetensors": "abc"})


def test_section_says_what_was_reached() -> None:
    text = section(result())
    assert text.startswith(HEADING) and "`some.safetensors` abc" in text
    assert text.count(": reached.") == 2 and "not reached" not in text
    assert "| keypoints near, torso | 0.970 [0.970, 0.970] | 0.500 [0.500, 0.500] |" in text
    assert section(result(0.8)).count("**not reached**") == 2


def test_faces_are_weighed_by_pair_kind() -> None:
    faces = result().faces
    assert faces.accuracy(faces.different) == pytest.approx((2 / 3 + 1) / 2)
    assert faces.accuracy(faces.alike) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert "accuracy\n  not measured" in section(result(alike=0))
    assert summary(result(alike=0))["faces"]["accuracy_alike"] is None  # type: ignore[index]


def test_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page, data = tmp_path / "benchmark.md", tmp_path / "benchmark.json"
    page.write_text(f"# Title\n\nfirst\n\n{HEADING}\n\nold words\n\n## Last\n\nend\n")
    data.write_text('{"pairs": 3}\n')
    update_report(result(), tmp_path)
    update_report(result(), tmp_path)
    text = page.read_text()
    assert text.startswith("# Title\n\nfirst\n\n## Last\n\nend\n") and "old words" not in text
    assert text.count(HEADING) == 1 and text.endswith(f"{section(result())}\n")
    facts = json.loads(data.read_text())
    assert facts["pairs"] == 3 and facts["detectors"]["alone"]["mean_iou"] == pytest.approx(0.97)


def test_section_is_written_where_there_is_no_report(tmp_path: Path) -> None:
    update_report(result(), tmp_path / "docs")
    assert (tmp_path / "docs" / "benchmark.md").read_text() == f"{section(result())}\n"


def test_group_scenes_hold_what_they_claim() -> None:
    for scene in group_scenes(3, "validation"):
        assert 2 <= len(scene.bodies) <= 4
        assert scene.picture.shape == (*scene.labels.shape, 3)
        for body in scene.bodies:
            x, y = body[body[:, 2] > 0, :2].mean(0).astype(int)
            assert scene.labels[y - 20 : y + 20, x - 12 : x + 12].any()


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 8"):
        measure_detectors(4)
