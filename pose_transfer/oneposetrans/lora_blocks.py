# SPDX-License-Identifier: GPL-3.0-or-later
"""A LoRA's weight for each block of a model.

Blocks have diffusers' names (`up_blocks.0.attentions.1`) for Stable Diffusion's UNets, and the
model's own two first words (`joint_blocks.3`) for others. A rule is the beginning of names, whole
words only; of several that fit, the longest holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ..errors import PoseTransferError

UNIFORM, INJECTION, REFINING, TABLE = (
    "uniform",
    "style injection",
    "refining",
    "table",
)
PRESETS = (UNIFORM, INJECTION, REFINING, TABLE)
# "Weight injection" of the released code: full strength in one block, a fifth elsewhere while
# re-posing, nothing elsewhere while refining.
_ELSEWHERE = {INJECTION: 0.2, REFINING: 0.0}
_UP = re.compile(r"up_blocks\.(\d+)\.attentions\.\d+$")


def weight_of(block: str, rules: Mapping[str, float], default: float) -> float:
    """The weight of the longest rule that fits the block's name."""
    fitting = [rule for rule in rules if block == rule or block.startswith(f"{rule}.")]
    return rules[max(fitting, key=len)] if fitting else default


def is_chosen(block: str, chosen: Collection[str]) -> bool:
    """Whether a block is among those chosen by names or their beginnings; none chosen means all."""
    return not chosen or weight_of(block, dict.fromkeys(chosen, 1.0), 0.0) > 0


def parse_table(text: str) -> dict[str, float]:
    """`block = weight` in lines or separated by commas -> rules. `#` begins a comment.

    Raises PoseTransferError for a line that is no such rule.
    """
    rules: dict[str, float] = {}
    for line in re.split(r"[\n,]", re.sub(r"#[^\n]*", "", text)):
        if not line.strip():
            continue
        name, _, weight = line.partition("=")
        try:
            rules[name.strip()] = float(weight)
        except ValueError as error:
            raise PoseTransferError(
                f"Cannot read {line.strip()!r} in the table of blocks. Write one block and its "
                "weight per line, such as 'up_blocks.0.attentions.1 = 1.0'."
            ) from error
    return rules


def preset_weights(preset: str, table: str, blocks: Collection[str]) -> dict[str, float]:
    """The weight of each block of a model under a preset, before the overall strength.

    Style injection and refining give one block full strength: the second attention of the first
    upward level that has any. For SDXL that is `up_blocks.0.attentions.1`, as published; for
    Stable Diffusion 1 and 2 `up_blocks.1.attentions.1`. Under `table`, blocks without a rule have
    weight 0. Raises PoseTransferError where a preset or a rule fits no block.
    """
    if preset == UNIFORM:
        return dict.fromkeys(blocks, 1.0)
    if preset == TABLE:
        rules = parse_table(table)
        _require_known(rules, blocks)
        return {block: weight_of(block, rules, 0.0) for block in blocks}
    full = injection_block(blocks)
    return {block: 1.0 if block == full else _ELSEWHERE[preset] for block in blocks}


def injection_block(blocks: Collection[str]) -> str:
    """The block that carries clothes and face: see `preset_weights`."""
    levels = sorted({int(match[1]) for match in map(_UP.match, blocks) if match})
    name = f"up_blocks.{levels[0]}.attentions.1" if levels else ""
    if name not in blocks:
        raise PoseTransferError(
            f"This preset is made for Stable Diffusion's UNets; the model has the blocks "
            f"{_listed(blocks)}. Choose 'uniform', or 'table' with weights for these blocks."
        )
    return name


def require_chosen(chosen: Collection[str], blocks: Collection[str]) -> None:
    """Raises PoseTransferError for a chosen name that fits no block."""
    _require_known(dict.fromkeys(chosen, 1.0), blocks)


def _require_known(rules: Mapping[str, float], blocks: Collection[str]) -> None:
    for rule in rules:
        if not any(is_chosen(block, (rule,)) for block in blocks):
            raise PoseTransferError(
                f"No block of the model is called {rule!r}. It has: {_listed(blocks)}."
            )


def _listed(blocks: Collection[str]) -> str:
    """`up_blocks.0.attentions.0`, ... in an order in which numbers count as numbers."""
    words = re.compile(r"(\d+)")
    key = lambda name: [int(w) if w.isdigit() else w for w in words.split(name)]  # noqa: E731
    return ", ".join(sorted(blocks, key=key))
