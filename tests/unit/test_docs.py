# SPDX-License-Identifier: GPL-3.0-or-later
"""What the docs say is so: models, error messages, imports, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pose_transfer.weights.entries import Model, readable_size
from pose_transfer.weights.registry import MODELS

PACK = Path(__file__).parents[2]
DOCS = PACK / "docs"
HELP = sorted((PACK / "web" / "docs").glob("*.md"))
PAGES = [*sorted(DOCS.glob("*.md")), PACK / "README.md", *HELP]
HOST = {"comfy", "comfy_api", "comfy_extras", "execution", "folder_paths", "latent_preview",
        "node_helpers", "server"}  # fmt: skip


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def row(model: Model) -> str:
    """A model's line in docs/models.md."""
    files = "<br>".join(f"`{file.path}`" for file in model.files)
    cells = (
        f"[{model.name}]({model.source})", files, f"`models/{model.folder}`",
        readable_size(model.download_size), model.terms, model.needed_by,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def test_every_model_of_the_registry_is_in_the_page_of_models() -> None:
    lines = [line for line in text_of("models.md").splitlines() if line.startswith("| [")]
    wanted = {row(model) for model in MODELS}
    assert sorted(wanted - set(lines)) == [], "rows that docs/models.md lacks"
    assert sorted(set(lines) - wanted) == [], "rows of docs/models.md that are not so"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {anchor_of(heading) for heading in headings}, link


def anchor_of(heading: str) -> str:
    """The anchor that Git's web pages give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", HELP, ids=lambda page: page.stem)
def test_a_help_page_has_a_picture_and_an_example_of_three_nodes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "](images/" in text
    examples = re.findall(r"(?:\*\*Example:\*\*|## Example)(.*?)(?=\n## |\Z)", text, re.DOTALL)
    assert examples and len(re.findall("→|->", examples[0])) >= 2


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w.]+\.md)\)", text_of("README.md")))
    assert linked == {page.name for page in DOCS.glob("*.md")} - {"README.md"}


@cache
def messages() -> str:
    """All texts of the code, a line each; what is filled in is written …"""
    found = []
    for folder in ("nodes", "pose_transfer", ".ci"):
        for path in (PACK / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [x.value if isinstance(x, ast.Constant) else "…" for x in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(" ".join(text.split()) for text in found)


def quoted_messages() -> list[str]:
    """The block quotes of the page, each as one line."""
    quotes = re.findall(r"(?:^> .*\n)+", text_of("troubleshooting.md"), re.MULTILINE)
    return [" ".join(quote.replace("\n> ", " ").removeprefix("> ").split()) for quote in quotes]


@pytest.mark.parametrize("message", quoted_messages(), ids=lambda message: message[:40])
def test_a_message_that_is_explained_exists(message: str) -> None:
    parts = [re.escape(part.strip()) for part in message.split("…")]
    assert re.search(r"[^\n]*?".join(parts), messages()), message


def test_the_page_explains_messages() -> None:
    assert len(quoted_messages()) >= 15


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules that a file imports, those of the pack as paths from its root."""
    package = path.relative_to(PACK).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield tuple((node.module or "").split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            if node.module:
                yield (*base, *node.module.split("."))
            else:
                yield from ((*base, alias.name) for alias in node.names)


def layers() -> list[set[str]]:
    """The parts of the library by the layers of the picture, the topmost first."""
    picture = re.search(r"```mermaid\n(.*?)```", text_of("architecture.md"), re.DOTALL)
    assert picture is not None
    blocks = re.findall(r"subgraph layer\d+.*?\n(.*?)\n\s*end", picture[1], re.DOTALL)
    return [set(re.findall(r"^\s*(\w+)\b", block, re.MULTILINE)) for block in blocks]


def test_the_picture_of_imports_shows_every_part_once() -> None:
    parts = {
        path.stem
        for path in (PACK / "pose_transfer").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    shown = [part for layer in layers() for part in layer]
    assert sorted(shown) == sorted(parts - {"__init__"})


def test_parts_import_only_from_layers_below_their_own() -> None:
    level = {part: -number for number, layer in enumerate(layers()) for part in layer}
    for path in (PACK / "pose_transfer").rglob("*.py"):
        _, part, *_ = path.relative_to(PACK).with_suffix("").parts
        for module in imports(path):
            if module[0] == "pose_transfer" and len(module) > 1 and module[1] != part:
                assert level[module[1]] < level[part], f"{path}: {'.'.join(module)}"


def test_the_library_knows_neither_the_host_nor_the_nodes() -> None:
    for path in (PACK / "pose_transfer").rglob("*.py"):
        outer = {module[0] for module in imports(path)} & {*HOST, "nodes"}
        assert not outer, f"{path}: {outer}"


def test_only_the_named_modules_talk_to_the_host() -> None:
    """The others know its interface for nodes (`comfy_api`) alone."""
    for path in (PACK / "nodes").rglob("*.py"):
        if path.stem in ("host", "stock_models") or path.parent.name == "patches":
            continue
        inner = {module[0] for module in imports(path)} & (HOST - {"comfy_api"})
        assert not inner, f"{path}: {inner}"
