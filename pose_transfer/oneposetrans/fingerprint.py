# SPDX-License-Identifier: GPL-3.0-or-later
"""One short name for everything that decides which LoRA comes out.

The name must be the same in another process, so that a tuning is found again after a restart, and
cheap: model weights are told apart by 64 evenly spaced numbers of every tensor, which any training,
merge or conversion changes, instead of by gigabytes. Pictures, masks and captions count in full.
What cannot be looked into makes the name unique: tuned once more rather than taken for another.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import re
from collections import deque
from collections.abc import Iterable, Mapping, Set
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SAMPLES = 64
_DEPTH = 16  # how deep an object of an unknown class is looked into
# Their repr says all of them, and no place in memory.
_WRITTEN = (
    type(None), bool, int, float, complex, str, bytes, bytearray, enum.Enum, PurePath, range,
    type(...),
    torch.device, torch.dtype, torch.layout, torch.memory_format,
)  # fmt: skip
_VALUES = (tuple, frozenset, MethodType)
_PLAIN = (type(None), bool, int, float, str)
# What says nothing of a module's work: torch's own tables, and what the host notes on modules that
# it has loaded.
_NOTES = frozenset(vars(nn.Module()))
_HOST_NOTES = re.compile(
    r"(prev_)?comfy_\w+|weight_function|bias_function|lowvram_patch_counter|model_lowvram"
    r"|model_\w+_memory|current_weight_patches_uuid"
)


class Fingerprint:
    """Collects what matters: `add` it piece by piece, then take `key`.

    `unsure` names the classes of things that could not be looked into; then no other has this key.
    """

    def __init__(self) -> None:
        self.unsure: set[str] = set()
        self._hash = _new_hash()
        # Each object is looked into once, then known by its number; they are held so that no id is
        # given out again.
        self._seen: dict[int, tuple[int, Any]] = {}

    @property
    def key(self) -> str:
        """32 hexadecimal digits."""
        return self._hash.hexdigest()

    def add(self, name: str, value: Any) -> None:
        """A value of any kind: numbers, text, tensors in full, containers, functions, objects.

        Functions count by their code, their defaults and what they close over, not by what they
        find in their module; objects by their class and attributes, to a limited depth. An object's
        place in memory never counts, but where it comes up again does.
        """
        self._write(name)
        self._add(value, _DEPTH)

    def add_weights(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Many large tensors, each by its name, shape, type and a sample of its numbers."""
        self._write(name, len(weights))
        for key in sorted(weights):
            self._write(key, tuple(weights[key].shape), weights[key].dtype, weights[key].is_meta)
        samples = [_sample(weights[key]) for key in sorted(weights) if not weights[key].is_meta]
        for sample in _on_cpu(samples):
            self._bytes(sample)

    def know(self, name: str, module: nn.Module) -> None:
        """A module that has been described otherwise: of it and its parts only where they come up
        counts."""
        self._write(name)
        for part in module.modules():
            self._number(part)

    def _write(self, *values: Any) -> None:
        self._hash.update(repr(values).encode())

    def _bytes(self, tensor: Tensor) -> None:
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        self._hash.update(data.numpy().tobytes())

    def _add(self, value: Any, depth: int) -> None:
        self._write(type(value).__module__, type(value).__qualname__)
        if isinstance(value, _WRITTEN):
            self._write(value)
        elif isinstance(value, Tensor):
            self._add_tensor(value)
        elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
            self._write(value.shape, value.dtype.descr)
            self._hash.update(value.tobytes())
        elif isinstance(value, (type, ModuleType)):
            self._write(getattr(value, "__module__", ""), getattr(value, "__qualname__", ""))
            self._write(value.__name__)
        elif isinstance(value, _VALUES):  # equal ones may be one object or not, as Python likes
            self._look_into(value, depth)
        elif id(value) in self._seen:
            self._write("again", self._seen[id(value)][0])
        else:
            self._number(value)
            self._look_into(value, depth)

    def _number(self, value: Any) -> None:
        self._seen.setdefault(id(value), (len(self._seen), value))

    def _look_into(self, value: Any, depth: int) -> None:
        if depth == 0:
            self._give_up(value)
            return
        inside = depth - 1
        if isinstance(value, nn.Module):
            self._add_module(value, inside)
            return
        if isinstance(value, Mapping):
            self._add_mapping(value, inside)
        elif isinstance(value, Set):
            self._write(sorted(self._digest(item, inside) for item in value))
        elif isinstance(value, (list, tuple, deque)):
            self._add_items(value, inside)
        elif isinstance(value, np.ndarray):
            self._add_items((value.shape, value.tolist()), inside)
        elif isinstance(value, slice):
            self._add_items((value.start, value.stop, value.step), inside)
        elif isinstance(value, functools.partial):
            self._add_items((value.func, value.args, value.keywords), inside)
        elif isinstance(value, MethodType):
            self._add_items((value.__func__, value.__self__), inside)
            return
        elif isinstance(value, BuiltinFunctionType):
            self._add_items((value.__module__, value.__qualname__, value.__self__), inside)
        elif isinstance(value, CodeType):
            self._add_items((value.co_code, value.co_names, value.co_consts), inside)
        elif isinstance(value, FunctionType):
            self._add_function(value, inside)
        elif not hasattr(value, "__dict__") and not _slots(value):
            self._give_up(value)
        self._add_mapping({**getattr(value, "__dict__", {}), **_slots(value)}, inside)

    def _add_tensor(self, value: Tensor) -> None:
        self._write(tuple(value.shape), value.dtype, value.is_meta)
        if not value.is_meta:
            try:
                self._bytes(value)
            except (RuntimeError, NotImplementedError, TypeError):  # sparse, packed, others' own
                self._give_up(value)

    def _add_items(self, items: Iterable[Any], depth: int) -> None:
        values = list(items)
        self._write(len(values))
        for value in values:
            self._add(value, depth)

    def _add_mapping(self, value: Mapping[Any, Any], depth: int) -> None:
        self._write(len(value))
        named = [(self._digest(key, depth), item) for key, item in value.items()]
        for name, item in sorted(named, key=lambda pair: pair[0]):
            self._write(name)
            self._add(item, depth)

    def _add_function(self, value: FunctionType, depth: int) -> None:
        self._write(value.__module__, value.__qualname__)
        self._add_items((value.__code__, value.__defaults__, value.__kwdefaults__), depth)
        for cell in value.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:
                self._write("not filled yet")
            else:
                self._add(content, depth)

    def _add_module(self, value: nn.Module, depth: int) -> None:
        self.add_weights("weights", value.state_dict())
        self.add_weights("buffers", dict(value.named_buffers()))
        for name, part in value.named_modules():
            self._write(name, type(part).__module__, type(part).__qualname__)
            self._add_mapping(_settings(part), depth)

    def _digest(self, value: Any, depth: int) -> str:
        """What stands for a value whose turn depends on no order: its own hash."""
        outside, seen = self._hash, self._seen
        self._hash = _new_hash()
        if not isinstance(value, _WRITTEN):
            self._seen = dict(seen)
        try:
            self._add(value, depth)
            return self.key
        finally:
            self._hash, self._seen = outside, seen

    def _give_up(self, value: Any) -> None:
        self.unsure.add(f"{type(value).__module__}.{type(value).__qualname__}")
        self._hash.update(os.urandom(16))


