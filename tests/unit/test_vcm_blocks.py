# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks of a UNet: the host's and diffusers' names, weights by block; words in prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from pose_transfer.demo.architecture import UNET
from pose_transfer.errors import PoseTransferError
from pose_transfer.oneposetrans.blocks import attention_blocks, image_weights, names
from pose_transfer.oneposetrans.vcm_words import Chunks, face_tokens

# The host's keywords (comfy/supported_models.py and model_detection.py) and diffusers' own.
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "SD 1.5": (
        {
            "num_res_blocks": [2] * 4, "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1,
        },
        {},
    ),
    "SDXL": (
        {
            "num_res_blocks": [2] * 3, "transformer_depth": [0, 0, 2, 2, 10, 10],
            "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
            "transformer_depth_middle": 10,
        },
        {
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20),
        },
    ),
    "demo": (
        {
            "num_res_blocks": [1] * 3, "transformer_depth": [1] * 3,
            "transformer_depth_output": [0, 0, 1, 1, 1, 1], "transformer_depth_middle": 1,
        },
        UNET,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_blocks_stand_in_the_order_of_adapter_files(name: str) -> None:
    host, diffusers = SHAPES[name]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**diffusers)
    wanted = [
        key.removesuffix(".attn2.processor") for key in unet.attn_processors if ".attn2." in key
    ]
    assert [block.diffusers_module for block in attention_blocks(host)] == wanted


def test_host_places_of_sdxl() -> None:
    """Counted off the host's UNet; up_blocks.0.attentions.1 is its output block 1."""
    blocks = {b.diffusers_module: b for b in attention_blocks(SHAPES["SDXL"][0])}
    for name, host, module in (
        ("down_blocks.1.attentions.0.transformer_blocks.1", ("input", 4), "input_blocks.4.1"),
        ("down_blocks.2.attentions.1.transformer_blocks.9", ("input", 8), "input_blocks.8.1"),
        ("mid_block.attentions.0.transformer_blocks.3", ("middle", 0), "middle_block.1"),
        ("up_blocks.0.attentions.1.transformer_blocks.0", ("output", 1), "output_blocks.1.1"),
        ("up_blocks.1.attentions.2.transformer_blocks.1", ("output", 5), "output_blocks.5.1"),
    ):
        assert blocks[name].host == host
        assert blocks[name].host_module == f"{module}.transformer_blocks.{blocks[name].index}"


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(PoseTransferError, match="not a Stable Diffusion UNet"):
        attention_blocks({"image_model": "flux", "depth": 19})


@pytest.mark.parametrize(("name", "up_block"), [("SDXL", 0), ("SD 1.5", 1), ("demo", 0)])
def test_style_injection_is_the_paper_s_or_its_counterpart(name: str, up_block: int) -> None:
    weights = image_weights("style injection", "", attention_blocks(SHAPES[name][0]))
    assert {block: weight for block, weight in weights.items() if weight} == {
        f"up_blocks.{up_block}.attentions.0": 0.4,
        f"up_blocks.{up_block}.attentions.1": 1.0,
    }


def test_uniform_and_table() -> None:
    blocks = attention_blocks(SHAPES["SD 1.5"][0])
    assert set(image_weights("uniform", "", blocks).values()) == {1.0}
    table = "down_blocks = 0.5\ndown_blocks.1 = 0.25 # finer\nmid_block = 2"
    weights = image_weights("table", table, blocks)
    assert weights["down_blocks.0.attentions.1"] == 0.5
    assert weights["down_blocks.1.attentions.0"] == 0.25
    assert weights["mid_block.attentions.0"] == 2
    assert weights["up_blocks.1.attentions.0"] == 0
    assert len(weights) == len(names(blocks)) == 16


@pytest.mark.parametrize("line", ["down_blocks.9 = 1", "mid_block", "mid_block = much"])
def test_a_table_s_mistakes_are_named(line: str) -> None:
    with pytest.raises(PoseTransferError, match=r"down_blocks\.9|mid_block"):
        image_weights("table", line, attention_blocks(SHAPES["SDXL"][0]))


def tokenize(text: str) -> Chunks:
    """Words of four letters are one token, longer ones several; chunks of eight."""
    pieces = [word[i : i + 4] for word in text.split() for i in range(0, len(word), 4)]
    numbers = [hash(piece) for piece in pieces]
    chunks = []
    for start in range(0, max(len(numbers), 1), 6):
        part = [(number, 1.0, 7) for number in numbers[start : start + 6]]
        chunk = [(-1, 1.0, 0), *part, (-2, 1.0, 0)]
        chunks.append(chunk + [(-2, 1.0, 0)] * (8 - len(chunk)))
    return chunks


@pytest.mark.parametrize(
    ("prompt", "words", "places"),
    [
        ("face", "face", (1,)),
        ("a man with face and face", "face", (4, 6)),
        ("a man with a big countenance", "countenance", (6, 9, 10)),  # runs over a chunk's end
        ("one two head six face", "face, head", (3, 5)),
        ("one old face face", "old face", (2, 3)),
    ],
)
def test_face_words_are_found(prompt: str, words: str, places: tuple[int, ...]) -> None:
    assert face_tokens(prompt, words, tokenize) == places


@pytest.mark.parametrize(
    ("words", "said"),
    [("head", "does not hold the face word 'head'"), ("face, head", "'head'"), (" ,", "is empty")],
)
def test_a_word_that_is_not_there_is_named(words: str, said: str) -> None:
    with pytest.raises(PoseTransferError, match=said):
        face_tokens("a man with face", words, tokenize)
