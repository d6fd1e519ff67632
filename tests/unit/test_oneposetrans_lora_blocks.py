# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights of a LoRA by block: presets, tables, names."""

from __future__ import annotations

import pytest

from pose_transfer.errors import PoseTransferError
from pose_transfer.oneposetrans.lora_blocks import (
    INJECTION,
    REFINING,
    TABLE,
    UNIFORM,
    is_chosen,
    parse_table,
    preset_weights,
    require_chosen,
)


def attentions(side: str, levels: dict[int, int]) -> list[str]:
    return [f"{side}.{n}.attentions.{i}" for n, count in levels.items() for i in range(count)]


SDXL = [
    *attentions("down_blocks", {1: 2, 2: 2}),
    *attentions("up_blocks", {0: 3, 1: 3}),
    "mid_block.attentions.0",
]
SD15 = [
    *attentions("down_blocks", {0: 2, 1: 2, 2: 2}),
    *attentions("up_blocks", {1: 3, 2: 3, 3: 3}),
    "mid_block.attentions.0",
]
DEMO = [*attentions("down_blocks", {0: 1, 1: 1, 2: 1}), *attentions("up_blocks", {0: 2, 1: 2})]


def test_injection_is_the_released_one_for_sdxl() -> None:
    weights = preset_weights(INJECTION, "", SDXL)
    assert len(weights) == 11
    assert weights.pop("up_blocks.0.attentions.1") == 1.0
    assert set(weights.values()) == {0.2}


def test_refining_is_the_released_one_for_sdxl() -> None:
    weights = preset_weights(REFINING, "", SDXL)
    assert weights.pop("up_blocks.0.attentions.1") == 1.0
    assert set(weights.values()) == {0.0}


@pytest.mark.parametrize(
    "blocks, full", [(SD15, "up_blocks.1.attentions.1"), (DEMO, "up_blocks.0.attentions.1")]
)
def test_injection_s_counterpart_is_the_first_level_up_with_attention(
    blocks: list[str], full: str
) -> None:
    weights = preset_weights(INJECTION, "", blocks)
    assert [block for block, weight in weights.items() if weight == 1.0] == [full]


def test_uniform_fits_every_model() -> None:
    assert preset_weights(UNIFORM, "", ["joint_blocks.0"]) == {"joint_blocks.0": 1.0}


def test_injection_needs_a_unet_and_says_which_blocks_there_are() -> None:
    with pytest.raises(PoseTransferError, match=r"joint_blocks\.2, joint_blocks\.10\."):
        preset_weights(INJECTION, "", ["joint_blocks.10", "joint_blocks.2"])


def test_in_a_table_the_longest_name_holds_and_the_rest_is_zero() -> None:
    table = "up_blocks = 0.5  # all of them\nup_blocks.0.attentions.1=1, mid_block=-0.25\n"
    weights = preset_weights(TABLE, table, SDXL)
    assert weights["up_blocks.0.attentions.1"] == 1.0
    assert weights["up_blocks.1.attentions.2"] == 0.5
    assert weights["mid_block.attentions.0"] == -0.25
    assert weights["down_blocks.1.attentions.0"] == 0.0


def test_a_table_that_cannot_be_read_names_the_line() -> None:
    with pytest.raises(PoseTransferError, match=r"up_blocks 0\.5"):
        parse_table("mid_block = 1\nup_blocks 0.5")


def test_names_are_whole_words() -> None:
    assert is_chosen("up_blocks.1.attentions.0", ("up_blocks.1",))
    assert not is_chosen("up_blocks.10.attentions.0", ("up_blocks.1",))
    assert is_chosen("anything", ())


def test_a_name_that_fits_no_block_is_an_error() -> None:
    with pytest.raises(PoseTransferError, match="sideways"):
        require_chosen(["up_blocks", "sideways"], SDXL)
    with pytest.raises(PoseTransferError, match="sideways"):
        preset_weights(TABLE, "sideways = 1", SDXL)
