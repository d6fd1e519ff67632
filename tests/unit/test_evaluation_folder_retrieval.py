# SPDX-License-Identifier: GPL-3.0-or-later
"""Retrieval on a folder of pairs, with the demo's own FPDM and with a toy."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from pose_transfer.errors import PoseTransferError
from pose_transfer.evaluation.cli import main
from pose_transfer.evaluation.folder_retrieval import evaluate_retrieval, read_queries
from pose_transfer.mannequin import pairs
from pose_transfer.pose import draw, write_keypoints


class Toy:
    """Embeds a picture as its mean colour; fuses by adding the pose map's."""

    def embed_image(self, image: Tensor) -> Tensor:
        return image.mean((1, 2)) - 0.4

    def embed_pose(self, pose_map: Tensor) -> Tensor:
        return pose_map.mean((1, 2))

    def combine(self, source: Tensor, pose: Tensor) -> Tensor:
        return source + pose


def put(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 8), colour).save(path)


def test_a_source_that_is_also_a_target_is_in_the_gallery_once(tmp_path: Path) -> None:
    put(tmp_path / "a.png", (120, 90, 100))
    put(tmp_path / "b.png", (180, 90, 100))
    put(tmp_path / "c.png", (120, 90, 160))
    put(tmp_path / "right.png", (60, 0, 0))
    put(tmp_path / "up.png", (0, 0, 60))
    put(tmp_path / "left_up.png", (0, 0, 60))
    (tmp_path / "pairs.csv").write_text(
        "source,target,pose\na.png,b.png,right.png\na.png,c.png,up.png\nb.png,c.png,left_up.png\n"
    )
    queries = read_queries(tmp_path)
    scores = evaluate_retrieval(cast(Any, Toy()), queries, "cpu", batch_size=2)
    assert scores["fusion"]["targets"].gallery == 2
    assert scores["fusion"]["targets and sources"].gallery == 3
    assert scores["fusion"]["targets"].queries == 3
    assert scores["fusion"]["targets and sources"].r3 == 1.0
    assert scores["source"]["targets and sources"].r1 == 0.0, "a source finds itself first"


def test_demo_model_finds_mannequins_from_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    lines = ["source,target,pose"]
    for number, pair in enumerate(pairs("test", 6)):
        for kind, picture in (("s", pair.source.image), ("t", pair.target.image)):
            Image.fromarray(picture).save(images / f"{kind}{number}.png")
        height, width = pair.target.parsing.shape

        keypoints = json.dumps(write_keypoints([pair.target.pose]))
        if number == 0:
            drawn = draw(pair.target.pose, height, width, "fpdm")
            Image.fromarray(drawn).save(images / "drawn.png")
        ending = "_keypoints.json" if number % 2 else ".json"
        (images / f"t{number}{ending}").write_text(keypoints)
        lines.append(f"s{number}.png,t{number}.png,{'' if number else 'drawn.png'}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    out = tmp_path / "new" / "out"
    assert (
        main(["retrieval", "demo", str(tmp_path), "--images", str(images), "--out", str(out)]) == 0
    )
    said = capsys.readouterr().out
    assert "12 pictures; 6 queries" in said and "(paper) | 0.997" in said
    scores = json.loads((out / "retrieval.json").read_text())
    assert scores["fusion"]["targets and sources"]["r1"] >= 5 / 6
    assert scores["source"]["targets and sources"]["r1"] == 0
    assert np.isclose(scores["fusion"]["targets"]["mean_rank"], 1, atol=0.5)
    text = (out / "retrieval.md").read_text()
    assert "12 pictures; 6 queries" in text and "(paper) | 0.997" in text
    assert text.count("| fusion |") == text.count("| source |") == 2
    rows = list(csv.DictReader((out / "retrieval.csv").open()))
    assert len(rows) == 4
    for row in rows:
        found = scores[row["method"]][row["gallery"]]
        for name in ("r1", "r3", "r5", "mean_rank"):
            assert np.isclose(float(row[name]), found[name], atol=1e-6), name
        assert int(row["queries"]) == 6 and int(row["gallery_pictures"]) == found["gallery"]


def test_a_folder_without_its_table_or_files_is_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PoseTransferError, match=r"pairs\.csv cannot be read"):
        read_queries(tmp_path)
    (tmp_path / "pairs.csv").write_text("source,target,pose\na.png,b.png,c.json\n")
    assert main(["retrieval", "demo", str(tmp_path)]) == 1
    assert "3 files that are not there" in capsys.readouterr().err
    asked = ["retrieval", "demo", str(tmp_path), "--out", str(tmp_path / "pairs.csv")]
    assert main(asked) == 1
    assert "is a file, expected a folder" in capsys.readouterr().err