def _new_hash() -> Any:
    return hashlib.blake2b(digest_size=16)


def _sample(tensor: Tensor) -> Tensor:
    """Bytes (n,) of evenly spaced numbers."""
    flat = tensor.detach().flatten()
    step = max(len(flat) // SAMPLES, 1)
    return flat[::step][:SAMPLES].contiguous().view(torch.uint8)


def _on_cpu(samples: list[Tensor]) -> list[Tensor]:
    """The same, each in its place: one transfer from each device, not one for each tensor."""
    found = list(samples)
    for device in {sample.device for sample in samples}:
        here = [number for number, sample in enumerate(samples) if sample.device == device]
        sizes = [len(samples[number]) for number in here]
        parts = torch.cat([samples[number] for number in here]).cpu().split(sizes)
        for number, part in zip(here, parts, strict=True):
            found[number] = part
    return found


def _settings(module: nn.Module) -> dict[str, Any]:
    """A module's own settings, such as the shift of a noise schedule or the stride of a layer."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _NOTES and _HOST_NOTES.fullmatch(name) is None and _plain(value)
    }


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _plain([*value.keys(), *value.values()])
    if isinstance(value, (list, tuple)):
        return all(_plain(item) for item in value)
    return isinstance(value, _PLAIN)


def _slots(value: Any) -> dict[str, Any]:
    """What an object keeps in `__slots__`, by name."""
    found = {}
    for owner in type(value).__mro__:
        names = vars(owner).get("__slots__", ())
        for name in [names] if isinstance(names, str) else names:
            hidden = name.startswith("__") and not name.endswith("__")
            full = f"_{owner.__name__.lstrip('_')}{name}" if hidden else name
            if name not in ("__dict__", "__weakref__") and hasattr(value, full):
                found[full] = getattr(value, full)
    return found
