# SPDX-License-Identifier: GPL-3.0-or-later
"""Captions of OnePoseTrans's form: "A man with face, a blue striped shirt, khaki trousers." """

from __future__ import annotations

from .identity import Garment, Identity

_PATTERN_WORDS = {
    "stripes": "striped",
    "checks": "checked",
    "dots": "dotted",
    "gradient": "gradient",
    "logo": "logo",
    "zigzag": "zigzag",
}


def describe(garment: Garment) -> str:
    """The words for one garment, such as "red and white striped shirt"."""
    if garment.pattern == "plain":
        return f"{garment.colour_name} {garment.kind}"
    word = _PATTERN_WORDS[garment.pattern]
    return f"{garment.colour_name} and {garment.second_colour_name} {word} {garment.kind}"


def caption(identity: Identity) -> str:
    """What a person would write of this mannequin."""
    lower = describe(identity.lower)
    if identity.lower.kind == "skirt":
        lower = f"a {lower}"
    return (
        f"A {identity.gender} with face, a {describe(identity.upper)}, {lower}, "
        f"{identity.shoe_name} shoes."
    )
