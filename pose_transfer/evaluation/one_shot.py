# SPDX-License-Identifier: GPL-3.0-or-later
"""Does OnePoseTrans help? Its demo workflow with and without tuning and visual consistency module.

The pictures are made by a ComfyUI, over its API, as an artist would make them: held-out people
whose upper garment has a pattern that no demo model was trained on, each drawn four times in a new
pose from the same noise. What is measured is the figure before it is put onto the old background.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..client import ComfyClient, load_workflow
from ..client.workflow import Workflow, title_of, with_overrides
from ..detectors.demo import load_demo_face_encoder
from ..mannequin import HELD_OUT_PATTERNS, Pair, pairs, render
from .person_measures import face_scores
from .scores import describe_pairs, score_pictures
from .statistics import Estimate, bootstrap, paired_difference
from .tables import Measures, differences_table, means_table

TITLES = {
    "caption": "the base, with the caption only",
    "vcm": "with the visual consistency module",
    "lora": "with the one-shot LoRA",
    "both": "with both",
    "beside": "with both, the LoRA learnt beside the module",
}
USUAL = ("caption", "vcm", "lora", "both")
"""Of these; `beside` tunes once more for each person, so that it is drawn only if asked for."""
DIFFERENCES = (
    ("vcm", "caption"), ("lora", "caption"), ("both", "lora"), ("both", "vcm"), ("beside", "lora"),
    ("beside", "both"),
)  # fmt: skip
MEASURES: Measures = {
    "colour": ("colour error, 0..255", -1),
    "pattern": ("pattern similarity", 1),
    "pattern_upper": ("pattern similarity, upper garment", 1),
    "face": ("face similarity", 1),
    "iou": ("silhouette IoU", 1),
}
PICTURE = "Drawn"
"""The title under which a variant saves its figure."""
_TIMEOUT = 1800.0  # seconds for one picture, tuning included

Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class OneShotResult:
    """Scores of each variant, (N,) each, the pictures (N, H, W, 3), and whom they show."""

    persons: tuple[Pair, ...]
    pictures: Mapping[str, NDArray[np.uint8]]
    scores: Mapping[str, Scores]

    def estimate(self, variant: str, measure: str) -> Estimate:
        return bootstrap(self.scores[variant][measure])

    def difference(self, first: str, second: str, measure: str) -> Estimate:
        return paired_difference(self.scores[first][measure], self.scores[second][measure])


def held_out_persons(count: int, seed: int = 0) -> tuple[Pair, ...]:
    """Test people in two poses, with a pattern that no model has seen, in turn."""
    out = []
    for number, pair in enumerate(pairs("test", count, seed)):
        pattern = HELD_OUT_PATTERNS[number % len(HELD_OUT_PATTERNS)]
        source, target = (
            render(pair.identity_seed, pose, upper_pattern=pattern)
            for pose in (pair.source_pose_seed, pair.target_pose_seed)
        )
        out.append(replace(pair, source=source, target=target))
    return tuple(out)


def variant(workflow: Workflow, name: str, person: Pair, pattern: str) -> Workflow:
    """The workflow `oneposetrans_demo` for one person, less what the variant goes without.

    It ends at the drawn figure. In the workflow the LoRA is tuned on the bare base; `beside` tunes
    it on the base with the module applied, on the photo as the module sees it, so that it learns
    what the module does not bring. Raises ValueError where the workflow is another one.
    """
    changes = {
        "Person": {
            "identity": person.identity_seed,
            "source_pose": person.source_pose_seed,
            "target_pose": person.target_pose_seed,
            "upper_pattern": pattern,
        }
    }
    if name in ("caption", "lora"):
        changes["Apply VCM"] = {"image_scale": 0.0}
    changed = with_overrides(workflow, changes)
    node = {title_of(changed, node_id): node_id for node_id in changed}
    apply_vcm = changed[node["Apply VCM"]]["inputs"]
    if name in ("caption", "lora"):
        del apply_vcm["face_embedding"]
    if name in ("caption", "vcm"):
        apply_vcm["model"] = [node["Demo models"], 0]
    if name == "beside":
        module = node["Apply VCM"]
        apply_vcm["model"] = [node["Demo models"], 0]
        posed = changed[node["Pose of the photo"]]["inputs"]
        posed["positive"], posed["negative"] = [module, 1], [module, 2]
        for title in ("Tune LoRA", "Apply LoRA"):
            changed[node[title]]["inputs"]["model"] = [module, 0]
        for title in ("Sample", "Refine"):
            changed[node[title]]["inputs"]["model"] = [node["Apply LoRA"], 0]
    ends = {"SaveImage", "PreviewAny", "LossGraphNode", "PoseTransferCompare"}
    kept = {i: entry for i, entry in changed.items() if entry["class_type"] not in ends}
    kept["drawn"] = {
        "class_type": "SaveImage",
        "inputs": {"images": [node["Decode"], 0], "filename_prefix": "one_shot"},
        "_meta": {"title": PICTURE},
    }
    return kept


async def draw(
    address: str, workflow: Workflow, persons: tuple[Pair, ...], names: Sequence[str] = USUAL
) -> dict[str, NDArray]:
    """Every person in every variant: name -> (N, H, W, 3) uint8, by the ComfyUI at `address`."""
    drawn: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in names}
    async with ComfyClient(address) as comfy:
        for number, person in enumerate(tqdm(persons, desc="persons")):
            pattern = HELD_OUT_PATTERNS[number % len(HELD_OUT_PATTERNS)]
            for name in names:
                one = variant(workflow, name, person, pattern)
                result = await comfy.run(one, timeout=_TIMEOUT)
                picture = Image.open(io.BytesIO(result.images[PICTURE][0])).convert("RGB")
                drawn[name].append(np.asarray(picture))
    return {name: np.stack(pictures) for name, pictures in drawn.items()}


def measure(persons: tuple[Pair, ...], pictures: Mapping[str, NDArray[np.uint8]]) -> OneShotResult:
    """Scores of drawn pictures against the persons' true targets."""
    data, encoder = describe_pairs(persons), load_demo_face_encoder()
    truths = [person.target.image for person in persons]
    scores = {
        name: {
            **score_pictures(drawn, data, None, name),
            **face_scores(drawn, truths, encoder),
        }
        for name, drawn in pictures.items()
    }
    return OneShotResult(persons, pictures, scores)


