# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of model files, what nodes and the README say from it, and its command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pose_transfer.weights import MODELS, Model, WeightFile, cli, find_model, missing
from pose_transfer.weights.archive import place
from pose_transfer.weights.entries import readable_size
from pose_transfer.weights.listing import as_markdown, as_text

PACK = Path(__file__).resolve().parents[2]
BEGIN = "<!-- weights: made by python -m pose_transfer.weights list --markdown -->\n"
END = "\n<!-- end of weights -->"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_entry_is_complete_and_safe(model: Model) -> None:
    assert model.files and model.licence and model.needed_by
    for address in (model.source, *(part.url for part in model.downloads)):
        parts = urlsplit(address or "")
        assert parts.scheme == "https" and parts.hostname, address
    for part in (*model.downloads, *model.files):
        assert part.sha256 is None or re.fullmatch("[0-9a-f]{64}", part.sha256)
        assert part.size is None or part.size > 0
    for file in model.files:
        place(place(PACK, model.folder), file.path)
        assert file.url or model.archive


def test_no_two_entries_share_a_name_or_a_file() -> None:
    names = [model.name for model in MODELS]
    paths = [f"{model.folder}/{file.path}" for model in MODELS for file in model.files]
    assert len(set(names)) == len(names)
    assert len(set(paths)) == len(paths)


def test_insightface_is_marked_as_non_commercial() -> None:
    for name in ("antelopev2", "buffalo_l"):
        model = find_model(name)
        assert "non-commercial" in model.licence
        assert "NOT for commercial use" in model.terms
        assert "NOT for commercial use" in missing(name, [])


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no model called 'x'.*dwpose.*antelopev2"):
        find_model("x")


def test_a_missing_model_is_explained(tmp_path: Path) -> None:
    models = tmp_path / "ComfyUI" / "models"
    text = missing("dwpose", [tmp_path / "other", models / "pose_transfer" / "pose"])
    for words in (
        "yolox_l.onnx, dw-ll_ucoco_384.onnx",
        f"Searched: {tmp_path / 'other'}, {models / 'pose_transfer' / 'pose'}.",
        "Size: 351 MB",
        "Licence: Apache-2.0",
        "download dwpose",
        str(models),
        "https://huggingface.co/yzd-v/DWPose",
    ):
        assert words in text, words
    assert "yolox" not in missing("dwpose", [], files=["dw-ll_ucoco_384.onnx"])


def test_the_models_folder_is_told_from_a_parent_of_the_model_s_own(tmp_path: Path) -> None:
    text = missing("antelopev2", [tmp_path / "models" / "insightface"])
    assert f"--models {tmp_path / 'models'}\n" in text


@pytest.mark.parametrize("folder", ["models", "my models"])
def test_the_command_of_the_message_runs_anywhere(tmp_path: Path, folder: str) -> None:
    """By an isolated Python in another folder, as the one of ComfyUI for Windows is."""
    models = tmp_path / folder
    models.mkdir()
    text = missing("dwpose", [models / "pose_transfer" / "pose"])
    (command,) = (line.strip() for line in text.splitlines() if sys.executable in line)
    command = command.replace(" download ", " check ").replace(
        sys.executable, f"{sys.executable} -I"
    )
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""
    assert done.returncode == 1
    assert f"{models / 'pose_transfer' / 'pose' / 'yolox_l.onnx'}: not there" in done.stdout


def test_the_registry_needs_no_torch() -> None:
    code = "import sys, pose_transfer.weights.cli; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACK, check=True)
    assert done.stdout.strip() == "False"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import pose_transfer.weights

    with pytest.raises(AttributeError, match="nothing"):
        _ = pose_transfer.weights.nothing


def test_the_readme_has_the_table() -> None:
    readme = (PACK / "README.md").read_text(encoding="utf-8")
    assert readme.count(BEGIN) == readme.count(END) == 1
    shown = readme.partition(BEGIN)[2].partition(END)[0]
    assert shown == as_markdown(MODELS), "run python -m pose_transfer.weights list --markdown"


def test_unverified_models_are_said_to_be() -> None:
    files = (WeightFile("x.onnx", "https://a.example/x"),)
    model = Model("x", "x", files, "MIT", "a test", "https://a.example")
    assert "sha256   none published: unverified" in as_text([model])
    assert "none published: unverified" in as_markdown([model])
    assert "size     not published" in as_text([model])


@pytest.mark.parametrize(
    ("size", "words"),
    [(None, "not published"), (1727, "2 kB"), (351_145_849, "351 MB"), (2_528_373_448, "2.53 GB")],
)
def test_sizes_are_readable(size: int | None, words: str) -> None:
    assert readable_size(size) == words


def run(*arguments: str | os.PathLike[str]) -> int:
    return cli.main([os.fspath(argument) for argument in arguments])


def test_list_names_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    text = capsys.readouterr().out
    assert all(model.name in text and model.source in text for model in MODELS)
    assert run("list", "--markdown") == 0
    assert capsys.readouterr().out == as_markdown(MODELS) + "\n"


def test_check_fails_until_all_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--models", tmp_path) == 1
    assert capsys.readouterr().out.count("not there") == sum(len(m.files) for m in MODELS)
    folder = tmp_path / "pose_transfer" / "fpdm"
    folder.mkdir(parents=True)
    (folder / "fpdm_stage2.ckpt").write_bytes(b"x")
    assert run("check", "fpdm", "--models", tmp_path) == 0
    assert "unverified: sha256 2d711642b726b04401627ca9fbac32f5c8530fb1" in capsys.readouterr().out


def test_the_models_folder_must_be_known_and_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("check", "--models", tmp_path / "gone") == 1
    assert f"There is no folder {tmp_path / 'gone'}" in capsys.readouterr().err
    monkeypatch.setattr(cli, "PACK", tmp_path / "somewhere" / "pack")
    assert run("check") == 1
    assert "Add --models" in capsys.readouterr().err
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(cli, "PACK", tmp_path / "custom_nodes" / "pack")
    assert run("check", "dwpose") == 1
    assert f"{tmp_path / 'models' / 'pose_transfer'}" in capsys.readouterr().out


def test_download_shows_size_licence_and_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(model, models, progress):
        progress("a.onnx", 0, 2_000_000)
        progress("a.onnx", 1, 2_000_000)
        progress("a.onnx", 2_000_000, 2_000_000)
        return {models / "yolox_l.onnx": "12ab"}

    monkeypatch.setattr(cli, "download", fake)
    assert run("download", "dwpose", "--models", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "dwpose: 351 MB from https://huggingface.co/yzd-v/DWPose",
        "Licence: Apache-2.0",
        f"Folder: {tmp_path / 'pose_transfer' / 'pose'}",
        "a.onnx: 0 % of 2 MB",
        "a.onnx: 100 % of 2 MB",
        "yolox_l.onnx: sha256 12ab, as published",
    ]


def test_a_failed_download_is_said_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object) -> None:
        raise ValueError("No connection")

    monkeypatch.setattr(cli, "download", offline)
    assert run("download", "dwpose", "--models", tmp_path) == 1
    assert capsys.readouterr().err == "No connection\n"


def test_a_stopped_download_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "download", stopped)
    assert run("download", "dwpose", "--models", tmp_path) == 130
    assert "Run the same command again" in capsys.readouterr().err
