# SPDX-License-Identifier: GPL-3.0-or-later
"""The pack's texts in other languages: complete, and really translated."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

LOCALES = Path(__file__).parents[2] / "locales"
FILES = ("main.json", "nodeDefs.json")

# Names that are the same in Chinese; ComfyUI's own translation keeps them as well.
NAMES = {
    "Alpha", "CLIP", "ControlNet", "FPDM", "Latent", "LoRA", "Min-SNR Gamma", "OnePoseTrans",
    "Sigmas", "TruePose", "VAE", "VCM", "faceanalysis", "insightface",
}  # fmt: skip


def texts(language: str, file: str) -> dict[str, str]:
    """All texts of a file by their dotted keys."""

    def flat(value: Any, at: str) -> dict[str, str]:
        if isinstance(value, str):
            return {at: value}
        return {k: t for key, part in value.items() for k, t in flat(part, f"{at}.{key}").items()}

    found = json.loads((LOCALES / language / file).read_text(encoding="utf-8"))
    return {key[1:]: text for key, text in flat(found, "").items()}


@pytest.mark.parametrize("file", FILES)
def test_no_key_is_missing_and_none_is_left_over(file: str) -> None:
    assert texts("zh", file).keys() == texts("en", file).keys()


@pytest.mark.parametrize("file", FILES)
def test_every_text_is_chinese(file: str) -> None:
    english = texts("en", file)
    for key, text in texts("zh", file).items():
        is_name = key.endswith((".name", ".display_name")) or file == "main.json"
        assert re.search(r"[\u4e00-\u9fff]", text) or (is_name and text in NAMES), key
        assert text != english[key] or text in NAMES, key


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("file", FILES)
def test_no_text_has_signs_that_the_front_end_reads_as_commands(language: str, file: str) -> None:
    """vue-i18n: {} names a value, @ links, | parts plurals. Tooltips are shown as they are."""
    bad = {
        key
        for key, text in texts(language, file).items()
        if not key.endswith(".tooltip") and set(text) & set("{}@|")
    }
    assert bad == set()


@pytest.mark.parametrize("key", ["source_weight", "min_confidence", "on_missing"])
def test_a_translated_name_is_the_same_in_all_nodes(key: str) -> None:
    """An artist meets the same input on several nodes."""
    names = {t for k, t in texts("zh", "nodeDefs.json").items() if k.endswith(f".{key}.name")}
    assert len(names) == 1


def test_numbers_of_a_tooltip_survive_the_translation() -> None:
    """A default, a size or a unit must not be lost: the numbers in digits are the same."""
    chinese = texts("zh", "nodeDefs.json")
    for key, english in texts("en", "nodeDefs.json").items():
        wanted = set(re.findall(r"\d+(?:\.\d+)?", english))
        found = set(re.findall(r"\d+(?:\.\d+)?", chinese[key]))
        assert wanted <= found, f"{key}: {sorted(wanted - found)}"
