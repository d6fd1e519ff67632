# SPDX-License-Identifier: GPL-3.0-or-later
"""Where in a prompt the face word stands, counted in tokens of the text encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import PoseTransferError

Chunks = Sequence[Sequence[tuple[Any, float, int]]]
"""A prompt as the host's CLIP tokenizer gives it: chunks (of 77) of (token, weight, word number);
the word number is 0 for what is no part of the text: begin, end, padding."""


def face_tokens(prompt: str, words: str, tokenize: Callable[[str], Chunks]) -> tuple[int, ...]:
    """Places of all tokens of the words in the text encoder's output, chunks one after the other.

    `words` is a word or a phrase, or several with commas between; each counts wherever it stands,
    weighted or not. Raises PoseTransferError for one that the prompt does not hold.
    """
    chunks = tokenize(prompt)
    text = _text(chunks)
    places: set[int] = set()
    wanted = [word.strip() for word in words.split(",") if word.strip()]
    if not wanted:
        raise PoseTransferError(
            "The face word is empty. Enter the word of the prompt that stands for the face, such "
            "as 'face'."
        )
    for word in wanted:
        sequence = [token for token, _ in _text(tokenize(word))]
        found = [
            start
            for start in range(len(text) - len(sequence) + 1)
            if [token for token, _ in text[start : start + len(sequence)]] == sequence
        ]
        if not found or not sequence:
            raise PoseTransferError(
                f"The prompt {prompt!r} does not hold the face word {word!r}, so there is nothing "
                "to put the face in. Write it into the prompt ('A man with face, a black shirt'), "
                "or enter a word as face word that the prompt does hold."
            )
        places |= {text[start + i][1] for start in found for i in range(len(sequence))}
    return tuple(sorted(places))


def _text(chunks: Chunks) -> list[tuple[int | None, int]]:
    """Tokens of the text alone, each with its place; None for an embedding in a token's place."""
    out: list[tuple[int | None, int]] = []
    start = 0
    for chunk in chunks:
        out += [
            (token if isinstance(token, int) else None, start + i)
            for i, (token, _, word) in enumerate(chunk)
            if word
        ]
        start += len(chunk)
    return out
