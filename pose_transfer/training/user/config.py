# SPDX-License-Identifier: GPL-3.0-or-later
"""From a YAML file to frozen dataclasses, with errors that name the key and what was meant."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from ...errors import PoseTransferError

T = TypeVar("T")


class ConfigError(PoseTransferError):
    """A configuration that cannot be used; the text names the file and the key."""


def read_config(path: Path, kind: type[T]) -> T:
    """The YAML file as a `kind`, a dataclass of numbers, texts, paths and further dataclasses.

    Relative paths count from the file's folder. Raises ConfigError, with the key's full name, for
    a key that is unknown (with the nearest known ones), missing, or of another type, and for what
    the dataclass itself refuses.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The configuration {path} is no YAML: {error}") from error
    return _Reader(path).build(content if content is not None else {}, kind, "")


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path

    def _error(self, key: str, text: str) -> ConfigError:
        return ConfigError(f"{self.path}: {key or 'the file'} {text}")

    def build(self, content: Any, kind: type[T], key: str) -> T:
        if not isinstance(content, Mapping):
            raise self._error(key, f"must be a group of 'name: value' lines, got {content!r}.")
        known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
        prefix = f"{key}." if key else ""
        for name in content:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=3)
                meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
                raise self._error(
                    f"{prefix}{name}", f"is no setting: {meant}Known here: {', '.join(known)}."
                )
        hints = get_type_hints(kind)
        values = {}
        for name, field in known.items():
            if name in content:
                values[name] = self._value(content[name], hints[name], f"{prefix}{name}")
            elif is_dataclass(hints[name]) and field.default_factory is not MISSING:
                values[name] = field.default_factory()
            elif field.default is MISSING and field.default_factory is MISSING:
                raise self._error(f"{prefix}{name}", "is missing: give it a value.")
        try:
            return kind(**values)
        except ConfigError:
            raise
        except ValueError as error:
            raise self._error(key, f"cannot be used: {error}") from error

    def _value(self, value: Any, hint: Any, key: str) -> Any:
        origin = get_origin(hint)
        if is_dataclass(hint):
            return self.build(value, hint, key)  # type: ignore[arg-type]
        if origin in (Union, types.UnionType):
            (inner,) = (x for x in get_args(hint) if x is not type(None))
            return None if value is None else self._value(value, inner, key)
        if origin is Literal:
            choices = get_args(hint)
            # YAML reads a bare `no` as false; one of our choices is that word.
            text = "no" if value is False and "no" in choices else value
            if text not in choices:
                raise self._error(key, f"is {value!r}, expected one of {', '.join(choices)}.")
            return text
        if origin is tuple:
            if not isinstance(value, list):
                raise self._error(key, f"is {value!r}, expected a list, as in [1, 2].")
            inner = get_args(hint)[0]
            return tuple(self._value(x, inner, f"{key}[{i}]") for i, x in enumerate(value))
        return self._plain(value, hint, key)

    def _plain(self, value: Any, hint: Any, key: str) -> Any:
        if hint is Path and isinstance(value, str):
            return self.path.parent / Path(value).expanduser()
        if hint is float and isinstance(value, str):
            # YAML takes 1e-4, which has no point, for a text.
            try:
                return float(value)
            except ValueError:
                pass
        is_bool = isinstance(value, bool)
        if hint is float and isinstance(value, (int, float)) and not is_bool:
            return float(value)
        if hint in (int, bool, str) and isinstance(value, hint) and is_bool == (hint is bool):
            return value
        expected = {int: "a whole number", float: "a number", bool: "true or false",
                    str: "a text", Path: "a path"}[hint]  # fmt: skip
        raise self._error(key, f"is {value!r}, expected {expected}.")
