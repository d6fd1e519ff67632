# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes locales/en from the nodes' schemas, and says what the other languages lack.

python tests/bench/write_locales.py     # COMFYUI_PATH: ComfyUI's folder
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PACK))

from pose_transfer.client import ComfyClient, ComfyServer  # noqa: E402

LOCALES = PACK / "locales"
Texts = dict[str, Any]


def node_texts(object_info: Texts) -> Texts:
    """`nodeDefs.json` of our nodes: what each is called and does, and its inputs and outputs.

    The front end asks for outputs by their number.
    """
    found = {}
    for name, node in object_info.items():
        if not name.startswith("PoseTransfer"):
            continue
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        outputs = zip(node["output_name"], node["output_tooltips"], strict=True)
        found[name] = {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {
                key: {"name": options.get("display_name") or key, "tooltip": options["tooltip"]}
                for key, (_, options) in inputs.items()
            },
            "outputs": {
                str(number): {"name": output, "tooltip": tooltip}
                for number, (output, tooltip) in enumerate(outputs)
            },
        }
    return found


def other_texts(object_info: Texts) -> Texts:
    """`main.json`: the groups of the menu."""
    groups = [
        group
        for name, node in object_info.items()
        if name.startswith("PoseTransfer")
        for group in node["category"].split("/")
    ]
    return {"nodeCategories": {group: group for group in dict.fromkeys(groups)}}


def places(texts: Texts, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each text with the keys that lead to it."""
    for key, value in texts.items():
        if isinstance(value, dict):
            yield from places(value, (*at, key))
        else:
            yield (*at, key), value


async def ask(address: str) -> Texts:
    async with ComfyClient(address) as client:
        return await client.object_info()


def main() -> None:
    """Starts the host with this pack, and writes what it says of the nodes."""
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(comfyui, Path(base), {"pose-transfer": PACK}) as server,
    ):
        info = asyncio.run(ask(server.address))
    for file, texts in (("nodeDefs.json", node_texts(info)), ("main.json", other_texts(info))):
        path = LOCALES / "en" / file
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(texts, indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8", newline="\n")

        was, wanted = dict(places(before)), dict(places(texts))
        for other in sorted(LOCALES.glob(f"*/{file}")):
            if other == path:
                continue
            there = dict(places(json.loads(other.read_text(encoding="utf-8"))))
            where = f"{other.parent.name}/{file}"
            for at in sorted(wanted.keys() | there.keys()):
                if at not in there:
                    print(f"{where} lacks {'.'.join(at)}: {wanted[at]}")
                elif at not in wanted:
                    print(f"{where} has {'.'.join(at)} left over")
                elif at in was and was[at] != wanted[at]:
                    print(f"{where} may be out of date at {'.'.join(at)}: {wanted[at]}")


if __name__ == "__main__":
    main()
