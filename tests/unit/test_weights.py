# SPDX-License-Identifier: GPL-3.0-or-later
"""Weight files: what is read, what is refused, and what is said about a bad one."""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import pathlib
import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pose_transfer.errors import CheckpointError
from pose_transfer.weights import fingerprint, load_into, read_weights, with_prefix, write_weights


def tensors() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(2, dtype=torch.float16)}


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, x in expected.items():
        assert got[name].dtype == x.dtype and torch.equal(got[name], x), name


def test_written_file_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "w.safetensors"
    write_weights(path, tensors(), {"format": "x"})
    weights = read_weights(path)
    assert_same(weights.tensors, tensors())
    assert weights.metadata == {"format": "x"}
    assert os.listdir(path.parent) == ["w.safetensors"]


def test_a_fingerprint_is_of_names_and_numbers() -> None:
    found = fingerprint(tensors())
    assert fingerprint(dict(reversed(tensors().items()))) == found
    renamed = {name.replace("a", "c"): x for name, x in tensors().items()}
    changed = tensors()
    changed["b.bias"][1] += 2**-10
    scalar = {"x": torch.tensor(1.0, dtype=torch.bfloat16)}
    assert len({found, *map(fingerprint, (renamed, changed, scalar))}) == 4


def test_same_content_makes_the_same_bytes(tmp_path: Path) -> None:
    metadata = {f'{i} \u00e4\u59ff\x1f\x7f\n"\\': f"\U0001f600 {{{i}}}\t/" for i in range(20)}
    written = []
    for step in (1, -1, 1, -1):
        turned = dict(list(tensors().items())[::step])
        write_weights(tmp_path / "w", turned, dict(list(metadata.items())[::step]))
        written.append((tmp_path / "w").read_bytes())
    assert len(set(written)) == 1
    weights = read_weights(tmp_path / "w")
    assert_same(weights.tensors, tensors())
    assert weights.metadata == metadata


def test_views_and_parameters_can_be_written(tmp_path: Path) -> None:
    linear = nn.Linear(2, 3)
    write_weights(tmp_path / "w", {"x": linear.weight.T}, {})
    assert torch.equal(read_weights(tmp_path / "w").tensors["x"], linear.weight.T)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, tensors(), {})

    def disk_full(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pose_transfer.weights.files.save_file", disk_full)
    with pytest.raises(OSError, match="disk full"):
        write_weights(path, {"c": torch.zeros(1)}, {})
    assert_same(read_weights(path).tensors, tensors())
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_kind_is_told_by_content_and_only_wanted_tensors_are_read(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "safetensors.ckpt")
    torch.save({"state_dict": tensors()}, tmp_path / "pickle.safetensors")
    for name in ("safetensors.ckpt", "pickle.safetensors"):
        weights = read_weights(tmp_path / name, lambda n: n.startswith("b."))
        assert_same(weights.tensors, {"b.bias": tensors()["b.bias"]})


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_state_dict_is_read(tmp_path: Path, zipped: bool) -> None:
    torch.save(
        collections.OrderedDict(tensors()),
        tmp_path / "w.pt",
        _use_new_zipfile_serialization=zipped,
    )
    assert_same(read_weights(tmp_path / "w.pt").tensors, tensors())


def test_lightning_checkpoint_with_settings_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings of libraries that are not installed neither matter nor are imported."""
    parsing = "pytorch_lightning.utilities.parsing"
    names = ("omegaconf", "omegaconf.dictconfig", *itertools.accumulate(
        parsing.split("."), "{}.{}".format))  # fmt: skip
    modules: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    config_class = type("DictConfig", (), {"__module__": "omegaconf.dictconfig"})
    dict_class = type("AttributeDict", (dict,), {"__module__": parsing})
    modules["omegaconf.dictconfig"].DictConfig = config_class
    modules[parsing].AttributeDict = dict_class
    settings: Any = config_class()
    settings._content = {"lr": 1e-4}
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.2.1",
        "loops": {"fit_loop": {"state_dict": {}}},
        "optimizer_states": [{"param_groups": [{"lr": np.float64(1e-4)}]}],
        "callbacks": collections.defaultdict(list, {"scores": [np.float32(0.5)]}),
        "hyper_parameters": {
            "args": argparse.Namespace(lr=1e-4, root=pathlib.PurePosixPath("/data")),
            "config": settings,
            "more": dict_class(batch_size=42),
        },
        "hparams_type": config_class,
        "state_dict": tensors(),
    }
    with monkeypatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        torch.save(content, tmp_path / "last.ckpt")
    assert "omegaconf" not in sys.modules
    assert_same(read_weights(tmp_path / "last.ckpt").tensors, tensors())
    assert "omegaconf" not in sys.modules


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.fspath(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "evil.ckpt"
    torch.save(
        {"state_dict": tensors(), "callbacks": Malicious(tmp_path / "was run")},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(CheckpointError, match=r"evil\.ckpt was refused.* (posix|nt)\.mkdir,"):
        read_weights(path)
    assert not (tmp_path / "was run").exists()


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "half":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "zeros":
        path.write_bytes(content[:40] + bytes(len(content) - 40))
    else:
        path.write_bytes(content[:12])


@pytest.mark.parametrize("kind", ["half", "zeros", "head"])
@pytest.mark.parametrize("format", ["safetensors", "zip", "legacy"])
def test_damaged_file_says_download_again(tmp_path: Path, format: str, kind: str) -> None:
    path = tmp_path / "w.bin"
    many = {f"layer.{i}.weight": torch.randn(8, 8) for i in range(8)}
    if format == "safetensors":
        save_file(many, path)
    else:
        torch.save(many, path, _use_new_zipfile_serialization=format == "zip")
    damage(path, kind)
    with pytest.raises(CheckpointError, match=r"w\.bin.*[Dd]ownload"):
        read_weights(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_changed_bytes_end_in_our_error_if_in_any(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pt"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
    content, chance = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(80):
        changed = bytearray(content)
        changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            read_weights(path)
        except CheckpointError:
            refused += 1
    assert refused > 0


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.safetensors: No such file.*Put the file"):
        read_weights(tmp_path / "no.safetensors")
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="web page or a Git LFS pointer"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [{"epoch": 1}, [1, 2]])
def test_pickle_without_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"holds (no weights|a list)"):
        read_weights(tmp_path / "w.pt")


def test_prefix() -> None:
    assert with_prefix({"a.b.c": torch.ones(1), "ab.c": torch.ones(1)}, "a.").keys() == {"b.c"}


def test_load_into_takes_the_tensors_and_names_what_is_wrong() -> None:
    with torch.device("meta"):
        linear = nn.Linear(2, 3)
    good = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    load_into(linear, good, "the layer")
    assert linear.weight.data_ptr() == good["weight"].data_ptr()
    for bad, name in (
        ({"weight": good["weight"]}, "bias"),
        ({**good, "extra": torch.ones(1)}, "extra"),
        ({**good, "bias": torch.zeros(4)}, "bias"),
    ):
        with pytest.raises(CheckpointError, match=f"the layer do not fit.*{name}"):
            load_into(linear, bad, "the layer")


def test_load_into_finds_buffers_that_no_file_holds() -> None:
    with torch.device("meta"):
        module = nn.Linear(1, 1)
        module.register_buffer("table", torch.zeros(1), persistent=False)
    with pytest.raises(CheckpointError, match="lack the buffers table"):
        load_into(module, {"weight": torch.ones(1, 1), "bias": torch.ones(1)}, "the layer")
