# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole models: what is fetched, kept, unpacked and refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pose_transfer.weights import Archive, Model, WeightFile
from pose_transfer.weights import download as module
from pose_transfer.weights.archive import place, unpack
from pose_transfer.weights.download import check, download
from pose_transfer.weights.transfer import DownloadError, Progress, silent

ONE, TWO = b"one" * 100, b"two" * 200
FILES = (
    WeightFile("det.onnx", None, len(ONE), hashlib.sha256(ONE).hexdigest()),
    WeightFile("rec.onnx", None, len(TWO), hashlib.sha256(TWO).hexdigest()),
)


def zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return data.getvalue()


GOOD_ZIP = zipped({"pack/det.onnx": ONE, "pack/rec.onnx": TWO, "pack/unknown.onnx": b"other"})


def model(*files: WeightFile, packed: bytes | None = None) -> Model:
    archive = packed and Archive(
        "https://a.example/pack.zip", len(packed), hashlib.sha256(packed).hexdigest()
    )
    return Model(
        "pack", "faces/models/pack", files, "MIT", "a test", "https://a.example", archive or None
    )


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], list[str]]:
    """`web({address: content})` puts that in place of the network; returns what is asked for."""

    def serve(pages: dict[str, bytes]) -> list[str]:
        asked: list[str] = []

        def fetch(
            url: str, target: Path, size: int | None, sha256: str | None,
            progress: Progress = silent,
        ) -> str:  # fmt: skip
            asked.append(url)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(pages[url])
            return hashlib.sha256(pages[url]).hexdigest()

        monkeypatch.setattr(module, "fetch", fetch)
        return asked

    return serve


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_only_what_lacks_is_fetched_and_what_is_there_is_checked(web, tmp_path: Path) -> None:
    files = tuple(dataclasses.replace(f, url=f"https://a.example/{f.path}") for f in FILES)
    asked = web({files[1].url: TWO})
    folder = tmp_path / "faces" / "models" / "pack"
    folder.mkdir(parents=True)
    (folder / "det.onnx").write_bytes(ONE)
    got = download(model(*files), tmp_path)
    assert asked == [files[1].url]
    assert got == {folder / f.path: f.sha256 for f in FILES}
    assert [state.words for state in check(model(*files), tmp_path)] == ["there, as published"] * 2


def test_a_file_that_is_there_is_never_overwritten(web, tmp_path: Path) -> None:
    asked = web({})
    folder = tmp_path / "faces" / "models" / "pack"
    folder.mkdir(parents=True)
    (folder / "det.onnx").write_bytes(b"the artist's own")
    with pytest.raises(DownloadError, match=r"det\.onnx is there already but is not.*Move it away"):
        download(model(*FILES, packed=GOOD_ZIP), tmp_path)
    assert asked == []
    assert contents(folder) == {"det.onnx": b"the artist's own"}


@pytest.mark.parametrize("nested", ["", "pack/", "a/deep/folder/"])
def test_an_archive_is_unpacked_flat_and_deleted(web, tmp_path: Path, nested: str) -> None:
    """antelopev2's files lie in a folder of its zip, buffalo_l's do not."""
    data = zipped({f"{nested}det.onnx": ONE, f"{nested}rec.onnx": TWO, f"{nested}more": b"x"})
    asked = web({"https://a.example/pack.zip": data})
    download(model(*FILES, packed=data), tmp_path)
    assert contents(tmp_path) == {
        "faces/models/pack/det.onnx": ONE,
        "faces/models/pack/rec.onnx": TWO,
    }
    download(model(*FILES, packed=data), tmp_path)
    assert len(asked) == 1


