# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark end to end on a random small model: what is measured and what is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import pose_transfer.evaluation.protocol as protocol
from pose_transfer.errors import MissingDependencyError
from pose_transfer.evaluation.judge import PatternJudge
from pose_transfer.evaluation.models import DemoModels, save_variant
from pose_transfer.evaluation.report import markdown, write_report
from pose_transfer.evaluation.results import BenchmarkResult
from pose_transfer.evaluation.sampling import SamplingSettings
from pose_transfer.evaluation.scores import describe_pairs, score_pictures
from pose_transfer.fpdm import FPDM
from pose_transfer.mannequin import LABELS, PATTERNS, pairs

SHORT = SamplingSettings(steps=2)
_RESULT: list[BenchmarkResult] = []


def small_models(fpdm: FPDM, judge: bool = True) -> DemoModels:
    """A random FPDM and an "autoencoder" that keeps the mean colour of every 8 x 8 pixels."""

    def encode(image: torch.Tensor) -> torch.Tensor:
        cells = F.avg_pool2d(image.permute(0, 3, 1, 2), 8)
        return torch.cat([cells, cells[:, :1]], dim=1)

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return F.interpolate(latents[:, :3], scale_factor=8).clamp(0, 1).permute(0, 2, 3, 1)

    torch.manual_seed(0)
    net = PatternJudge(PATTERNS, LABELS.index("upper"), LABELS.index("lower")).eval()
    return DemoModels(fpdm, encode, decode, net if judge else None, {"some.safetensors": "abc"})


@pytest.fixture(autouse=True)
def few_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "TRAINING_IMAGES", 4)


@pytest.fixture
def result(make_fpdm: Callable[..., FPDM], tmp_path: Path) -> BenchmarkResult:
    """Three pairs; B5 at hand, B3 and B4 missing. Made once: tests only read it."""
    if _RESULT:
        return _RESULT[0]
    shipped, other = make_fpdm(), make_fpdm()
    assert other.combiner is not None
    torch.nn.init.normal_(other.combiner.output_layer.weight)
    save_variant(other, shipped, tmp_path / "B5.safetensors")
    models = small_models(shipped)
    _RESULT.append(
        protocol.benchmark(
            3, variants=tmp_path, gallery=8, batch_size=2, settings=SHORT, models=models, films=1
        )
    )
    return _RESULT[0]


def test_every_measure_of_every_method(result: BenchmarkResult) -> None:
    names = [method.name for method in result.methods]
    assert names == ["copy", "mean", "stranger", "autoencoder", "truth", "B5", "B6"]
    assert [variant.name for variant in result.missing] == ["B3", "B4"]
    for method in result.methods:
        assert method.pictures.shape == (3, 256, 192, 3) and method.pictures.dtype == np.uint8
        assert all(values.shape == (3,) for values in method.scores.values())
    truth, copy, shipped = (result.method(name) for name in ("truth", "copy", "B6"))
    assert truth is not None and copy is not None and shipped is not None
    for name in ("ssim", "iou", "pattern", "colour_right"):
        np.testing.assert_allclose(truth.scores[name], 1, atol=1e-4)
        assert copy.scores[name].mean() < 0.95, name
    assert (truth.scores["colour"] == 0).all()
    assert set(result.retrieval) == {"A1", "A2", "A3"}


def test_ablation_compares_what_was_trained_for_as_long(result: BenchmarkResult) -> None:
    shipped = result.method("B6")
    assert shipped is not None and "| B6 - B5 |" in markdown(result)
    longer = replace(shipped, name="B6+")
    text = markdown(replace(result, methods=(*result.methods, longer)))
    assert "| B6+ - B5 |" in text and "| B6 - B5 |" not in text
    for said in ("began with the shipped weights", "A2's tower began with A3's"):
        assert said in text and said not in markdown(result)


def test_reference_pictures_are_what_they_claim(result: BenchmarkResult) -> None:
    copy, mean = result.method("copy"), result.method("mean")
    assert copy is not None and mean is not None
    for pair, picture in zip(result.data.pairs, copy.pictures, strict=True):
        assert np.array_equal(picture, pair.source.image)
    assert (mean.pictures == mean.pictures[0]).all()


