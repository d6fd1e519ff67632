# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's page: tables, and sections that can be measured and written by themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; every row has as many cells as the heading."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace_section(folder: Path, heading: str, text: str, key: str, facts: object) -> None:
    """Write a section into benchmark.md and `facts` as `key` into benchmark.json of `folder`.

    `text` begins with `heading`, a line "## ...". A section of that heading is taken out, the new
    one comes last; the rest of both files stays as it is. Files that are not there are made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, data = folder / "benchmark.md", folder / "benchmark.json"
    old_text = page.read_text(encoding="utf-8") if page.exists() else ""
    # Up to the next section of the same level, or the end.
    old = re.compile(rf"^{re.escape(heading)}$.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    rest = old.sub("", old_text).strip()
    page.write_text(f"{rest}\n\n{text}\n".lstrip(), encoding="utf-8")
    known = json.loads(data.read_text(encoding="utf-8")) if data.exists() else {}
    known[key] = facts
    data.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
