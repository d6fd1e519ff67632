# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry for people: as text in a terminal, and as the README's table."""

from __future__ import annotations

from collections.abc import Iterable

from .entries import Model, readable_size

HEADINGS = ("model", "needed by", "download", "folder in `models`", "licence", "sha256")


def as_text(models: Iterable[Model]) -> str:
    """A paragraph for each model."""
    return "\n\n".join(
        f"{model.name}: {model.needed_by}\n"
        f"  files    {', '.join(file.path for file in model.files)}\n"
        f"  folder   models/{model.folder}\n"
        f"  size     {readable_size(model.download_size)}\n"
        f"  licence  {model.terms}\n"
        f"  sha256   {_verified(model)}\n"
        f"  source   {model.source}"
        for model in models
    )


def as_markdown(models: Iterable[Model]) -> str:
    """The table of the README, without a line break at its end."""
    rows = [
        (
            f"[{model.name}]({model.source})",
            model.needed_by,
            readable_size(model.download_size),
            f"`{model.folder}`",
            _licence(model),
            _verified(model),
        )
        for model in models
    ]
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in (HEADINGS, ("---",) * len(HEADINGS), *rows)
    )


def _licence(model: Model) -> str:
    return model.licence if model.commercial_use else f"{model.licence}. **Not commercial**"


def _verified(model: Model) -> str:
    return "published" if model.verified else "none published: unverified"
