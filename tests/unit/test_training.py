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

from pose_transfer.demo.architecture import FACE_SIZE, UNET
from pose_transfer.demo.faces import Head, load_face_network
from pose_transfer.demo.models import load_base
from pose_transfer.demo.network_files import FACE_FILE, PERSON_FILE
from pose_transfer.demo.people import load_person_network
from pose_transfer.evaluation.models import TinyAutoencoder
from pose_transfer.fpdm import load_checkpoint
from pose_transfer.fpdm.unet import pose_added
from pose_transfer.mannequin import LABELS, render, sample_identity, sample_pose
from pose_transfer.pose import draw
from pose_transfer.training import demo, export
from pose_transfer.training.autoencoder import TrainableAutoencoder
from pose_transfer.training.batches import Batches
from pose_transfer.training.correspondence import agreed_attention, wanted_attention
from pose_transfer.training.diffusion import DemoDiffusion
from pose_transfer.training.faces import draw_crops, face_geometry, visible_faces
from pose_transfer.training.loop import Pace, learning_rate, train
from pose_transfer.training.scenes import OUTSIDE, draw_scenes
from pose_transfer.training.settings import SMOKE, StageSettings
from pose_transfer.training.towers import PLACE_WIDTH, place_features, place_loss
from pose_transfer.training.world import render_world
from pose_transfer.types import Box

TOY = StageSettings(steps=40, batch=8, learning_rate=0.05, warm_up=5, ema_decay=0.9)


def _toy_loss(module, step, generator):
    x = torch.randn(8, 3, generator=generator)
    loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
    return loss, {}


def _toy() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def _run(folder, **options) -> torch.Tensor:
    trained = train("toy", _toy(), _toy_loss, TOY, Accelerator(cpu=True), folder, **options)
    return trained.get_parameter("weight")


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


def _broken_at(*steps):
    def loss(module, step, generator):
        value, figures = _toy_loss(module, step, generator)
        return value * (math.nan if step in steps else 1.0), figures

    return loss


def _broken_run(folder, loss, **options):
    return train("toy", _toy(), loss, TOY, Accelerator(cpu=True), folder, **options)


def test_a_step_whose_gradient_is_not_finite_changes_nothing(tmp_path):
    seen, broken = [], _broken_at(17)

    def watched(module, step, generator):
        seen.append(module.weight.detach().clone())
        return broken(module, step, generator)

    trained = _broken_run(tmp_path, watched, pace=Pace(log_every=20))
    assert torch.equal(seen[18], seen[17])
    assert not torch.equal(seen[17], seen[16]) and not torch.equal(seen[19], seen[18])
    assert torch.isfinite(trained.get_parameter("weight")).all()
    state = torch.load(tmp_path / "toy.pt", weights_only=True)
    assert state["step"] == 40 and state["optimizer"]["state"][0]["step"] == 39
    lines = [json.loads(x) for x in (tmp_path / "toy.jsonl").read_text().splitlines()[1:]]
    assert [line.get("skipped_steps") for line in lines] == [1, None]


def test_nothing_is_saved_while_the_gradient_is_not_finite(tmp_path):
    _broken_run(tmp_path, _broken_at(3, 4, 5), until=3)
    good = (tmp_path / "toy.pt").read_bytes()
    _broken_run(tmp_path, _broken_at(3, 4, 5), until=6, pace=Pace(save_every=1))
    assert (tmp_path / "toy.pt").read_bytes() == good
    _broken_run(tmp_path, _broken_at(3, 4, 5), until=7)
    state = torch.load(tmp_path / "toy.pt", weights_only=True)
    assert state["step"] == 7 and state["optimizer"]["state"][0]["step"] == 4