def test_an_archive_brought_by_hand_is_taken(web, tmp_path: Path) -> None:
    asked = web({})
    (tmp_path / "faces" / "models").mkdir(parents=True)
    (tmp_path / "faces" / "models" / "pack.zip").write_bytes(GOOD_ZIP)
    download(model(*FILES, packed=GOOD_ZIP), tmp_path)
    assert asked == []
    assert len(contents(tmp_path)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "../rec.onnx",
        "/rec.onnx",
        "pack/../../rec.onnx",
        "C:\\rec.onnx",
        "..\\rec.onnx",
        "C:rec.onnx",
    ],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "models" / "pack.zip"
    archive.parent.mkdir()
    archive.write_bytes(zipped({"det.onnx": ONE, name: TWO}))
    targets = {file: tmp_path / "models" / "pack" / file.path for file in FILES}
    with pytest.raises(DownloadError, match="is refused: it leads out of"):
        unpack(archive, targets)
    assert list(contents(tmp_path)) == ["models/pack.zip"]


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "pack.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        link = zipfile.ZipInfo("det.onnx")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(DownloadError, match=r"holds the link 'det\.onnx': refused"):
        unpack(archive, {FILES[0]: tmp_path / "det.onnx"})
    assert not (tmp_path / "det.onnx").exists()


BAD_ZIPS = {
    "no archive": (b"<html>", "no complete zip archive"),
    "cut off": (GOOD_ZIP[: len(GOOD_ZIP) // 2], "no complete zip archive"),
    "a file lacks": (zipped({"det.onnx": ONE}), r"holds nothing as rec\.onnx"),
    "another size": (zipped({"det.onnx": ONE, "rec.onnx": b"short"}), "holds 5 bytes as"),
    "another content": (zipped({"det.onnx": ONE, "rec.onnx": TWO[::-1]}), "has the sha256"),
    "twice": (zipped({"det.onnx": ONE, "a/rec.onnx": TWO, "b/rec.onnx": TWO}), "twice"),
}


@pytest.mark.parametrize("kind", BAD_ZIPS)
def test_a_bad_archive_leaves_no_file(tmp_path: Path, kind: str) -> None:
    data, sentence = BAD_ZIPS[kind]
    archive = tmp_path / "pack.zip"
    archive.write_bytes(data)
    with pytest.raises(DownloadError, match=sentence):
        unpack(archive, {file: tmp_path / "pack" / file.path for file in FILES})
    assert list(contents(tmp_path)) == ["pack.zip"]


def test_a_damaged_member_leaves_no_file(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("det.onnx", ONE)
        packed.writestr("rec.onnx", TWO)
    archive = tmp_path / "pack.zip"
    archive.write_bytes(data.getvalue().replace(b"twotwotwo", b"twoTWOtwo", 1))
    with pytest.raises(DownloadError, match="no complete zip archive"):
        unpack(archive, {file: tmp_path / "pack" / file.path for file in FILES})
    assert list(contents(tmp_path)) == ["pack.zip"]


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/x", "a//x", "", ".", "a\\..\\x", "C:/x", "C:x", "a/x:stream"]
)
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DownloadError, match="leads out of"):
        place(tmp_path, path)


def test_a_model_that_leads_out_of_the_models_folder_is_refused(web, tmp_path: Path) -> None:
    asked = web({})
    for folder, path in (("../else", "x"), ("pack", "../../x")):
        bad = dataclasses.replace(model(WeightFile(path, "https://a.example/x")), folder=folder)
        with pytest.raises(DownloadError, match="leads out of"):
            download(bad, tmp_path)
    assert asked == []


def test_check_tells_the_states_apart(tmp_path: Path) -> None:
    unverified = WeightFile("new.onnx", "https://a.example/new.onnx")
    pack = model(*FILES, unverified)
    folder = tmp_path / "faces" / "models" / "pack"
    assert [state.words for state in check(pack, tmp_path)] == ["not there"] * 3
    folder.mkdir(parents=True)
    (folder / "det.onnx.partial").write_bytes(ONE[:100])
    (folder / "rec.onnx").write_bytes(b"other")
    (folder / "new.onnx").write_bytes(b"new")
    first, second, third = check(pack, tmp_path)
    assert (first.right, first.words) == (False, "incomplete, 0 kB of 0 kB")
    assert not second.right and second.words.startswith("another file: sha256 ")
    assert third.right
    assert third.words == (
        f"there, unverified: sha256 {hashlib.sha256(b'new').hexdigest()}, none was published"
    )
