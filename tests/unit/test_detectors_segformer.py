# SPDX-License-Identifier: GPL-3.0-or-later
"""SegFormer in the folder layout of segformer_b2_clothes, with small weights made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor
from transformers.pipelines.image_segmentation import ImageSegmentationPipeline

from pose_transfer.detectors.parse import parse_within
from pose_transfer.detectors.segformer import load_segformer
from pose_transfer.errors import CheckpointError, ParsingError
from pose_transfer.parsing import ATR_LABELS, LABELS
from pose_transfer.types import Box

# As the released folder has it, in the older form of transformers.
RELEASED_PREPROCESSOR = {
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "SegformerFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "reduce_labels": False,
    "resample": 2,
    "size": 512,
}


def write_segformer(folder: Path, labels: tuple[str, ...] = ATR_LABELS) -> Path:
    torch.manual_seed(5)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
    )
    network = SegformerForSemanticSegmentation(config).eval()
    # A fresh head hardly tells pixels apart.
    torch.nn.init.normal_(network.decode_head.classifier.weight, std=3.0)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(RELEASED_PREPROCESSOR))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segformer(tmp_path_factory.mktemp("models") / "segformer_b2_clothes")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Soft colours, 150x110 px."""
    y, x = np.mgrid[:150, :110]
    waves = [np.sin(x / 9 + y / 31), np.cos(x / 23 - y / 7), np.sin((x + y) / 13)]
    return np.stack([127 + 120 * w for w in waves], -1).astype(np.uint8)


def test_it_is_what_transformers_own_pipeline_finds(folder: Path, picture: np.ndarray) -> None:
    from PIL import Image

    parser = load_segformer(folder)
    labels, names = parser.parse(picture)
    assert labels.shape == (150, 110)
    assert labels.dtype == np.uint8
    assert names == ATR_LABELS
    assert parser.provider == "cpu"

    pipeline = ImageSegmentationPipeline(
        model=SegformerForSemanticSegmentation.from_pretrained(folder, local_files_only=True),
        image_processor=SegformerImageProcessor.from_pretrained(folder, local_files_only=True),
    )
    found = pipeline(Image.fromarray(picture), subtask="semantic")
    assert isinstance(found, list)
    assert len(found) > 2
    for region in found:
        mask = np.asarray(region["mask"]) > 127
        np.testing.assert_array_equal(mask, labels == ATR_LABELS.index(region["label"]))


def test_without_its_preprocessor_file_pictures_are_prepared_alike(
    folder: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((folder / name).read_bytes())
    np.testing.assert_array_equal(
        load_segformer(bare).parse(picture)[0], load_segformer(folder).parse(picture)[0]
    )


def test_nothing_is_asked_of_the_network(
    folder: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    load_segformer(folder).parse(picture)


def test_a_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_segformer(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load_segformer(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_damaged_file_is_an_error_of_ours(folder: Path, tmp_path: Path, name: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(CheckpointError, match=r"cannot be loaded.*Download"):
        load_segformer(tmp_path)


def test_weights_that_lack_are_not_replaced_by_random_ones(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    del weights["decode_head.classifier.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights.*decode_head\.classifier\.weight"):
        load_segformer(tmp_path)


def test_boxes_are_looked_at_from_close_by(folder: Path, picture: np.ndarray) -> None:
    parser = load_segformer(folder)
    box = Box(20, 30, 40, 60)
    labels = parse_within(parser, picture, [box])
    # A quarter more on every side: 15..65 and 22.5..97.5.
    part = labels[22:98, 15:65]
    np.testing.assert_array_equal(part, parse_within(parser, picture[22:98, 15:65].copy()))
    assert (part != LABELS.index("background")).any()
    labels[22:98, 15:65] = 0
    assert not labels.any()
    assert not parse_within(parser, picture, []).any()


def test_garments_that_no_taxonomy_knows_are_refused(picture: np.ndarray, tmp_path: Path) -> None:
    parser = load_segformer(write_segformer(tmp_path, ("Background", "cardigan", "zipper")))
    with pytest.raises(ParsingError, match="'cardigan', 'zipper'"):
        parse_within(parser, picture)
