# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and writing weight files: safetensors, and PyTorch pickles without running their code.

A file is recognised by its first bytes, never by its name. Whatever goes wrong with a file is a
`CheckpointError` that says which file it is, what is wrong with it and what to do.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..drafts import replacing
from ..errors import CheckpointError


@dataclass(frozen=True)
class Weights:
    """What a file holds: tensors by name (CPU, in the file's dtype) and its text metadata."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_weights(path: str | Path, wanted: Callable[[str], bool] = lambda name: True) -> Weights:
    """Read a safetensors file, a Lightning checkpoint or a pickled state dict.

    `wanted(name)` chooses the tensors; the others cost no memory. A pickle is read with
    weights-only loading: classes that only describe settings become inert placeholders, any other
    class is refused by name. Raises CheckpointError.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(
            f"Cannot read the weights file {path}: {error.strerror}. "
            "Put the file there, or choose one that exists."
        ) from error
    if head[8:9] == b"{":
        return _read_safetensors(path, wanted)
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return Weights(
            {k: v for k, v in _read_pickle(path).items() if wanted(k)},
            {},
        )
    raise CheckpointError(
        f"{path} is neither a safetensors file nor a PyTorch checkpoint: it begins with "
        f"{head[:24]!r}. It may be a web page or a Git LFS pointer; download the file itself."
    )


def write_weights(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, complete or not at all: under another name first, then renamed.

    The same tensors and metadata make the same bytes, in any order and process.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as draft:
        save_file(ready, draft, metadata=dict(metadata))
        _sort_metadata(draft)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and numbers."""
    out = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        out.update(name.encode())
        out.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return out.hexdigest()


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Give a module, which may have been built on the meta device, its parameters.

    Parameters take the tensors themselves, no copy. Raises CheckpointError, with `what` in it, for
    a name that is missing or unknown or a shape that does not fit.
    """
    try:
        module.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise CheckpointError(
            f"The weights of {what} do not fit its description: {' '.join(lines)[:600]} "
            "The file may be damaged, or made for another version of this model."
        ) from error
    hollow = [name for name, x in module.named_buffers() if x.is_meta]
    if hollow:
        raise CheckpointError(f"The weights of {what} lack the buffers {', '.join(hollow)}.")


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file by name; its library leaves the order to chance.

    The header is a length in 8 bytes and that much JSON, in which the tensors are sorted already.
    """
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        if not header.get("__metadata__"):
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > length:
            raise RuntimeError(f"The sorted header takes {len(text)} bytes, there are {length}.")
        file.seek(8)
        file.write(text.ljust(length))


def _read_safetensors(path: Path, wanted: Callable[[str], bool]) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if wanted(name)]  # noqa: SIM118 (not a mapping)
            return Weights({n: file.get_tensor(n) for n in names}, dict(file.metadata() or {}))
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is a damaged or incomplete safetensors file ({error}). Download it again."
        ) from error


class _Inert:
    """Stands in for a settings object inside a pickle: keeps no state, runs nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _InertMapping:
    """The same for a kind of dict: a plain one, the only one that the loader fills."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return {}


# What Lightning stores beside the tensors: settings and counters. None of it is imported or kept.
_SETTINGS_CLASSES = (
    "argparse.Namespace",
    "builtins.bool",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.str",
    "builtins.tuple",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.StringNode",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "typing.Any",
)
_MAPPING_CLASSES = (
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)


def _named_tensors(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors of a dict, and of dicts within it (`image_proj` and `ip_adapter` in IP-Adapter's
    files) as "outer.inner"."""
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, dict):
            yield from _named_tensors(value, f"{prefix}{name}.")


def _read_pickle(path: Path) -> dict[str, Tensor]:
    allowed: list[Any] = [(_Inert, name) for name in _SETTINGS_CLASSES]
    allowed += [(_InertMapping, name) for name in _MAPPING_CLASSES]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            reason = str(error).partition("WeightsUnpickler error:")[2] or str(error)
            raise CheckpointError(
                f"{path} cannot be read as weights only ({' '.join(reason.split())[:200]}). It is "
                "damaged or holds other objects: download it again, best as a safetensors file."
            ) from error
        raise CheckpointError(
            f"{path} was refused: it asks for {refused[1]}, which holds no weights and could run "
            "code. Use a file of tensors only, best a safetensors file, or ask its maker for one."
        ) from error
    except Exception as error:
        # Damaged bytes can lead a pickle anywhere: assertions, attributes, indices.
        raise CheckpointError(
            f"{path} is a damaged or incomplete PyTorch checkpoint "
            f"({str(error).splitlines()[0][:200] if str(error) else type(error).__name__}). "
            "Download it again."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not named weights.")
    tensors = dict(_named_tensors(content))
    if not tensors:
        raise CheckpointError(f"{path} holds no weights. Choose a model checkpoint.")
    return tensors
