# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence for TruePose: which pairs, what each variant goes without, what is made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from pose_transfer.demo.models import load_base, load_fpdm
from pose_transfer.evaluation import truepose
from pose_transfer.evaluation.cli import main
from pose_transfer.evaluation.truepose_report import MEASURES, verdicts, write_report
from pose_transfer.mannequin import Pair, sample_identity, sample_pose
from pose_transfer.training.truepose_pair import new_pair, write_truepose
from pose_transfer.truepose import REGIONS
from pose_transfer.truepose.siamese import SiamesePair

STEPS = truepose.Settings(steps=2)


@pytest.fixture(scope="module")
def pairs() -> tuple[Pair, ...]:
    return truepose.hard_pairs(2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> truepose.Models:
    """The shipped models, and a pair upon them that was not trained."""
    torch.manual_seed(0)
    base, fpdm = load_base(), load_fpdm()
    path = write_truepose(tmp_path_factory.mktemp("pair"), new_pair(base, fpdm), base, fpdm)
    return truepose.load_models("cpu", path)


def test_the_pairs_are_hard_and_held_out(pairs: tuple[Pair, ...]) -> None:
    for pair in pairs:
        assert pair.identity_seed % 10 == pair.target_pose_seed % 10 == 9
        assert sample_identity(pair.identity_seed).upper.pattern in truepose.HARD_PATTERNS
        yaws = [sample_pose(s).yaw for s in (pair.source_pose_seed, pair.target_pose_seed)]
        assert np.cos(yaws[0] - yaws[1]) <= np.cos(np.radians(truepose.TURN)) + 1e-9
    assert truepose.hard_pairs(2)[0].identity_seed == pairs[0].identity_seed


@pytest.mark.parametrize(
    ("name", "looks", "parsing", "context"),
    [
        ("pose", 0, None, None),
        ("pose_free", 1, True, True),
        ("caption", 0, None, None),
        ("caption_free", 1, True, True),
        ("no_hpfa", 1, False, True),
        ("no_caa", 1, True, False),
        ("full", 1, True, True),
    ],
)
def test_a_variant_does_without_what_it_is_not_about(
    models: truepose.Models, pairs: tuple[Pair, ...], monkeypatch: pytest.MonkeyPatch,
    name: str, looks: int, parsing: bool | None, context: bool | None,
) -> None:  # fmt: skip
    looked: list[bool] = []
    guided: list[Any] = []
    look, predict = SiamesePair.look, SiamesePair.predict

    def watched_look(self: Any, latents: Any, told: Any, *rest: Any) -> Any:
        looked.append(bool(told.any()))
        return look(self, latents, told, *rest)

    def watched_predict(self: Any, latents: Any, t: Any, told: Any, *rest: Any, **more: Any) -> Any:
        guided.append((bool(told.any()), rest[1]))
        return predict(self, latents, t, told, *rest, **more)

    monkeypatch.setattr(SiamesePair, "look", watched_look)
    monkeypatch.setattr(SiamesePair, "predict", watched_predict)
    batch = truepose.Batch.of(pairs[:1], "cpu")
    latents, mass = truepose.sample(models, name, batch, [3], STEPS)
    assert torch.isfinite(latents).all()
    assert looked == [context] * looks
    assert [told for told, _ in guided] == [context] * 2 * looks
    for _, regions in guided:
        assert bool(regions.beta.all()) == parsing
        assert (regions.weights["background"] == 0.0) == parsing
    if looks:
        assert mass is not None and mass.shape == (1,) and 0 < float(mass) < 1
    else:
        assert mass is None


def test_what_falls_on_garments_is_counted(
    models: truepose.Models, pairs: tuple[Pair, ...]
) -> None:
    """A source that is nothing but background pays the garments nothing, guided or not."""
    batch = truepose.Batch.of(pairs[:1], "cpu")
    maps = torch.zeros_like(batch.source_regions)
    maps[:, REGIONS.index("background")] = 1.0
    _, mass = truepose.sample(models, "no_hpfa", replace(batch, source_regions=maps), [3], STEPS)
    assert mass is not None and float(mass) == 0.0
    maps = torch.zeros_like(maps)
    maps[:, REGIONS.index("upper")] = 1.0
    _, mass = truepose.sample(models, "no_hpfa", replace(batch, source_regions=maps), [3], STEPS)
    assert mass is not None and float(mass) > 0.2


def test_pictures_do_not_depend_on_the_batch(
    models: truepose.Models, pairs: tuple[Pair, ...]
) -> None:
    both, shares = truepose.sample(models, "full", truepose.Batch.of(pairs, "cpu"), [3, 4], STEPS)
    alone, share = truepose.sample(models, "full", truepose.Batch.of(pairs[1:], "cpu"), [4], STEPS)
    assert shares is not None and share is not None
    assert torch.allclose(both[1], alone[0], atol=1e-3)
    assert float(shares[1]) == pytest.approx(float(share[0]), abs=1e-4)


def scores(**changed: list[float]) -> dict[str, np.ndarray]:
    rows = {key: [0.5, 0.5, 0.5] for key in MEASURES} | changed
    return {key: np.array(row, np.float64) for key, row in rows.items()}


def test_the_report_says_what_the_intervals_say(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    three = (*pairs, pairs[0])
    nan = [float("nan")] * 3
    measured = {
        "caption": scores(garment_mass=nan, pattern=[0.1, 0.2, 0.3]),
        "caption_free": scores(pattern=[0.2, 0.1, 0.3]),
        "pose": scores(garment_mass=nan, pattern=[0.0, 0.1, 0.2]),
        "pose_free": scores(pattern=[0.4, 0.5, 0.6]),
        "fpdm": scores(garment_mass=nan),
        "no_hpfa": scores(pattern=[0.3, 0.4, 0.5], garment_mass=[0.2, 0.2, 0.2]),
        "no_caa": scores(pattern=[0.6, 0.7, 0.8]),
        "full": scores(pattern=[0.4, 0.6, 0.8], garment_mass=[0.5, 0.4, 0.3]),
    }
    pictures = {name: np.stack([p.target.image for p in three]) for name in measured}
    result = truepose.TruePoseResult(three, pictures, measured, truepose.Settings())
    assert result.difference("full", "no_hpfa", "pattern").mean == pytest.approx(0.2)
    said = verdicts(result)
    assert said[0].startswith("Training-free TruePose improves pattern similarity: +0.400")
    assert said[1].startswith("Training-free TruePose beside a caption does not clearly change")
    assert said[2].startswith("HPFA improves pattern similarity: +0.200")
    assert said[3].startswith("CAA does not clearly change")
    assert said[4].startswith("HPFA improves the attention on garments: +0.200")
    path = write_report(result, tmp_path, "the command")
    rows = {
        line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:]
        for line in path.read_text().splitlines()
        if line.startswith("| ")
    }
    column = list(MEASURES).index("pattern")
    assert rows["TruePose"][column].startswith("0.600 [")
    assert rows["FPDM demo"][-1].startswith("-")
    against = rows["TruePose, against TruePose without HPFA"]
    assert against[column].startswith("**+0.200") and against[column].endswith("better**")
    assert rows["TruePose, against FPDM demo"][-1].startswith("-")
    told = json.loads((tmp_path / "truepose.json").read_text())
    assert told["scores"]["caption"]["garment_mass"] == [None] * 3
    assert (tmp_path / "images" / "truepose.jpg").stat().st_size > 1000


def test_without_a_pair_the_rest_is_measured(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    code = main(
        ["truepose", "--pairs", "1", "--steps", "1", "--out", str(tmp_path),
         "--weights", str(tmp_path / "nowhere")]
    )  # fmt: skip
    assert code == 0
    text = (tmp_path / "truepose.md").read_text()
    assert "holds no trained pair" in text and "TruePose without HPFA" not in text
    assert "python -m pose_transfer.evaluation truepose --pairs 1" in text


def test_processors_leave_a_plain_unet_what_it_is(models: truepose.Models) -> None:
    base = load_base()
    stock = UNet2DConditionModel(**base.unet_config).eval()
    stock.load_state_dict(base.unet)
    x, words = torch.randn(1, 8, 8, 6), torch.randn(1, 7, 128)
    SiamesePair(models.base)
    with torch.no_grad():
        a, b = (unet(x, 500, words, return_dict=False)[0] for unet in (models.base, stock))
    assert torch.allclose(a, b, atol=1e-4)
