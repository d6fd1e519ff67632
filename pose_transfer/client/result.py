# SPDX-License-Identifier: GPL-3.0-or-later
"""What a finished workflow left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Picture:
    """An image file that a node wrote, as the server has it."""

    filename: str
    data: bytes
    subfolder: str = ""
    folder: str = "output"
    """`output`, or `temp` for a preview."""


@dataclass(frozen=True)
class Result:
    """Outputs by node title; several nodes of one title share an entry."""

    pictures: dict[str, list[Picture]]
    texts: dict[str, list[str]]
    outputs: dict[str, dict[str, Any]]
    """As the server reports them, by node id."""
    seconds: float
    """From queueing to the end, as seen by the client."""

    @property
    def images(self) -> dict[str, list[bytes]]:
        """Encoded image files by node title."""
        return {title: [p.data for p in pictures] for title, pictures in self.pictures.items()}
