# SPDX-License-Identifier: GPL-3.0-or-later
"""Which picture belongs to which, and what is said of those that belong to none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pose_transfer.errors import PoseTransferError
from pose_transfer.evaluation.pairing import (
    match_by_name,
    match_by_table,
    picture_size,
    read_picture,
    require_equal_sizes,
)


def put(path: Path, height: int = 24, width: int = 16, shade: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (shade, 0, 0)).save(path)
    return path


def test_names_match_over_suffixes_and_folders_and_the_rest_is_named(tmp_path: Path) -> None:
    made, true, source = (tmp_path / name for name in ("made", "true", "source"))
    for name in ("a.png", "sub/b.png", "only_made.png", ".hidden.png"):
        put(made / name)
    for name in ("a.jpg", "sub/b.webp", "only_true.png"):
        put(true / name)
    put(source / "a.png")
    (made / "notes.txt").write_text("no picture")
    matched = match_by_name(made, true, source)
    assert [pair.name for pair in matched.pairs] == ["a", "sub/b"]
    assert matched.pairs[1].truth == true / "sub" / "b.webp"
    assert matched.pairs[0].source == source / "a.png" and matched.pairs[1].source is None
    assert (matched.without_truth, matched.without_generated) == (("only_made",), ("only_true",))
    remarks = " ".join(matched.remarks())
    assert all(name in remarks for name in ("only_made", "only_true", "sub/b"))


def test_folders_that_cannot_be_matched_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "made" / "a.png")
    put(tmp_path / "true" / "b.png")
    with pytest.raises(PoseTransferError, match=r"(?s)\(a\).*\(b\).*--pairs"):
        match_by_name(tmp_path / "made", tmp_path / "true")
    with pytest.raises(PoseTransferError, match="no folder"):
        match_by_name(tmp_path / "made", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoseTransferError, match="holds no picture"):
        match_by_name(tmp_path / "made", tmp_path / "empty")
    put(tmp_path / "made" / "a.jpg")
    with pytest.raises(PoseTransferError, match=r"a\.jpg and a\.png"):
        match_by_name(tmp_path / "made", tmp_path / "true")


def test_a_table_pairs_any_names(tmp_path: Path) -> None:
    made, true = tmp_path / "made", tmp_path / "true"
    for path in (made / "s_2_t.png", made / "left.png", true / "id" / "t.jpg"):
        put(path)
    table = tmp_path / "pairs.csv"
    table.write_text("generated,truth,source\ns_2_t.png,id/t.jpg,s.jpg\n", encoding="utf-8-sig")
    matched = match_by_table(table, made, true)
    assert [(p.name, p.truth.name, p.source) for p in matched.pairs] == [("s_2_t", "t.jpg", None)]
    assert matched.without_truth == ("left",)
    with pytest.raises(PoseTransferError, match=r"s\.jpg"):
        match_by_table(table, made, true, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("made,true\n", "lacks generated, truth"),
        ("generated,truth\n", "no line below"),
        ("generated,truth\nx.png,\n", "line 2: truth is empty"),
        ("generated,truth\nx.png\n", "line 2: truth is empty"),
        ("generated,truth\nx.png,y.png\n", "2 files that are not there"),
        ("\0", "CSV|lacks"),
    ],
)
def test_a_bad_table_is_described(tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(PoseTransferError, match=said):
        match_by_table(table, tmp_path, tmp_path)


def test_sizes_that_differ_are_said_and_resized_only_when_asked(tmp_path: Path) -> None:
    put(tmp_path / "made" / "a.png", 24, 16)
    put(tmp_path / "true" / "a.png", 48, 32)
    pairs = match_by_name(tmp_path / "made", tmp_path / "true").pairs
    with pytest.raises(PoseTransferError, match=r"a \(24x16 and 48x32\).*--size"):
        require_equal_sizes(pairs)
    assert read_picture(pairs[0].truth).shape == (48, 32, 3)
    assert read_picture(pairs[0].truth, (24, 16)).shape == (24, 16, 3)


def test_resizing_is_pils_bicubic(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (31, 23, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    expected = Image.fromarray(noise).resize((10, 20), Image.Resampling.BICUBIC)
    assert np.array_equal(read_picture(tmp_path / "x.png", (20, 10)), np.asarray(expected))


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_picture_is_named(tmp_path: Path, damage: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = tmp_path / "broken.png"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000] if damage == "cut" else b"hello")
    with pytest.raises(PoseTransferError, match=r"broken\.png cannot be read"):
        read_picture(path)


def test_pictures_are_read_upright_and_over_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    lying = Image.new("RGBA", (24, 16), (9, 9, 9, 0))
    (tmp_path / "made").mkdir()
    lying.save(tmp_path / "made" / "a.png", exif=exif)
    put(tmp_path / "true" / "a.png")
    assert picture_size(tmp_path / "made" / "a.png") == (24, 16)
    picture = read_picture(tmp_path / "made" / "a.png")
    assert picture.shape == (24, 16, 3) and (picture == 255).all()
    pairs = match_by_name(tmp_path / "made", tmp_path / "true").pairs
    require_equal_sizes(pairs)
