# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of generated pictures against the truth, from the command line to the report."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

from pose_transfer.errors import MissingDependencyError, PoseTransferError
from pose_transfer.evaluation.cli import main
from pose_transfer.evaluation.folder import (
    MEASURES,
    FolderResult,
    Instruments,
    evaluate_folder,
    parse_size,
)
from pose_transfer.evaluation.folder_figures import worst_sheet
from pose_transfer.evaluation.folder_report import (
    markdown,
    scores_csv,
    summary_csv,
    write_folder_report,
)
from pose_transfer.evaluation.frechet import FrechetDistance, Inception
from pose_transfer.evaluation.pairing import FilePair, Matched, match_by_name, read_picture
from pose_transfer.evaluation.paper import RETRIEVAL, TABLES
from pose_transfer.evaluation.perceptual import PerceptualDistance
from pose_transfer.types import Person

COUNT = 6


class SmallInception(Inception):
    """Four features: the mean colour and the contrast."""

    num_features = 4
    name = "small"

    def forward(self, image_bchw: Tensor) -> Tensor:
        x = image_bchw.float() / 255
        return torch.cat([x.mean((2, 3)), x.std((1, 2, 3), keepdim=False)[:, None]], dim=1)


class MeanDifference(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().mean((1, 2, 3)).reshape(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs, the more noise the later; sources; eight training pictures of another size."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("made", "true", "source", "train"):
        (folder / name).mkdir()

    def scene(height: int = 72, width: int = 64) -> np.ndarray:
        noise = rng.uniform(0, 255, (height, width, 3))
        return ndimage.gaussian_filter(noise, (3, 3, 0)).astype(np.uint8) * 2

    for number in range(COUNT):
        truth = scene()
        noise = rng.normal(0, 3 + 6 * number, truth.shape)
        made = np.clip(truth + noise, 0, 255).astype(np.uint8)
        for kind, picture in (("true", truth), ("made", made), ("source", scene())):
            Image.fromarray(picture).save(folder / kind / f"p{number}.png")
    for number in range(8):
        Image.fromarray(scene(40, 30)).save(folder / "train" / f"t{number}.png")
    return folder


def instruments(data: Path) -> Instruments:
    return Instruments(
        SmallInception(), PerceptualDistance(MeanDifference()), train_reference=data / "train"
    )


@pytest.fixture(scope="module")
def result(data: Path) -> FolderResult:
    matched = match_by_name(data / "made", data / "true", data / "source")
    return evaluate_folder(matched, instruments(data), batch_size=4)


def test_every_pair_is_measured_as_by_scikit_image(data: Path, result: FolderResult) -> None:
    for number in range(COUNT):
        made, true = (np.asarray(Image.open(data / k / f"p{number}.png")) for k in ("made", "true"))
        expected = structural_similarity(
            true.astype(float), made.astype(float), gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, channel_axis=2, data_range=float(np.ptp(made)),
        )  # fmt: skip
        assert result.scores["ssim"][number] == pytest.approx(expected, abs=1e-6)
        psnr = peak_signal_noise_ratio(true, made)
        assert result.scores["psnr"][number] == pytest.approx(psnr, abs=1e-6)
        difference = np.abs(made.astype(float) - true).mean() / 127.5
        assert result.scores["lpips"][number] == pytest.approx(difference, abs=1e-6)
    assert set(result.scores) <= set(MEASURES) and (np.diff(result.scores["psnr"]) < 0).all()


def test_fid_counts_training_pictures_and_each_truth_once(data: Path, result: FolderResult) -> None:
    assert result.counts == {"fid_train": 8, "fid_test": COUNT}
    expected = FrechetDistance(4)
    for kind, reference in (("made", False), ("true", True)):
        pictures = [read_picture(path) for path in sorted((data / kind).iterdir())]
        batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        expected.add(SmallInception()(batch), reference)
    assert result.fid["fid_test"] == pytest.approx(expected.value(), rel=1e-6)
    assert result.fid["fid_train"] > result.fid["fid_test"] > 0
    shared = Matched(
        tuple(
            FilePair(f"x{n}", data / "made" / f"p{n}.png", data / "true" / f"p{n // 2}.png")
            for n in range(COUNT)
        )
    )
    counted = evaluate_folder(shared, Instruments(SmallInception()), batch_size=3).counts
    assert counted == {"fid_test": COUNT // 2}


def test_the_batch_size_does_not_matter(data: Path, result: FolderResult) -> None:
    again = evaluate_folder(result.matched, instruments(data), batch_size=1)
    for name, values in result.scores.items():
        np.testing.assert_allclose(again.scores[name], values, rtol=1e-5)
    for name, value in result.fid.items():
        assert again.fid[name] == pytest.approx(value, rel=1e-5)


def test_faces_and_hands_are_measured_where_the_truth_shows_them(data: Path) -> None:
    from tests.unit.test_evaluation_hands import hand, person
    from tests.unit.test_evaluation_person_measures import Encoder

    def somewhere(pair: FilePair, picture: np.ndarray) -> Person | None:
        return None if pair.name == "p0" else person(hand(30, 30))

    matched = match_by_name(data / "made", data / "true", data / "source")
    tools = Instruments(faces=Encoder(), truth_pose=somewhere, generated_pose=somewhere)
    scores = evaluate_folder(matched, tools).scores
    assert (scores["face_truth"] > 0.99).all() and (scores["face_source"] > 0.9).all()
    for name, value in (("hand_error", 0), ("hands_found", 1)):
        assert np.isnan(scores[name][0]) and (scores[name][1:] == value).all()
    assert np.isnan(scores["hand_ssim"][0]) and (np.diff(scores["hand_ssim"][1:]) < 0).all()


def test_resizing_brings_all_pictures_to_one_size(data: Path) -> None:
    matched = match_by_name(data / "made", data / "true")
    small = evaluate_folder(matched, instruments(data), size=(80, 70))
    assert small.sizes == {(80, 70): COUNT} and small.size == (80, 70)
    assert "80 x 70" in markdown(small)
    assert parse_size("512x352") == (512, 352)
    for text in ("512", "0x3", "axb", "-1x2", "1x2x3"):
        with pytest.raises(PoseTransferError, match="512x352"):
            parse_size(text)


def test_report_files(result: FolderResult, tmp_path: Path) -> None:
    written = write_folder_report(result, tmp_path / "new" / "out", worst=3)
    out = tmp_path / "new" / "out"
    assert {p.name for p in written} == {p.name for p in out.iterdir()}
    text = (out / "evaluation.md").read_text()
    for word in ("6 pairs", "FID to training pictures", "biased", "small", "72 x 64"):
        assert word in text, word
    assert "paper" not in text, "the paper measured no pictures of this size"
    for line in text.splitlines():
        if line.startswith("!["):
            assert (out / line.split("(")[-1].rstrip(")")).is_file()
    facts = json.loads((out / "evaluation.json").read_text())
    assert facts["pairs"] == COUNT and facts["fid"]["fid_train"]["reference_pictures"] == 8
    assert facts["measures"]["ssim"]["low"] < facts["measures"]["ssim"]["mean"]
    table = {row["measure"]: row for row in csv.DictReader((out / "evaluation.csv").open())}
    assert list(table) == [*facts["measures"], *facts["fid"]]
    for name, found in facts["measures"].items():
        for key in ("mean", "low", "high"):
            assert float(table[name][key]) == pytest.approx(found[key], abs=1e-6), name
        assert int(table[name]["pairs"]) == found["count"] == COUNT
    assert float(table["fid_train"]["mean"]) == pytest.approx(result.fid["fid_train"], abs=1e-6)
    assert table["fid_train"]["reference_pictures"] == "8" and table["fid_train"]["low"] == ""
    assert table["psnr"]["better"] == "more" and table["lpips"]["better"] == "less"
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [row["name"] for row in rows] == [f"p{n}" for n in range(COUNT)]
    assert float(rows[2]["psnr"]) == pytest.approx(result.scores["psnr"][2], abs=1e-5)
    for path in out.glob("*.png"):
        assert np.asarray(Image.open(path).convert("L")).std() > 5, f"{path} is blank"


def test_worst_sheet_begins_with_the_worst(data: Path, result: FolderResult) -> None:
    for name in ("psnr", "lpips"):
        sheet = worst_sheet(result, name, 1)
        assert sheet is not None
        worst = Image.open(data / "made" / f"p{COUNT - 1}.png")
        tile = np.asarray(worst.resize((228, 256), Image.Resampling.BICUBIC))
        place = np.asarray(sheet)[44 : 44 + 256, 12 + 230 : 12 + 230 + 228]
        assert np.array_equal(place, tile), name


def test_missing_values_leave_cells_empty() -> None:
    pairs = tuple(FilePair(n, Path(n), Path(n)) for n in ("a", "b"))
    scores = {"ssim": np.array([0.5, np.nan]), "psnr": np.array([np.inf, 20.0])}
    result = FolderResult(Matched(pairs), scores, {"fid_test": float("nan")}, {(512, 352): 2},
                          counts={"fid_test": 1})  # fmt: skip
    assert scores_csv(result).splitlines() == ["name,ssim,psnr", "a,0.500000,inf", "b,,20.000000"]
    assert summary_csv(result).splitlines()[2:] == [
        'psnr,"PSNR, dB",inf,inf,inf,2,,more',
        "fid_test,FID to the truth,,,,2,1,less",
    ]
    text = markdown(result)
    assert "| PSNR, dB | inf | - | 2 | more |" in text and "| FID to the truth | - |" in text
    assert (
        "not measured here" in text
        and "FPDM, B6 (paper) | 0.7487 | 18.197 | 0.1717 | 7.534 | 5.884 |" in text
    )


def test_paper_rows_have_known_measures() -> None:
    for table in TABLES:
        assert all(set(row) <= set(MEASURES) for row in table.rows.values())
    assert all(len(row) == 4 for row in RETRIEVAL.values())


def test_report_without_matplotlib_names_the_extra_and_writes_nothing(
    result: FolderResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"\.\[evaluation\]"):
        write_folder_report(result, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_prints_the_table_and_names_who_has_no_partner(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("generated,truth\np1.png,p1.png\np2.png,p2.png\n")
    folders = [str(data / "made"), str(data / "true")]
    out = str(tmp_path / "out")
    assert main(["folder", *folders, "--pairs", str(table), "--out", out, "--worst", "0"]) == 0
    said = capsys.readouterr()
    assert "| SSIM |" in said.out and "p0, p3, p4, p5" in said.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "evaluation.csv", "evaluation.json", "evaluation.md", "histograms.png", "scores.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fid-weights", "nowhere.pth"], "inception_v3_google"),
        (["--lpips-weights", "nowhere.pth"], "alexnet-owt"),
        (["--train-reference", "train"], "--fid-weights"),
        (["--generated-poses", "poses"], "--poses"),
        (["--poses", "nowhere"], "lacks the keypoints of 6"),
        (["--size", "large"], "512x352"),
        (["--faces", "nowhere"], "nowhere"),
    ],
)
def test_command_says_what_is_wrong(
    data: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["folder", str(data / "made"), str(data / "true"), *options]) == 1
    assert said in capsys.readouterr().err