def test_a_run_goes_on_from_a_state_that_an_unfused_optimizer_left(tmp_path):
    _run(tmp_path, until=17)
    state = torch.load(tmp_path / "toy.pt", weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = None
    torch.save(state, tmp_path / "toy.pt")
    weight = _broken_run(tmp_path, _broken_at(20)).get_parameter("weight")
    assert torch.isfinite(weight).all()


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

    unet = UNet2DConditionModel(**base.unet_config)
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


def test_detector_files_load_and_run(work):
    people = load_person_network(work / "out" / PERSON_FILE)
    faces = load_face_network(work / "out" / FACE_FILE)
    sample = render(9, 9)
    everywhere = [Box(0, 0, 192, 256)]
    assert people.labels(sample.image, everywhere).shape == (256, 192)
    assert all(box.area > 0 for box in people.find(sample.image))
    head, points, embedding = faces.read(sample.image, Head(96.0, 40.0, 24.0))
    assert head.half_height > 0 and points.shape == (5, 2) and embedding.shape == (512,)


def test_scenes_keep_joints_labels_and_places_together(work):
    world = training_world(work)
    data = Batches(world, world.size, torch.device("cpu"))
    generator = torch.Generator().manual_seed(4)
    on_figure, sides = [], []
    for _ in range(6):
        scenes = draw_scenes(data, 8, generator)
        assert scenes.pixels.min() >= 0 and scenes.pixels.max() <= 1
        assert scenes.labels[scenes.labels != OUTSIDE].max() < 8
        for row in scenes.focused.nonzero()[:, 0].tolist():
            alone = scenes.shown[row].sum() == 1
            for joint, (x, y, present) in enumerate(scenes.joints[row].tolist()):
                if not present or not alone:
                    continue
                near = scenes.labels[row, max(int(y) - 1, 0) : int(y) + 2,
                                     max(int(x) - 1, 0) : int(x) + 2]  # fmt: skip
                on_figure.append(bool(((near > 0) & (near != OUTSIDE)).any()))
                cell = row, slice(None), int(y) // 8, int(x) // 8
                if joint in (4, 7) and scenes.labels[row, int(y), int(x)] == LABELS.index("arms"):
                    # A wrist's place on the body: x is positive on the person's left (joint 7).
                    place = scenes.places[cell][0]
                    sides.append(float(place) * (1 if joint == 7 else -1) > 0)
    # Where an arm crosses the body, its cell may show the other one or the trunk.
    assert len(on_figure) > 200 and np.mean(on_figure) > 0.97
    assert len(sides) > 10 and np.mean(sides) > 0.8


def test_face_points_lie_where_the_renderer_paints_the_face():
    """The corners' middle has the lips' colour, and lies off the rest of the face."""
    found = 0
    for pose in range(9, 400, 10):
        identity = sample_identity(9)
        face = face_geometry(identity, sample_pose(pose), 512, 384)
        if face.eyes < 2 or identity.face.beard:
            continue
        picture = render(9, pose, 512, 384).image.astype(float)
        x, y = face.points[3:].mean(0)
        lips = picture[int(y), int(x)]
        off_lips, off_skin = (
            np.abs(lips / lips.sum() - np.divide(colour, sum(colour))).max()
            for colour in (identity.face.lip_colour, identity.skin)
        )
        assert off_lips < off_skin
        assert face.points[3, 0] < face.points[4, 0]
        found += 1
    assert found >= 5


def test_crops_keep_their_points(work):
    world = training_world(work)
    data = Batches(world, world.size, torch.device("cpu"))
    faces = visible_faces(world, world.size, data.device)
    assert 3 <= len(faces.samples) <= world.size
    row = torch.zeros(6, dtype=torch.long)
    crops, heads, points = draw_crops(data, faces, row, torch.Generator().manual_seed(0))
    assert crops.shape == (6, 3, FACE_SIZE, FACE_SIZE)
    # Crops of one face differ by a similarity: the shape that its points make stays the same.
    spread = (points - heads[:, None, :2]).norm(dim=2) / heads[:, 2:]
    assert torch.allclose(spread, spread[:1].expand_as(spread), atol=1e-4)
    assert heads.std(0).min() > 0.005


def test_provenance_names_the_file_and_its_checksum(work):
    import hashlib

    for name in (export.BASE_FILE, export.FPDM_FILE, "mannequin_judge.safetensors",
                 PERSON_FILE, FACE_FILE):  # fmt: skip
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


@torch.no_grad()
def test_base_alone_is_the_network_of_text_steps():
    torch.manual_seed(0)
    fpdm = DemoDiffusion().fpdm.eval()
    assert fpdm.unet is not None
    latents, tokens = torch.randn(1, 8, 8, 8), torch.randn(1, 5, 128)
    pose, fusion = torch.randn(1, 64, 8, 8), torch.randn(1, 128)
    full = fpdm.predict_noise(latents, 500, tokens, pose, fusion)
    text = fpdm.predict_noise(latents, 500, tokens, pose, torch.zeros_like(fusion))

    export.fold_empty_fusion(fpdm)

    nothing = torch.zeros(1, 256)
    assert fpdm.time_offset(torch.zeros_like(fusion)).abs().max() < 1e-6
    with pose_added(fpdm.unet, pose):
        base = fpdm.unet(latents, 500, tokens, class_labels=nothing, return_dict=False)[0]
    assert torch.allclose(base, text, atol=1e-5)
    again = fpdm.predict_noise(latents, 500, tokens, pose, fusion)
    assert torch.allclose(again, full, atol=1e-5)
    assert not torch.allclose(text, full, atol=1e-3)


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


def test_agreed_attention_goes_by_the_towers_places_and_knows_by_the_truth():
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(1, 4, 4, 3, generator=generator) + 0.5
    source = target.clone()
    target[..., 0, 0] = 0.0  # background
    guessed = source.roll(1, dims=-1)  # every place taken for its neighbour's
    wanted, known = agreed_attention(target, source, guessed, source)
    _, truly = wanted_attention(target, source)
    assert torch.equal(known, truly) and not known[0, 0] and known[0, 1:].all()
    columns = torch.arange(12).view(4, 3).roll(1, dims=-1).flatten()
    assert (wanted.argmax(-1)[0] == columns)[known[0]].all()


def test_waves_of_places_have_their_greatest_product_at_the_same_place():
    generator = torch.Generator().manual_seed(2)
    cloth = torch.rand(1, 4, 6, 5, generator=generator) * 0.4 - 0.2
    features = place_features(cloth)
    assert features.shape == (1, PLACE_WIDTH, 6, 5)
    assert torch.equal(features[:, :4], cloth)
    waves = features[0, 4:].flatten(1)
    assert ((waves.T @ waves).argmax(1) == torch.arange(30)).all()
    figure = torch.ones(1, 1, 6, 5)
    loss, error = place_loss(features, cloth, figure)
    assert loss < 1e-5 and error < 1e-6
    loss, error = place_loss(place_features(cloth + 0.05), cloth, figure)
    assert error == pytest.approx(0.05, rel=0.05) and loss > 12 * 0.045
