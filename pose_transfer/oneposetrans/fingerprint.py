# SPDX-License-Identifier: GPL-3.0-or-later
"""One short name for everything that decides which LoRA comes out.

The name must be the same in another process, so that a tuning is found again after a restart, and
cheap: model weights are told apart by 64 evenly spaced numbers of every tensor, which any training,
merge or conversion changes, instead of by gigabytes. Pictures, masks and captions count in full.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
from collections.abc import Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES = 64
_DEPTH = 8  # how deep an object of an unknown class is looked into


class Fingerprint:
    """Collects what matters: `add` it piece by piece, then take `key`."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        # Each object is looked into once; they are held so that no id is given out again.
        self._seen: dict[int, Any] = {}

    @property
    def key(self) -> str:
        """32 hexadecimal digits."""
        return self._hash.hexdigest()

    def add(self, name: str, value: Any) -> None:
        """A value of any kind: numbers, text, tensors in full, containers, functions, objects.

        Functions count by their code and what they close over, objects by their class and
        attributes, to a limited depth; an object's place in memory never counts.
        """
        self._write(name)
        self._add(value, _DEPTH)

    def add_weights(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Many large tensors, each by its name, shape, type and a sample of its numbers."""
        self._write(name)
        for key in sorted(weights):
            self._write(key, tuple(weights[key].shape), weights[key].dtype)
        # One transfer from each device, not one for each tensor.
        samples = [sample for key in sorted(weights) for sample in _sample(weights[key])]
        for device in sorted({sample.device for sample in samples}, key=str):
            self._bytes(torch.cat([s for s in samples if s.device == device]))

    def _write(self, *values: Any) -> None:
        self._hash.update(repr(values).encode())

    def _bytes(self, tensor: Tensor) -> None:
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        self._hash.update(data.numpy().tobytes())

    def _add(self, value: Any, depth: int) -> None:
        self._write(type(value).__qualname__)
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, enum.Enum)):
            self._write(value)
            return
        if depth == 0 or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        inside = depth - 1
        if isinstance(value, Tensor):
            self._write(tuple(value.shape), value.dtype)
            self._bytes(value)
        elif isinstance(value, nn.Module):
            self.add_weights("module", value.state_dict())
            self._attributes(_plain(vars(value)), inside)
        elif isinstance(value, Mapping):
            for key in sorted(value, key=repr):
                self._add(key, inside)
                self._add(value[key], inside)
        elif isinstance(value, (list, tuple)):
            for item in value:
                self._add(item, inside)
        elif isinstance(value, MethodType):
            self._add(value.__func__, inside)
            self._add(value.__self__, inside)
        elif isinstance(value, FunctionType):
            self._write(value.__module__, value.__qualname__, value.__code__.co_code)
            self._add(value.__defaults__, inside)
            for cell in value.__closure__ or ():
                with contextlib.suppress(ValueError):  # not filled yet
                    self._add(cell.cell_contents, inside)
        elif not isinstance(value, (type, BuiltinFunctionType, CodeType)):
            self._attributes(_fields(value), inside)

    def _attributes(self, fields: Mapping[str, Any], depth: int) -> None:
        for key in sorted(fields):
            self._write(key)
            self._add(fields[key], depth)


def _sample(tensor: Tensor) -> list[Tensor]:
    """Bytes (n,) of evenly spaced numbers; none of a tensor that has no memory."""
    if tensor.is_meta or not tensor.numel():
        return []
    flat = tensor.detach().flatten()
    step = max(len(flat) // SAMPLES, 1)
    return [flat[::step][:SAMPLES].contiguous().view(torch.uint8)]


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A module's own settings, such as the shift of a noise schedule."""
    kinds = (bool, int, float, str)
    return {k: v for k, v in fields.items() if isinstance(v, kinds) and k != "training"}


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dict(getattr(value, "__dict__", {}))
