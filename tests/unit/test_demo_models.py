# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the embedded demo weights, whole and broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pose_transfer.demo.models import load_base, load_fpdm, require_fpdm_weights
from pose_transfer.errors import CheckpointError

TABLE = "text_encoder.text_model.embeddings.token_embedding.weight"
CONFIG = {"unet": {"in_channels": 4}, "text_encoder": {"vocab_size": 10}}


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    """The words 3 and 7, and the row of all the others."""
    return {
        "unet.conv_in.weight": torch.ones(1, dtype=torch.float16),
        TABLE: torch.tensor([[3.0], [7.0], [-1.0]], dtype=torch.float16),
        "text_encoder.token_ids": torch.tensor([3, 7, -1]),
        "vae.vae_scale": torch.tensor(2.0),
    }


def write(path: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    known = {"format": "pose_transfer.mannequin", "version": "1", "config": json.dumps(CONFIG)}
    save_file(tensors, path, known | metadata)
    return path


def test_the_vocabulary_is_expanded(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    base = load_base(write(tmp_path / "base.safetensors", tensors))
    table = base.text_encoder["text_model.embeddings.token_embedding.weight"]
    assert table.flatten().tolist() == [-1, -1, -1, 3, -1, -1, -1, 7, -1, -1]
    assert "token_ids" not in base.text_encoder


def test_parts_come_in_float32_with_their_settings(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    base = load_base(write(tmp_path / "base.safetensors", tensors))
    assert base.unet["conv_in.weight"].dtype == torch.float32
    assert base.vae["vae_scale"] == 2
    assert (base.unet_config, base.text_config) == (CONFIG["unet"], CONFIG["text_encoder"])


def test_a_missing_file_says_how_to_get_it_again(tmp_path: Path) -> None:
    for load in (load_base, load_fpdm, require_fpdm_weights):
        with pytest.raises(CheckpointError, match=r"gone\.safetensors are missing.*install"):
            load(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("load", [load_base, load_fpdm])
@pytest.mark.parametrize("length", [0, 5, 100])
def test_a_damaged_file_says_how_to_get_it_again(
    tmp_path: Path, tensors: dict[str, Tensor], load, length: int
) -> None:
    path = write(tmp_path / "cut.safetensors", tensors)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors.*install the pack again"):
        load(path)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"format": "another"}, "'another'"),
        ({"config": "{"}, "cannot be used"),
        ({"config": "{}"}, "'unet' is missing"),
    ],
)
def test_another_file_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        load_base(write(tmp_path / "other.safetensors", tensors, **metadata))


def test_a_file_without_text_encoder_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    del tensors["text_encoder.token_ids"]
    with pytest.raises(CheckpointError, match="'token_ids' is missing"):
        load_base(write(tmp_path / "half.safetensors", tensors))
