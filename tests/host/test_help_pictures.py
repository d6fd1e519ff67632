# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of the help pages are there, small, and served where the front end looks."""

from __future__ import annotations

import io
import re
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from pose_transfer.client import ComfyServer

HELP = Path(__file__).parents[2] / "web" / "docs"
PICTURES = {
    f"{page.stem}: {link}": link
    for page in sorted(HELP.glob("*.md"))
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_help_page_s_picture_is_served(server: ComfyServer, name: str) -> None:
    # The front end resolves a relative link against /extensions/<the pack's folder>/docs/.
    address = f"{server.address}/extensions/pose-transfer/docs/{PICTURES[name]}"
    with urllib.request.urlopen(address) as answer:
        data = answer.read()
    assert len(data) < 100_000
    Image.open(io.BytesIO(data)).verify()
