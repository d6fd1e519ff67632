# SPDX-License-Identifier: GPL-3.0-or-later
"""The pattern judge learns, sees through degradation, and survives its file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pose_transfer.errors import CheckpointError
from pose_transfer.evaluation.degrade import degrade, gaussian_blur
from pose_transfer.evaluation.judge import (
    Batch,
    PatternJudge,
    judge_accuracy,
    judge_patterns,
    load_judge,
    save_judge,
    train_judge,
)

UPPER, LOWER = 3, 4
CLASSES = ("plain", "stripes", "upright")
SETTINGS = {"patterns": CLASSES, "upper": UPPER, "lower": LOWER}


def batches(seed: int, size: int = 12) -> Iterator[Batch]:
    """Two garments of random colours, periods and patterns, 64 x 48 pixels."""
    dice = np.random.default_rng(seed)
    y, x = np.mgrid[0:64, 0:48]
    parsing = np.zeros((size, 64, 48), np.uint8)
    parsing[:, 4:32, 8:40], parsing[:, 32:60, 10:38] = UPPER, LOWER
    while True:
        classes = dice.integers(len(CLASSES), size=(size, 2))
        images = np.full((size, 64, 48, 3), 230, np.uint8)
        for row, column in itertools.product(range(size), range(2)):
            period, phase = dice.uniform(12, 16), dice.uniform(0, 16)
            place = {0: np.zeros_like(y), 1: y + phase, 2: x + phase}[int(classes[row, column])]
            first, second = dice.integers(0, 100, 3), dice.integers(140, 255, 3)
            dark = (place % period < period / 2)[..., None]
            region = parsing[row] == (UPPER, LOWER)[column]
            images[row][region] = np.where(dark, first, second)[region]
        yield images, parsing, classes[:, 0], classes[:, 1]


@pytest.fixture(scope="module")
def trained() -> PatternJudge:
    torch.set_num_threads(1)
    return train_judge(batches(0), "cpu", 60, **SETTINGS)


def test_judge_is_small() -> None:
    judge = PatternJudge(tuple("abcdef"), UPPER, LOWER)
    assert sum(p.numel() for p in judge.parameters()) <= 600_000


def test_judge_learns_and_names_held_out_patterns(trained: PatternJudge) -> None:
    accuracy = judge_accuracy(trained, itertools.islice(batches(99), 4))
    assert accuracy["upper"] > 0.9 and accuracy["lower"] > 0.9
    assert accuracy["both"] <= min(accuracy["upper"], accuracy["lower"]) + 1e-9


def test_judge_looks_under_the_mask_it_is_given(trained: PatternJudge) -> None:
    images, parsing, upper, lower = next(batches(5, 24))
    swapped = np.select([parsing == UPPER, parsing == LOWER], [LOWER, UPPER], 0)
    verdict = judge_patterns(trained, np.asarray(images), swapped)
    assert (verdict == np.stack([lower, upper], 1)).mean() > 0.85


def test_hidden_garment_gets_no_verdict(trained: PatternJudge) -> None:
    images, parsing, upper, lower = next(batches(6, 4))
    parsing = np.where(parsing == LOWER, 0, parsing)
    verdict = judge_patterns(trained, np.asarray(images), parsing)
    assert (verdict[:, 1] == -1).all() and (verdict[:, 0] >= 0).all()
    accuracy = judge_accuracy(trained, [(images, parsing, upper, lower)])
    assert accuracy["both"] == accuracy["upper"] and np.isnan(accuracy["lower"])


def test_training_is_repeatable() -> None:
    first, second = (train_judge(batches(1), "cpu", 3, **SETTINGS) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_too_few_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="ended after 2"):
        train_judge(itertools.islice(batches(0), 2), "cpu", 5, **SETTINGS)


def test_saved_judge_gives_the_same_verdicts(trained: PatternJudge, tmp_path: Path) -> None:
    save_judge(trained, tmp_path / "judge.safetensors")
    again = load_judge(tmp_path / "judge.safetensors")
    assert (again.patterns, again.upper, again.lower) == (CLASSES, UPPER, LOWER)
    images, parsing, _, _ = next(batches(7, 24))
    images, parsing = np.asarray(images), np.asarray(parsing)
    same = judge_patterns(again, images, parsing) == judge_patterns(trained, images, parsing)
    assert same.mean() > 0.95  # half precision


def test_foreign_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors"):
        load_judge(tmp_path / "nothing.safetensors")
    save_file({"x": torch.zeros(1)}, str(tmp_path / "other.safetensors"), {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"expected 'pose_transfer\.judge'"):
        load_judge(tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        load_judge(tmp_path / "cut.safetensors")


def test_degrading_changes_pictures_but_not_their_meaning() -> None:
    images, parsing, _, _ = next(batches(8, 16))
    image = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
    labels = torch.as_tensor(parsing)
    first = degrade(image, labels, torch.Generator().manual_seed(3))
    again = degrade(image, labels, torch.Generator().manual_seed(3))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert first[0].shape == image.shape and first[0].min() >= 0 and first[0].max() <= 1
    assert (first[0] - image).abs().mean() > 0.01
    # The parsing moves by a few pixels only: the garment's middle stays the garment.
    centre = first[1][:, 10:26, 14:34]
    assert (centre == UPPER).all()


def test_blur_keeps_the_mean_and_spreads_by_sigma() -> None:
    spot = torch.zeros(2, 3, 41, 41)
    spot[:, :, 20, 20] = 1.0
    blurred = gaussian_blur(spot, torch.tensor([1.0, 2.0]))
    assert blurred.sum((1, 2, 3)) == pytest.approx(torch.tensor([3.0, 3.0]), abs=1e-4)
    offsets = torch.arange(41) - 20.0
    variance = (blurred[:, 0].sum(1) * offsets**2).sum(1)
    assert variance.tolist() == pytest.approx([1.0, 4.0], rel=0.05)