def evaluate(
    address: str, workflow: Path, count: int, seed: int, names: Sequence[str] = USUAL
) -> OneShotResult:
    """`count` held-out persons through the workflow (API form) on the ComfyUI at `address`."""
    persons = held_out_persons(count, seed)
    pictures = asyncio.run(draw(address, load_workflow(workflow), persons, names))
    return measure(persons, pictures)


def markdown(result: OneShotResult, command: str, picture: str) -> str:
    """The report: means, paired differences, and whether each part helps."""
    titles = {name: TITLES[name] for name in result.pictures}
    differences = [pair for pair in DIFFERENCES if {*pair} <= {*titles}]
    lines = [
        "# Does OnePoseTrans help?",
        "",
        f"Made by `{command}`; do not edit by hand.",
        "",
        f"{len(result.persons)} held-out persons of the mannequin world in a new pose, the upper "
        f"garment with a pattern that no model was trained on ({', '.join(HELD_OUT_PATTERNS)}). "
        "The shipped workflow `oneposetrans_demo` in ComfyUI, from the same noise each time; in "
        "brackets the 95 % confidence interval, percentile bootstrap over the persons.",
        "",
        f"![source; {'; '.join(TITLES[name] for name in result.pictures)}; truth]({picture})",
        "",
        *means_table(titles, MEASURES, result.estimate),
        "",
        "## Paired differences",
        "",
        "In bold where the interval leaves out zero.",
        "",
        *differences_table(titles, differences, MEASURES, result.difference),
    ]
    return "\n".join(lines) + "\n"


def sheet(result: OneShotResult, rows: int = 6) -> Image.Image:
    """The first persons: source, the variants, truth."""
    strips = [
        np.concatenate(
            [
                person.source.image,
                *(drawn[i] for drawn in result.pictures.values()),
                person.target.image,
            ],
            axis=1,
        )
        for i, person in enumerate(result.persons[:rows])
    ]
    return Image.fromarray(np.concatenate(strips))


def write_report(result: OneShotResult, out: Path, command: str) -> Path:
    """one_shot.md and .json, images/one_shot.jpg in the folder `out`; the first's path."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    sheet(result).save(out / "images" / "one_shot.jpg", quality=88)
    scores = {
        name: {key: [None if np.isnan(v) else float(v) for v in row[key]] for key in MEASURES}
        for name, row in result.scores.items()
    }
    seeds = [[p.identity_seed, p.source_pose_seed, p.target_pose_seed] for p in result.persons]
    told = {"command": command, "seeds": seeds, "scores": scores}
    (out / "one_shot.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    path = out / "one_shot.md"
    path.write_text(markdown(result, command, "images/one_shot.jpg"), encoding="utf-8")
    return path
