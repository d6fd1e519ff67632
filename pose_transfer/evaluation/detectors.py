# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's section on the demo's detectors: measured and written by itself, if need be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..demo.network_files import FACE_WEIGHTS, PERSON_WEIGHTS
from ..detectors.demo import load_demo_detector, load_demo_face_encoder, load_demo_parser
from ..mannequin import LABELS
from .detection import NEAR, DetectionScores, group_scenes, measure_detection, single_scenes
from .page import replace_section
from .statistics import bootstrap
from .verification import VerificationScores, measure_verification

HEADING = "## How well the demo's detectors see a mannequin"
WANTED_NEAR, WANTED_IOU = 0.95, 0.90
"""What the project set itself, for keypoints and for parsing, before the training."""


@dataclass(frozen=True, eq=False)
class DetectorResult:
    """One mannequin alone, several in one picture, and faces; checksums of the weights."""

    alone: DetectionScores
    group: DetectionScores
    faces: VerificationScores
    fingerprints: Mapping[str, str]


def measure_detectors(pictures: int) -> DetectorResult:
    """Measure the embedded detectors on the test split.

    `pictures` with one mannequin, a quarter as many with several, and two pictures of each of
    `pictures` faces. Raises ValueError for fewer than 8, CheckpointError without the weights.
    """
    if pictures < 8:
        raise ValueError(f"The detectors need at least 8 pictures, got {pictures}.")
    detector, parser = load_demo_detector(), load_demo_parser()
    return DetectorResult(
        measure_detection(single_scenes(pictures), detector, parser, "one mannequin"),
        measure_detection(group_scenes(pictures // 4), detector, parser, "several mannequins"),
        measure_verification(pictures, load_demo_face_encoder()),
        {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            for path in (PERSON_WEIGHTS, FACE_WEIGHTS)
        },
    )


def section(result: DetectorResult) -> str:
    """The report's text."""
    alone, group, faces = result.alone, result.group, result.faces
    files = ", ".join(f"`{name}` {digits}" for name, digits in result.fingerprints.items())
    rows = [
        ("keypoints near, torso", lambda s: _share(s.near_torso)),
        ("keypoints near, person", lambda s: _share(s.near_person)),
        ("presence right", lambda s: _share(s.presence)),
        ("people found", lambda s: _share(s.found)),
        ("people invented, each picture", lambda s: f"{s.invented.mean():.3f}"),
        ("mean IoU of the labels", lambda s: f"{s.mean_iou:.3f}"),
        *(
            (f"IoU of {label}", lambda s, k=number: f"{s.iou[k]:.3f}")
            for number, label in enumerate(LABELS)
        ),
    ]
    lines = [f"| {title} | {cell(alone)} | {cell(group)} |" for title, cell in rows]
    table = "\n".join(
        [
            f"|  | one mannequin ({len(alone.found)}) | two to four ({len(group.found)}) |",
            "| --- | --- | --- |",
            *lines,
        ]
    )
    verdicts = "\n".join(
        f"- {title}: {got:.3f}, wanted at least {wanted:.2f}: "
        f"{'reached' if got >= wanted else '**not reached**'}."
        for title, got, wanted in (
            ("keypoints near, torso, one mannequin", alone.near_torso.mean(), WANTED_NEAR),
            ("mean IoU, one mannequin", alone.mean_iou, WANTED_IOU),
        )
    )
    return f"""{HEADING}

Held-out identities and poses of the mannequin world (test split), through the whole path from
picture to people. Weights (sha256): {files}.

{table}

{verdicts}

A keypoint is near within {NEAR:g} of the torso's length (neck to the middle of the hips), or of the
larger side of the box around the person's keypoints; one that is not found is not near. Hidden
joints count, since the renderer knows them. In brackets: 95 % confidence interval over the
pictures. The IoU is over all pixels of all pictures. With several mannequins, each is drawn at half
to full size.

Faces, {len(faces.same)} identities in two poses each, both eyes to be seen, backgrounds painted
over; the threshold of the cosine, {faces.threshold:.3f}, was fixed on the validation split:

- same or different, {len(faces.same)} and {len(faces.different)} pairs: accuracy
  {faces.accuracy(faces.different):.4f}; mean cosine {faces.same.mean():.3f} and
  {faces.different.mean():.3f}.
- against look-alikes (equal skin, hair colour and hair style), {len(faces.alike)} pairs: accuracy
  {_accuracy_alike(faces)}.
- faces found: {faces.found:.3f}; eyes and nose off by {100 * faces.points_off:.1f} % of the head's
  height on average."""


def _share(values: np.ndarray) -> str:
    estimate = bootstrap(values)
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _accuracy_alike(faces: VerificationScores) -> str:
    if not len(faces.alike):
        return "not measured"
    return f"{faces.accuracy(faces.alike):.4f}; mean cosine {faces.alike.mean():.3f}"


def summary(result: DetectorResult) -> dict[str, object]:
    """The same for programs."""

    def people(scores: DetectionScores) -> dict[str, object]:
        return {
            **{
                name: vars(bootstrap(getattr(scores, name)))
                for name in ("near_torso", "near_person", "presence", "found", "invented")
            },
            "iou": dict(zip(LABELS, scores.iou.tolist(), strict=True)),
            "mean_iou": scores.mean_iou,
        }

    faces = result.faces
    return {
        "weights_sha256": dict(result.fingerprints),
        "alone": people(result.alone),
        "group": people(result.group),
        "faces": {
            "identities": len(faces.same),
            "threshold": faces.threshold,
            "accuracy": faces.accuracy(faces.different),
            "alike_pairs": len(faces.alike),
            "accuracy_alike": faces.accuracy(faces.alike) if len(faces.alike) else None,
            "found": faces.found,
            "points_off": faces.points_off,
        },
    }


def update_report(result: DetectorResult, folder: Path) -> None:
    """Write the section into benchmark.md and benchmark.json of `folder`, and leave the rest."""
    replace_section(folder, HEADING, section(result), "detectors", summary(result))
