# SPDX-License-Identifier: GPL-3.0-or-later
"""A training configuration is read whole, and what is wrong with it is said by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pose_transfer.training.user.config import ConfigError, read_config
from pose_transfer.training.user.fpdm import FPDMSettings
from pose_transfer.training.user.ipf import IPFSettings

DATA = {"layout": "folder", "pairs": "pairs.csv", "images": "pictures"}


def read(folder: Path, kind: type[Any] = FPDMSettings, **groups: Any) -> Any:
    content = {
        "data": DATA, "training": {"output": "out"},
        "model": {"fpdm": "a.safetensors"}, **groups,
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_config(path, kind)


def refusal(folder: Path, **groups: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, **groups)
    return str(caught.value)


def test_defaults_are_the_papers(tmp_path):
    settings = read(tmp_path)
    training, data, model = settings.training, settings.data, settings.model
    assert (training.epochs, training.batch, training.accumulation) == (100, 126, 3)
    assert (training.learning_rate, training.warm_up_epochs) == (1e-4, 5)
    assert (training.decay_epochs, training.decay) == ((50,), 0.1)
    assert (data.height, data.width, data.flip, data.jitter, data.identity) == (
        512, 352, 0.5, 1.0, 0.05,
    )  # fmt: skip
    assert data.source_sizes == (256, 512) and model.noise_offset == 0.1
    assert (model.drop.source, model.drop.pose, model.drop.fusion) == (0.2, 0.2, 0.2)
    first = read(tmp_path, IPFSettings).training
    assert (first.epochs, first.batch, first.learning_rate, first.weight_decay) == (
        5, 48, 1e-5, 1e-4,
    )  # fmt: skip


def test_paths_count_from_the_files_folder(tmp_path):
    settings = read(tmp_path, data={**DATA, "images": "/elsewhere"})
    assert settings.data.pairs == tmp_path / "pairs.csv"
    assert settings.data.images == Path("/elsewhere")
    assert settings.model.fpdm == tmp_path / "a.safetensors"


def test_numbers_that_yaml_takes_for_words_are_read(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "data: {layout: folder, pairs: p.csv, images: i}\nmodel: {fpdm: a}\n"
        "training: {output: o, learning_rate: 1e-4, mixed_precision: no}\n"
    )
    training = read_config(path, FPDMSettings).training
    assert training.learning_rate == 1e-4 and training.mixed_precision == "no"


def test_an_unknown_key_is_named_with_its_path_and_close_matches(tmp_path):
    text = refusal(tmp_path, training={"output": "out", "bacth": 4})
    assert "run.yaml: training.bacth is no setting" in text and "'batch'" in text
    text = refusal(tmp_path, model={"fpdm": "a", "drop": {"sorce": 0.1}})
    assert "model.drop.sorce" in text and "'source'" in text
    assert "trainng" in refusal(tmp_path, trainng={})


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"training": {}}, ("training.output", "missing")),
        ({"training": {"output": "o", "batch": "many"}}, ("training.batch", "whole number")),
        ({"training": {"output": "o", "batch": 2.5}}, ("training.batch", "whole number")),
        ({"training": {"output": "o", "tensorboard": 1}}, ("training.tensorboard", "true")),
        ({"training": {"output": "o", "mixed_precision": "half"}}, ("mixed_precision", "bf16")),
        ({"training": {"output": "o", "batch": 7}}, ("training", "multiple")),
        ({"training": {"output": "o", "decay_epochs": 5}}, ("training.decay_epochs", "list")),
        ({"training": {"output": "o", "decay_epochs": ["x"]}}, ("decay_epochs[0]", "number")),
        ({"data": {**DATA, "height": 500}}, ("data", "multiples of 8")),
        ({"data": {**DATA, "flip": 1.5}}, ("data", "flip", "share")),
        ({"data": {**DATA, "layout": "deepfashion"}}, ("data", "keypoints")),
        ({"data": [1]}, ("data", "group")),
        ({"model": {}}, ("model", "base, source_tower, fusion")),
        ({"model": {"base": "b"}}, ("model", "source_tower, fusion")),
    ],
)
def test_what_is_wrong_is_said_by_name(tmp_path, groups, words):
    text = refusal(tmp_path, **groups)
    assert all(word in text for word in words), text


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("a: [1")
    with pytest.raises(ConfigError, match=r"run\.yaml is no YAML"):
        read_config(path, FPDMSettings)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yaml", FPDMSettings)


def test_the_learning_rate_warms_up_and_falls_by_epochs(tmp_path):
    training = read(tmp_path, training={"output": "o", "batch": 10, "accumulation": 1}).training
    rates = [training.rate(step, pairs=100) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-4 / 50) and rates[49] == pytest.approx(1e-4)
    assert rates[499] == pytest.approx(1e-4) and rates[500] == pytest.approx(1e-5)
    assert training.stage(100).steps == 1000
