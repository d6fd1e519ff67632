# SPDX-License-Identifier: GPL-3.0-or-later
"""The pack's texts: the English ones are the schemas', and the host hands all of them out."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pose_transfer.client import ComfyServer
from tests.bench.write_locales import node_texts, other_texts

LOCALES = Path(__file__).parents[2] / "locales"


def kept(language: str, file: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / file).read_text(encoding="utf-8"))


def test_the_english_texts_are_those_of_the_nodes(comfy: Any) -> None:
    """`make locales` writes them."""
    info = comfy.object_info()
    assert kept("en", "nodeDefs.json") == node_texts(info)
    assert kept("en", "main.json") == other_texts(info)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_host_hands_the_texts_to_the_front_end(server: ComfyServer, language: str) -> None:
    with urllib.request.urlopen(f"{server.address}/i18n") as answer:
        served = json.load(answer)[language]
    assert served == {**kept(language, "main.json"), "nodeDefs": kept(language, "nodeDefs.json")}
