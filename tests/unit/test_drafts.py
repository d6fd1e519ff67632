# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all."""

import os

import pytest

from pose_transfer.drafts import replacing


def test_block_that_ends_well_replaces_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_failed_block_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_longest_name_of_the_disk_is_fine(tmp_path):
    path = tmp_path / ("x" * 255)
    with replacing(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "new"
