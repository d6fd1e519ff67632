# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP token numbers of the captions' words, so that training needs no tokenizer files.

Every word of a caption is one token of OpenAI's CLIP vocabulary; a test holds this table against
the stock tokenizer of the host.
"""

from __future__ import annotations

import re

BEGIN, END = 49406, 49407
LENGTH = 77

TOKEN_IDS = {
    ",": 267, ".": 269, "a": 320, "and": 537, "with": 593, "man": 786, "woman": 2308,
    "face": 1710, "shoes": 4079,
    "black": 1449, "blue": 1746, "brown": 2866, "gray": 7048, "green": 1901, "khaki": 41646,
    "navy": 5598, "orange": 4287, "pink": 3360, "purple": 5496, "red": 736, "teal": 22821,
    "white": 1579, "yellow": 4481,
    "checked": 10387, "dotted": 47950, "gradient": 36885, "logo": 5750, "striped": 22192,
    "shirt": 2523, "sweater": 11455, "vest": 12473,
    "shorts": 9680, "skirt": 12386, "trousers": 23172,
}  # fmt: skip


def encode(caption: str) -> list[int]:
    """The 77 token numbers of a caption, as the stock CLIP tokenizer gives them.

    Raises KeyError for a word that no caption holds.
    """
    words = re.findall(r"[a-z]+|[,.]", caption.lower())
    tokens = [BEGIN, *(TOKEN_IDS[word] for word in words), END]
    return tokens + [END] * (LENGTH - len(tokens))
