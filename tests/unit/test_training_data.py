# SPDX-License-Identifier: GPL-3.0-or-later
"""Training data: two layouts, augmentation, batches; and what is said of bad files."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pose_transfer.errors import PoseTransferError
from pose_transfer.images import to_uint8
from pose_transfer.pose import BODY_NAMES
from pose_transfer.training.user.config import read_config
from pose_transfer.training.user.feed import Feed, Share
from pose_transfer.training.user.ipf import IPFSettings
from pose_transfer.training.user.layouts import DataError, Pair, read_pairs
from pose_transfer.training.user.settings import DataSettings
from pose_transfer.training.user.views import View, Views, on_canvas

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "training_data.py")))


def settings_of(folder: Path, data: dict[str, Any]) -> DataSettings:
    config = small.write_config(folder / "run.yaml", data, model={"fpdm": "none"})
    return read_config(config, IPFSettings).data


@pytest.fixture
def folder(tmp_path) -> DataSettings:
    return settings_of(tmp_path, small.write_folder(tmp_path))


@pytest.fixture
def deepfashion(tmp_path) -> DataSettings:
    return settings_of(tmp_path, small.write_deepfashion(tmp_path))


def body_of(pair: Pair) -> np.ndarray:
    pose = on_canvas(
        pair.target.pose(pair.where), small.HEIGHT, small.WIDTH, np.zeros((18, 2)), False
    )
    return pose.people[0].body


def test_both_layouts_give_the_same_pairs(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = settings_of(tmp_path / "a", small.write_folder(tmp_path / "a"))
    deep = settings_of(tmp_path / "b", small.write_deepfashion(tmp_path / "b"))
    pairs = [read_pairs(x, x.pairs) for x in (plain, deep)]
    assert len(pairs[0]) == len(pairs[1]) == small.PEOPLE * small.POSES
    for a, b in zip(*pairs, strict=True):
        for side in ("source", "target"):
            one, other = (np.asarray(getattr(p, side).image("")) for p in (a, b))
            assert np.array_equal(one, other)
        first, second = body_of(a), body_of(b)
        assert np.array_equal(first[:, 2] > 0, second[:, 2] > 0)
        # DeepFashion's table has whole pixels of a picture of 176x256, clipped to it.
        assert np.median(np.abs(first - second)[:, :2]) < 0.5


def test_keypoints_may_be_texts_of_18_rows(deepfashion):
    texts = deepfashion.images.parent / "texts"
    wanted = [body_of(x) for x in read_pairs(deepfashion, deepfashion.pairs)]
    assert deepfashion.keypoints is not None
    for line in deepfashion.keypoints.read_text().splitlines()[1:]:
        name, *numbers = line.split(": ")
        y, x = (json.loads(n) for n in numbers)
        person, pose = int(name[24:32]), int(name[32:34])
        path = texts / f"WOMEN/Tees_Tanks/id_{person:08d}/{pose:02d}_1_front.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = zip(x, y, strict=True)
        # 40 px to the left of the picture in its square frame.
        path.write_text("\n".join(f"{a + 40 if a >= 0 else a} {b}" for a, b in rows))
    settings = replace(deepfashion, keypoints=texts)
    got = [body_of(x) for x in read_pairs(settings, settings.pairs)]
    assert all(np.allclose(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_missing_picture_is_named_with_its_row(folder):
    (folder.images / "2_0.png").unlink()
    with pytest.raises(DataError) as caught:
        read_pairs(folder, folder.pairs)
    assert "pairs.csv, row 4: the source picture '2_0.png' is not in" in str(caught.value)
    assert "row 5: the target picture '2_0.png'" in str(caught.value)


@pytest.mark.parametrize("layout", ["folder", "deepfashion"])
def test_a_target_without_keypoints_is_named_with_its_row(layout, request):
    settings = request.getfixturevalue(layout)
    if layout == "folder":
        (settings.images / "1_1.json").unlink()
    else:
        text = settings.keypoints.read_text().splitlines()
        absent = str([-1] * 18)
        text[2] = f"{small.one_word(1, 1)}: {absent}: {absent}"
        settings.keypoints.write_text("\n".join(text))
    with pytest.raises(DataError, match=r"row 2: the (to|target) picture .* has no keypoints"):
        read_pairs(settings, settings.pairs)


def test_keypoints_without_a_person_are_named(folder):
    path = folder.images / "1_1.json"
    path.write_text('[{"canvas_width": 64, "canvas_height": 96, "people": []}]')
    pair = read_pairs(folder, folder.pairs)[0]
    with pytest.raises(DataError, match=r"pairs\.csv, row 2: the keypoints of .*1_1\.json cannot"):
        pair.target.pose(pair.where)


def test_openpose_files_without_a_canvas_use_the_pictures_size(folder):
    path = folder.images / "1_1.json"
    wanted = body_of(read_pairs(folder, folder.pairs)[0])
    frame = json.loads(path.read_text())[0]
    path.unlink()
    (folder.images / "1_1_keypoints.json").write_text(json.dumps({"people": frame["people"]}))
    assert np.allclose(body_of(read_pairs(folder, folder.pairs)[0]), wanted)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1_0.png,1_1.png\n", "columns source and target"),
        ("source,target\n", "holds no pairs"),
        ("source,target\n1_0.png,\n", "row 2: expected two names"),
    ],
)
def test_a_bad_list_of_pairs_is_refused(folder, text, words):
    folder.pairs.write_text(text)
    with pytest.raises(DataError, match=words):
        read_pairs(folder, folder.pairs)


def test_a_name_that_two_pictures_share_is_refused(deepfashion):
    path = deepfashion.images / "WOMEN/Tees_Tanks/id_00000001/01_1_front.png"
    path.with_suffix(".jpg").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="same letters and digits"):
        read_pairs(deepfashion, deepfashion.pairs)


def names_of(view: View) -> tuple[str, str]:
    return view.pair.source.path.name, view.pair.target.path.name


def test_every_pair_comes_once_in_an_epoch_and_always_at_the_same_place(folder):
    pairs = read_pairs(folder, folder.pairs)
    views = Views(pairs, replace(folder, identity=0.0), seed=3)
    first, second = ([names_of(views.at(e * 8 + i)) for i in range(8)] for e in range(2))
    assert len(set(first)) == len(set(second)) == 8 and first != second
    again = Views(pairs, replace(folder, identity=0.0), seed=3).at(11)
    there = views.at(11)
    assert torch.equal(again.source, there.source) and torch.equal(again.pose_map, there.pose_map)
    assert again.generator.initial_seed() == there.generator.initial_seed()


def test_a_mirrored_pair_is_mirrored_altogether(folder):
    pairs = read_pairs(folder, folder.pairs)
    plain, mirrored = (
        Views(pairs, replace(folder, flip=flip, jitter=0.0), seed=3).at(5) for flip in (0.0, 1.0)
    )
    assert torch.equal(mirrored.source, plain.source.flip(2))
    assert torch.equal(mirrored.target(), plain.target().flip(2))
    pose = pairs[0].target.pose("")
    nothing = np.zeros((18, 2))
    there = on_canvas(pose, 96, 64, nothing, False).people[0].body
    mirror = on_canvas(pose, 96, 64, nothing, True).people[0].body
    left, right = (BODY_NAMES.index(f"{side}_wrist") for side in ("left", "right"))
    assert mirror[left, 0] == pytest.approx(63 - there[right, 0])
    assert mirror[right, 1] == there[left, 1]
    assert np.array_equal(
        on_canvas(pose, 96, 64, nothing, True).people[0].body[0, 1:], there[0, 1:]
    )


def test_jitter_moves_present_points_only():
    points = np.zeros((18, 3), np.float32)
    points[:9] = 30, 40, 1
    person = SimpleNamespace(width=64, height=96, people=(SimpleNamespace(body=points),))
    noise = np.random.default_rng(0).normal(0, 1, (18, 2))
    moved = on_canvas(person, 96, 64, noise, False).people[0].body  # type: ignore[arg-type]
    assert np.allclose(moved[:9, :2] - points[:9, :2], noise[:9], atol=1e-5)
    assert not moved[9:].any()


def test_shares_of_augmentation_are_as_set(folder):
    pairs = read_pairs(folder, folder.pairs)
    views = Views(pairs, replace(folder, flip=0.25, identity=0.3), seed=1)
    seen = [views.at(i) for i in range(160)]
    assert np.mean([v.flipped for v in seen]) == pytest.approx(0.25, abs=0.09)
    assert np.mean([v.pair.source == v.pair.target for v in seen]) == pytest.approx(0.3, abs=0.1)
    assert {v.source.shape[1] for v in seen} == {32, 48}


def inputs(view: View) -> dict[str, torch.Tensor]:
    return {"source": view.source.sum()[None], "noise": torch.randn(2, generator=view.generator)}


def feed_of(settings: DataSettings, processes: int = 1, index: int = 0) -> Feed:
    views = Views(read_pairs(settings, settings.pairs), settings, seed=0)
    share = Share.of(batch=8, accumulation=2, processes=processes, index=index)
    return Feed(views, inputs, share, torch.device("cpu"))


def test_processes_share_what_one_process_sees(folder):
    one = feed_of(folder)
    two = [feed_of(folder, 2, index) for index in range(2)]
    for call in range(3):
        whole = one.batch(call)
        parts = [feed.batch(call) for feed in two]
        for name, x in whole.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), x)
    assert torch.equal(feed_of(folder).batch(2)["noise"], whole["noise"])


def test_readers_in_other_processes_give_the_same(folder):
    here, there = feed_of(folder), feed_of(replace(folder, workers=1))
    for call in (4, 5):
        assert torch.equal(here.batch(call)["source"], there.batch(call)["source"])


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(PoseTransferError, match="cannot be split over 3"):
        Share.of(8, 2, 3, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_is_named_with_its_row(folder, workers):
    (folder.images / "3_0.png").write_bytes(b"\x89PNG broken")
    feed = feed_of(replace(folder, workers=workers))
    with pytest.raises(DataError, match=r"pairs\.csv, row [67]: The picture .*3_0\.png cannot be"):
        for call in range(4):
            feed.batch(call)


def test_transparency_lies_over_white(folder):
    from PIL import Image

    Image.new("RGBA", (64, 96), (255, 0, 0, 0)).save(folder.images / "1_0.png")
    view = Views(read_pairs(folder, folder.pairs), folder, 0).plain(
        read_pairs(folder, folder.pairs)[0], 0
    )
    assert (to_uint8(view.source) == 255).all()


def test_a_photo_lying_on_its_side_is_seen_upright(folder):
    from PIL import Image

    wanted = Views(read_pairs(folder, folder.pairs), folder, 0).plain(
        read_pairs(folder, folder.pairs)[0], 0
    )
    exif = Image.Exif()
    exif[0x0112] = 8
    for name in ("1_0", "1_1"):
        path = folder.images / f"{name}.png"
        Image.open(path).transpose(Image.Transpose.ROTATE_270).save(path, exif=exif)
        frame = json.loads(path.with_suffix(".json").read_text())[0]
        path.with_suffix(".json").write_text(json.dumps({"people": frame["people"]}))
    view = Views(read_pairs(folder, folder.pairs), folder, 0).plain(
        read_pairs(folder, folder.pairs)[0], 0
    )
    assert torch.equal(view.source, wanted.source) and torch.equal(view.target(), wanted.target())
    assert torch.equal(view.pose_map, wanted.pose_map)
