# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading a model file once. The module is read by path: its package needs the host."""

import importlib.util
import os
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[2] / "nodes" / "once.py"


@pytest.fixture
def load_once():
    spec = importlib.util.spec_from_file_location("once_under_test", _FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_once


class Reader:
    def __init__(self):
        self.reads = []

    def __call__(self, *paths):
        self.reads.append(paths)
        return object()


def test_unchanged_file_is_read_once(load_once, tmp_path):
    file, read = tmp_path / "a", Reader()
    file.write_text("a")
    assert load_once(read, file) is load_once(read, file)
    assert len(read.reads) == 1


def test_replaced_file_is_read_again(load_once, tmp_path):
    file, read = tmp_path / "a", Reader()
    file.write_text("a")
    first = load_once(read, file)
    file.write_text("b")
    os.utime(file, ns=(1, 1))
    assert load_once(read, file) is not first


def test_folder_counts_as_its_files(load_once, tmp_path):
    read = Reader()
    (tmp_path / "a").write_text("a")
    first = load_once(read, tmp_path)
    assert load_once(read, tmp_path) is first
    (tmp_path / "b").write_text("b")
    assert load_once(read, tmp_path) is not first


def test_only_the_latest_of_a_loader_is_kept(load_once, tmp_path):
    one, two, read = tmp_path / "1", tmp_path / "2", Reader()
    one.write_text("1")
    two.write_text("2")
    load_once(read, one)
    load_once(read, two)
    load_once(read, one)
    assert len(read.reads) == 3


def test_failed_load_is_tried_again(load_once, tmp_path):
    calls = []

    def fails():
        calls.append(1)
        raise OSError

    for _ in range(2):
        with pytest.raises(OSError):
            load_once(fails)
    assert len(calls) == 2
