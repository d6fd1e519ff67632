# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames that are finished stay, so that a film that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

LIMIT = 1 << 30
"""Bytes of pictures that are kept: about 500 frames of 512x352 px."""


def digest(*values: Any) -> str:
    """A name for values: tensors and arrays by what is in them, all else by its repr."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype} {value.shape}".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            found.update(repr(value).encode())
        found.update(b"\0")
    return found.hexdigest()


class Film:
    """The finished pictures of one film, by frame."""

    def __init__(self, keep: Callable[[Film, int], bool]) -> None:
        self.size = 0
        self._pictures: dict[str, torch.Tensor] = {}
        self._keep = keep

    def get(self, frame: str) -> torch.Tensor | None:
        return self._pictures.get(frame)

    def put(self, frame: str, picture: torch.Tensor) -> None:
        """Keeps the picture if there is room. It must not be changed afterwards."""
        size = picture.numel() * picture.element_size()
        if frame not in self._pictures and self._keep(self, size):
            self._pictures[frame] = picture
            self.size += size


class FinishedFilms:
    """Films by what they are made of, at most `limit` bytes of pictures.

    Whoever needs room makes the films go that were not asked for the longest. A film that is
    larger by itself keeps its first frames: they are the ones that were finished when it is
    stopped, whereas the latest ones would be thrown out by those made again.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._films: list[tuple[tuple[Callable[[], Any], ...], str, Film]] = []  # latest last

    def film(self, objects: tuple[Any, ...], name: str) -> Film:
        """The film made with these very objects (models, say) and the values that `name` digests.

        The objects are not kept alive; with them goes the film.
        """
        self._films = [entry for entry in self._films if all(ref() is not None for ref in entry[0])]
        for entry in self._films:
            refs, known, film = entry
            same = len(refs) == len(objects) and all(
                ref() is given for ref, given in zip(refs, objects, strict=True)
            )
            if same and known == name:
                self._films.remove(entry)
                self._films.append(entry)
                return film
        film = Film(self._make_room)
        self._films.append((tuple(map(self._reference, objects)), name, film))
        return film

    def _make_room(self, film: Film, size: int) -> bool:
        while (total := sum(kept.size for _, _, kept in self._films)) + size > self.limit:
            oldest = self._films[0][2]
            if oldest is film:
                return False
            del self._films[0]
        return total + size <= self.limit

    def _reference(self, thing: Any) -> Callable[[], Any]:
        try:
            return weakref.ref(thing, self._forget)
        except TypeError:  # a tuple or number has no such thing, and no weight either
            return lambda: thing

    def _forget(self, gone: Any) -> None:
        self._films = [entry for entry in self._films if not any(r is gone for r in entry[0])]


FILMS = FinishedFilms()
