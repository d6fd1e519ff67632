# SPDX-License-Identifier: GPL-3.0-or-later
"""Training: the loop resumes exactly, the data are right, and the stages fit together."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from pose_transfer.demo.architecture import UNET
from pose_transfer.demo.models import load_base
from pose_transfer.evaluation.models import TinyAutoencoder
from pose_transfer.fpdm import load_checkpoint
from pose_transfer.mannequin import render
from pose_transfer.pose import draw
from pose_transfer.training import demo, export
from pose_transfer.training.autoencoder import TrainableAutoencoder
from pose_transfer.training.correspondence import wanted_attention
from pose_transfer.training.loop import learning_rate, train
from pose_transfer.training.settings import SMOKE, StageSettings
from pose_transfer.training.world import render_world

TOY = StageSettings(steps=40, batch=8, learning_rate=0.05, warm_up=5, ema_decay=0.9)


def _toy_loss(module, step, generator):
    x = torch.randn(8, 3, generator=generator)
    loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
    return loss, {}


def _toy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def _run(folder, **options) -> torch.Tensor:
    return train("toy", _toy(), _toy_loss, TOY, Accelerator(cpu=True), folder, **options).weight


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    whole = _run(tmp_path / "whole").detach().clone()
    _run(tmp_path / "parts", until=17)
    _run(tmp_path / "parts", until=18)
    assert torch.equal(_run(tmp_path / "parts"), whole)
    assert (whole - _toy().weight).abs().max() > 0.3


def test_a_torn_checkpoint_is_never_left_behind(tmp_path, monkeypatch):
    _run(tmp_path, until=10)
    good = (tmp_path / "toy.pt").read_bytes()

    def torn(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, until=20)
    assert (tmp_path / "toy.pt").read_bytes() == good


def test_a_finished_run_trains_no_further(tmp_path):
    first = _run(tmp_path).detach().clone()
    lines = (tmp_path / "toy.jsonl").read_text()
    assert torch.equal(_run(tmp_path), first)
    assert (tmp_path / "toy.jsonl").read_text() == lines


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def broken(module, step, generator):
        return module(torch.ones(8, 3)).mean() * math.nan, {}

    with pytest.raises(RuntimeError, match="not been finite"):
        train("toy", _toy(), broken, TOY, Accelerator(cpu=True), tmp_path)


def test_learning_rate_warms_up_then_falls():
    rates = [learning_rate(TOY, step) for step in range(40)]
    assert rates[0] == pytest.approx(0.01) and rates[5] == pytest.approx(0.05)
    assert rates[12] == pytest.approx(0.05) and rates[39] < 0.003
    assert all(a >= b for a, b in itertools.pairwise(rates[12:]))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A whole training run at the smallest size."""
    folder = tmp_path_factory.mktemp("training")
    training = demo.DemoTraining(folder / "work", SMOKE, folder / "out", "smoke")
    for stage in demo.STAGES:
        getattr(training, stage)()
    return folder


def test_world_holds_what_the_renderer_gives(work):
    world = training_world(work)
    assert world.ready() == world.size == 18
    index = 7
    identity = int(world.identity_seeds[index // world.poses_per_identity])
    sample = render(identity, 7)
    assert np.array_equal(world.image[index], sample.image)
    assert np.array_equal(world.parsing[index], sample.parsing)
    assert np.array_equal(world.pose_map[index], draw(sample.pose, 256, 192, "fpdm"))


def test_rendering_repairs_what_is_missing(work):
    world = training_world(work)
    before = np.array(world.image[3])
    world.image[3] = 0
    (world.folder / "done-0").unlink()
    assert world.ready() == 0
    render_world(world.folder, "train", 6, 3, workers=1)
    assert np.array_equal(world.image[3], before) and world.ready() == 18


def test_a_world_of_another_kind_is_refused(work):
    with pytest.raises(ValueError, match="holds the world"):
        render_world(work / "work" / "world", "train", 7, 3)


def test_shipped_files_load_and_predict(work):
    base = load_base(work / "out" / export.BASE_FILE)
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_config(dict(base.unet_config))
    unet.load_state_dict(dict(base.unet))
    fpdm = load_checkpoint(work / "out" / export.FPDM_FILE, base_unet=unet)
    sample = render(9, 9)
    photo = torch.from_numpy(sample.image)[None].float() / 255
    pose = torch.from_numpy(draw(sample.pose, 256, 192, "fpdm"))[None].float() / 255
    with torch.no_grad():
        tokens = fpdm.source_tokens(fpdm.source_hidden(photo))
        features = fpdm.pose_features(pose.permute(0, 3, 1, 2))
        out = fpdm.predict_noise(
            torch.randn(1, UNET["in_channels"], 32, 24),
            500,
            tokens,
            features,
            fpdm.fuse(photo, pose),
        )
    assert out.shape == (1, UNET["in_channels"], 32, 24) and torch.isfinite(out).all()
    assert tokens.shape[:2] == (1, 1 + 32 * 24)


def test_provenance_names_the_file_and_its_checksum(work):
    import hashlib

    for name in (export.BASE_FILE, export.FPDM_FILE, "mannequin_judge.safetensors"):
        path = work / "out" / name
        record = json.loads(path.with_suffix(".json").read_text())
        assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert record["command"].startswith("python -m pose_transfer.training.demo")


def test_exported_autoencoder_is_the_trained_one():
    torch.manual_seed(1)
    narrow = TrainableAutoencoder().eval()
    mean, std = 0.3, 0.7
    wide = TinyAutoencoder(export.taesd_tensors(narrow, mean, std)).eval()
    pictures = torch.rand(2, 64, 48, 3)
    with torch.no_grad():
        raw = narrow.encode(pictures.permute(0, 3, 1, 2) * 2 - 1)
        latents = wide.encode(pictures)
        decoded = wide.decode(latents)
        wanted = ((narrow.decode(raw) + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
    assert torch.allclose(latents, (raw - mean) / std, atol=1e-5)
    assert torch.allclose(decoded, wanted, atol=1e-5)


def test_wanted_attention_points_at_the_same_place():
    source = torch.zeros(1, 3, 2, 3)
    source[0, :, 0, 0] = torch.tensor([0.1, 0.2, 0.3])
    source[0, :, 1, 2] = torch.tensor([-0.4, 0.1, 0.0])
    target = torch.zeros(1, 3, 2, 3)
    target[0, :, 0, 1] = torch.tensor([-0.4, 0.1, 0.0])
    target[0, :, 1, 1] = torch.tensor([0.9, 0.9, 0.9])
    wanted, known = wanted_attention(target, source)
    assert wanted[0, 1].argmax() == 5 and wanted[0, 1, 5] > 0.99
    assert known[0].tolist() == [False, True, False, False, False, False]


def training_world(work):
    return demo.DemoTraining(work / "work", SMOKE, work / "out", "smoke").world()