def test_run_is_repeatable_and_the_batch_size_does_not_matter(
    make_fpdm: Callable[..., FPDM],
) -> None:
    models = small_models(make_fpdm(), judge=False)
    first, second = (
        protocol.benchmark(2, gallery=0, batch_size=size, settings=SHORT, models=models)
        for size in (2, 1)
    )
    a, b = first.method("B6"), second.method("B6")
    assert a is not None and b is not None
    assert np.abs(a.pictures.astype(int) - b.pictures).max() <= 1
    assert "## Films" not in markdown(first) and "--films 0" in markdown(first)
    again = protocol.benchmark(2, gallery=0, batch_size=2, settings=SHORT, models=models)
    assert markdown(again) == markdown(first)


def test_latents_are_kept_until_something_that_decides_them_changes(
    make_fpdm: Callable[..., FPDM], tmp_path: Path
) -> None:
    models = small_models(make_fpdm(), judge=False)
    folder = tmp_path / "latents"

    def run(models: DemoModels, seed: int = 0) -> np.ndarray:
        given = {"gallery": 0, "batch_size": 2, "settings": SHORT, "seed": seed}
        shipped = protocol.benchmark(2, models=models, latents=folder, **given).method("B6")
        assert shipped is not None
        return shipped.pictures

    first = run(models)
    (file,) = folder.iterdir()
    save_file({"latents": torch.zeros_like(load_file(file)["latents"])}, file)
    assert not run(models).any(), "what was kept is taken"
    negative = replace(models, decode=lambda latents: 1 - models.decode(latents))
    assert (run(negative) == 255).all() and len(list(folder.iterdir())) == 1
    run(models, seed=1)
    assert len(list(folder.iterdir())) == 2
    with torch.no_grad():
        models.fpdm.get_parameter("combiner.output_layer.bias").add_(1.0)
    assert not np.array_equal(run(models), first) and len(list(folder.iterdir())) == 3


def test_report_files(result: BenchmarkResult, tmp_path: Path) -> None:
    write_report(result, tmp_path)
    text = (tmp_path / "benchmark.md").read_text()
    assert "python -m pose_transfer.evaluation demo --pairs 3 --seed 0 --out docs/" in text
    assert "--variants DIR" in text and str(tmp_path) not in text
    for word in ("**B3**: FPDM without fusion | not measured", "Not measured: B3, B4",
                 "B6 - B5", "target views", "**A2**", "Right pattern class"):  # fmt: skip
        assert word in text, word
    pictures = ("pairs.jpg", "methods.png", "views.png", "films.jpg")
    for name in (f"benchmark_{ending}" for ending in pictures):
        assert f"images/{name}" in text
        with Image.open(tmp_path / "images" / name) as image:
            assert np.asarray(image.convert("L")).std() > 5, f"{name} is blank"
    data = json.loads((tmp_path / "benchmark.json").read_text())
    assert data["methods"]["truth"]["psnr"]["mean"] is None, "JSON has no infinity"
    assert data["methods"]["B6"]["ssim"]["count"] == 3
    assert sum(data["views"].values()) == 3
    assert len(data["films"]["films"]) == 1 and text.count("## Films\n") == 1
    assert "--films 1" in text


def test_report_says_when_the_judge_is_missing(make_fpdm: Callable[..., FPDM]) -> None:
    models = small_models(make_fpdm(), judge=False)
    text = markdown(protocol.benchmark(1, gallery=0, settings=SHORT, models=models))
    assert "judge's weights were not at hand" in text
    assert "right pattern class, %: not measured" in text


def test_report_without_matplotlib_names_the_extra(
    result: BenchmarkResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"\.\[evaluation\]"):
        write_report(result, tmp_path)


def test_no_pairs_is_an_error(make_fpdm: Callable[..., FPDM]) -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        protocol.benchmark(0, models=small_models(make_fpdm()))


def test_another_person_has_the_wrong_colours_and_patterns() -> None:
    data = describe_pairs(tuple(pairs("validation", 4)))
    truths = data.truths
    other = score_pictures(np.roll(truths, 1, axis=0), data, None, "others")
    same = score_pictures(np.roll(truths, 1, axis=1), data, None, "one pixel down")
    assert not other["colour_right"].any() and same["colour_right"].all()
    assert other["pattern"].max() < 0.6 < 0.9 < same["pattern"].min()


def test_function_is_found_on_the_package() -> None:
    import pose_transfer.evaluation

    assert pose_transfer.evaluation.benchmark is protocol.benchmark
