# SPDX-License-Identifier: GPL-3.0-or-later
"""Finished frames: found again by all that they were made of, and never too many.

The module is read by path: its package needs the host.
"""

from __future__ import annotations

import gc
import importlib.util
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

_FILE = Path(__file__).parents[2] / "nodes" / "finished.py"
_SPEC = importlib.util.spec_from_file_location("finished_under_test", _FILE)
assert _SPEC is not None and _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
FinishedFilms, digest = _MODULE.FinishedFilms, _MODULE.digest

KB = 1024


class Model:
    pass


def picture(kilobytes: int = 1) -> torch.Tensor:
    return torch.zeros(kilobytes * KB // 4)


def test_a_frame_is_found_with_the_same_objects_and_values_only():
    films, model, other = FinishedFilms(), Model(), Model()
    first = picture()
    films.film((model, 3), "a").put("frame", first)
    assert films.film((model, 3), "a").get("frame") is first
    assert films.film((model, 3), "a").get("next frame") is None
    for objects, name in (((other, 3), "a"), ((model, 4), "a"), ((model, 3), "b"), ((model,), "a")):
        assert films.film(objects, name).get("frame") is None


def test_models_are_not_kept_alive():
    films, model = FinishedFilms(limit=2 * KB), Model()
    pictures = [picture(2)]
    films.film((model,), "a").put("frame", pictures[0])
    left = weakref.ref(pictures.pop())
    del model
    gc.collect()
    assert left() is None, "the pictures go with the model"


def test_the_film_not_asked_for_the_longest_goes_first():
    films, model = FinishedFilms(limit=3 * KB), Model()
    for name in "abc":
        films.film((model,), name).put("frame", picture())
    films.film((model,), "a")
    films.film((model,), "d").put("frame", picture())
    kept = [name for name in "abcd" if films.film((model,), name).get("frame") is not None]
    assert kept == ["a", "c", "d"]


def test_a_film_too_large_by_itself_keeps_its_first_frames():
    films, model = FinishedFilms(limit=3 * KB), Model()
    film = films.film((model,), "long")
    for number in range(5):
        film.put(str(number), picture())
    assert [film.get(str(number)) is not None for number in range(5)] == [True] * 3 + [False] * 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(4, np.float32), np.zeros((2, 2), np.float32)),
        (np.zeros(4, np.float32), np.zeros(4, np.int32)),
        (np.zeros(2), np.array([0.0, 1e-300])),
        (1.0, 1.0000001),
        ("ab", "a"),
    ],
)
def test_different_values_have_different_names(one, other):
    assert digest(one) != digest(other)
    assert digest("a", one) == digest("a", one)
    assert digest(one, "b") != digest("b", one)


def test_a_tensor_s_name_is_what_is_in_it():
    values = torch.arange(6.0).reshape(2, 3)
    assert digest(values.T) == digest(values.T.contiguous()) != digest(values)
