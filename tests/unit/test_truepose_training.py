# SPDX-License-Identifier: GPL-3.0-or-later
"""TruePose's stage: the pair is guided and learns, and its file has what the loader needs."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pose_transfer.demo.models import BASE_WEIGHTS, FPDM_WEIGHTS, load_base, load_fpdm
from pose_transfer.demo.truepose import load_truepose
from pose_transfer.errors import CheckpointError
from pose_transfer.training.export import BASE_FILE, FPDM_FILE
from pose_transfer.training.settings import SMOKE
from pose_transfer.training.truepose import TruePoseStages
from pose_transfer.training.truepose_pair import FILE, TOKENS, TruePosePair, new_pair
from pose_transfer.truepose import REGIONS, attention_mass, region_context_bias
from pose_transfer.truepose.siamese import (
    Lesson,
    MassRecord,
    PairRegions,
    SiamesePair,
    pair_alignment,
    unheard,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TruePoseStages:
    """A whole run at the smallest size."""
    folder = tmp_path_factory.mktemp("truepose")
    (folder / "out").mkdir()
    for path in (BASE_WEIGHTS, FPDM_WEIGHTS):
        shutil.copyfile(path, folder / "out" / path.name)
    training = TruePoseStages(folder / "work", SMOKE, folder / "out", "smoke")
    training.truepose()
    training.export_truepose()
    return training


def untrained(training: TruePoseStages) -> TruePosePair:
    base, fpdm = (training.out / name for name in (BASE_FILE, FPDM_FILE))
    return new_pair(load_base(base), load_fpdm(fpdm))


def test_the_file_is_small_and_says_where_it_comes_from(trained: TruePoseStages) -> None:
    path = trained.out / FILE
    assert path.stat().st_size < 2 * 2**20
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["steps"] == 3 and record["bytes"] == path.stat().st_size
    assert "training.truepose" in record["command"]


def test_the_file_and_the_demo_make_a_whole_pair(trained: TruePoseStages) -> None:
    base, fpdm = trained.out / BASE_FILE, trained.out / FPDM_FILE
    pair = load_truepose(trained.out / FILE, base, fpdm)
    assert pair.source is None and not pair.leffa
    assert set(pair.parts) == {"image_tokens", "pose_encoder", "image_tower"}
    assert pair.config["image_tokens"]["tokens"] == TOKENS
    unet = UNet2DConditionModel(**pair.config["unet"])
    unet.load_state_dict({name: tensor.float() for name, tensor in pair.target.items()})
    before, changed = load_base(base).unet, set()
    for name, value in unet.state_dict().items():
        if not torch.equal(value, before[name]):
            changed.add(name.split(".")[-2 if "to_out" not in name else -3])
    assert changed == {"to_q", "to_k", "to_v", "to_out", "norm1", "norm2"}


def test_a_pair_upon_other_models_is_refused(trained: TruePoseStages, tmp_path: Path) -> None:
    other = tmp_path / BASE_FILE
    tensors = load_file(trained.out / BASE_FILE)
    tensors["unet.conv_in.bias"] += 1
    with safe_open(trained.out / BASE_FILE, "pt") as file:
        save_file(tensors, other, file.metadata())
    with pytest.raises(CheckpointError, match="trained upon other demo models"):
        load_truepose(trained.out / FILE, other)


def test_priors_are_those_of_each_sample(trained: TruePoseStages) -> None:
    priors = trained.target_priors()
    assert priors.shape == (18, len(REGIONS), 32, 24) and priors.dtype == torch.uint8
    upper, background = (REGIONS.index(name) for name in ("upper", "background"))
    parsing = torch.from_numpy(trained.world().parsing[:])[:, 4::8, 4::8]
    garment = parsing == 3
    assert priors[:, upper][garment].float().mean() > 0.6 * 255
    assert priors[:, background][parsing == 0].float().mean() > 0.8 * 255


def test_places_are_read_off_the_pose(trained: TruePoseStages) -> None:
    """Far better than the same place for all cells would."""
    task = trained.truepose_task()
    rows = torch.arange(18)
    cloth = task.data.cloth(rows)
    figure = cloth.abs().sum(1, keepdim=True) > 0
    off = (task.places(task.poses(rows)) - cloth).abs() * figure
    mean = (cloth * figure).sum((0, 2, 3), keepdim=True) / figure.sum()
    assert off.sum() < 0.5 * ((cloth - mean).abs() * figure).sum()


def test_what_the_demo_s_training_left_serves_only_if_it_is_the_shipped_models(
    trained: TruePoseStages,
) -> None:
    own, left = (trained.work / f"{name}latents.pt" for name in ("truepose-", ""))
    latents = trained.truepose_task().latents
    assert latents.shape == (18, 8, 32, 24)
    torch.save({"latents": latents + 1}, left)
    assert torch.equal(trained.truepose_task().latents, latents)
    own.unlink()
    torch.save({"latents": latents}, left)
    assert torch.equal(trained.truepose_task().latents, latents)
    assert not own.exists()


def test_every_part_learns(trained: TruePoseStages) -> None:
    torch.manual_seed(0)
    module = untrained(trained).to(trained.device)
    # A fresh net may not depend on some of its layers yet; what counts is whether they are used.
    for value in (*module.unet.parameters(), *module.parameters()):
        if value.dim() > 1 and not value.any():
            torch.nn.init.normal_(value, std=0.02)
    loss, figures = trained.truepose_task()(module, 8, torch.Generator().manual_seed(1))
    loss.backward()
    still = [name for name, x in module.named_parameters() if x.grad is None]
    assert still == []
    learns = {id(x) for x in module.parameters()}
    frozen = [x for x in module.unet.parameters() if id(x) not in learns]
    assert frozen and all(x.grad is None for x in frozen)
    assert all(figures[name] > 0 for name in ("noise", "alignment", "attention"))


def test_a_lesson_is_about_the_first_head_of_the_first_attention() -> None:
    torch.manual_seed(2)
    q, k = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    wanted = torch.softmax(torch.randn(1, 3, 5), dim=-1)
    known = torch.tensor([[True, False, True]])
    lesson = Lesson(wanted, known)
    lesson.hear(q, k, heads=2)
    lesson.hear(-q, k, heads=2)
    logs = torch.log_softmax(q[..., :4] @ k[..., :4].mT / 2.0, dim=-1)
    expected = -(wanted * logs).sum(-1)[known].mean()
    torch.testing.assert_close(lesson.loss(), expected)


@torch.no_grad()
def test_the_source_s_net_hears_the_source_s_pose(trained: TruePoseStages) -> None:
    module = trained.truepose()
    torch.nn.init.normal_(module.pose_out.weight, std=0.2)
    source, embeds = torch.randn(1, 8, 32, 24), torch.randn(1, 128)
    noisy, pose = torch.randn(1, 8, 32, 24), torch.randn(1, 64, 32, 24)
    maps = torch.zeros(1, len(REGIONS), 32, 24)
    maps[:, REGIONS.index("upper")] = 1.0
    ones = torch.ones(1)
    regions = PairRegions(maps, maps, ones, torch.zeros(1))

    def predicted(source_pose: Tensor) -> Tensor:
        lesson = Lesson(torch.full((1, 768, 768), 1 / 768), torch.ones(1, 768, dtype=torch.bool))
        given = (noisy, torch.tensor([500]), source, embeds, source_pose, pose, regions)
        return module(*given, torch.ones(2, 1), lesson)[0]

    posed, other = predicted(pose), predicted(pose.flip(-1))
    assert (posed - other).abs().max() > 1e-4
    assert (posed - predicted(torch.zeros_like(pose))).abs().max() > 1e-4


@pytest.fixture
def pair_inputs(small_unet: UNet2DConditionModel) -> tuple[SiamesePair, Tensor, Tensor, Tensor]:
    torch.manual_seed(4)
    source, noisy = torch.randn(2, 1, 4, 8, 6)
    return SiamesePair(copy.deepcopy(small_unet)), source, noisy, torch.randn(1, 3, 12)


def maps_of(region: str, batch: int = 1) -> Tensor:
    maps = torch.zeros(batch, len(REGIONS), 8, 6)
    maps[:, REGIONS.index(region)] = 1.0
    return maps


def predict(
    given: tuple[SiamesePair, Tensor, Tensor, Tensor], region: str, keep: float, beta: float
) -> Tensor:
    pair, source, noisy, context = given
    maps = maps_of(region)
    regions = PairRegions(maps, maps, torch.tensor([keep]), torch.tensor([beta]))
    look = pair.look(source, context)
    return pair.predict(noisy, torch.tensor([500]), context, look, regions)[0]


@torch.no_grad()
def test_the_pair_is_guided_by_regions_of_the_source(
    pair_inputs: tuple[SiamesePair, Tensor, Tensor, Tensor], small_unet: UNet2DConditionModel
) -> None:
    plain = predict(pair_inputs, "upper", keep=0.0, beta=1.0)
    guided = predict(pair_inputs, "upper", keep=1.0, beta=0.0)
    background = predict(pair_inputs, "background", keep=1.0, beta=0.0)
    assert torch.isfinite(guided).all()
    assert (guided - plain).abs().max() > 1e-3
    assert torch.allclose(background, plain, atol=1e-6)
    _, _, noisy, context = pair_inputs
    stock = small_unet(noisy, torch.tensor([500]), context, return_dict=False)[0]
    assert torch.allclose(plain, stock, atol=1e-5)


@torch.no_grad()
def test_one_source_serves_several_targets(
    pair_inputs: tuple[SiamesePair, Tensor, Tensor, Tensor],
) -> None:
    pair, source, noisy, context = pair_inputs
    maps = maps_of("upper", 3)
    regions = PairRegions(maps, maps, torch.ones(3), torch.ones(3))
    look = pair.look(source, context).repeat(3)
    many = torch.cat([noisy, noisy.flip(-1), noisy])
    times = torch.full((3,), 500)
    out, _ = pair.predict(many, times, context.expand(3, -1, -1), look, regions)
    alone = predict(pair_inputs, "upper", keep=1.0, beta=1.0)
    assert torch.allclose(out[0], alone[0], atol=1e-5)
    assert torch.allclose(out[2], out[0], atol=1e-6) and not torch.allclose(out[1], out[0])


def half_and_half() -> Tensor:
    """The face above, the upper garment below."""
    maps = torch.zeros(1, len(REGIONS), 8, 6)
    maps[:, REGIONS.index("face"), :4] = 1.0
    maps[:, REGIONS.index("upper"), 4:] = 1.0
    return maps


@torch.no_grad()
def test_tokens_of_a_region_s_crop_are_for_that_region(
    pair_inputs: tuple[SiamesePair, Tensor, Tensor, Tensor],
) -> None:
    """Region-wise CAA: of tokens of the picture, the face and the garment each region sees two."""
    pair, source, noisy, context = pair_inputs
    owners = torch.zeros(3, len(REGIONS))
    owners[1, REGIONS.index("face")] = owners[2, REGIONS.index("upper")] = 1.0
    maps, one = half_and_half(), torch.ones(1)
    regions = PairRegions(maps, maps, one, one, context=owners)
    look = pair.look(source, context, regions)
    _, guided = pair.predict(noisy, torch.tensor([500]), context, look, regions)
    for weights in (look.weights[0], guided.weights[0]):  # (1, 48, 3), of the whole picture's size
        above, below = weights[0].view(8, 6, 3)[:4], weights[0].view(8, 6, 3)[4:]
        assert above[..., 2].max() < 0.01 < above[..., 1].min()
        assert below[..., 1].max() < 0.01 < below[..., 2].min()
        assert torch.allclose(weights.sum(-1), one)
    whole = PairRegions(maps, maps, one, one)
    _, plain = pair.predict(noisy, torch.tensor([500]), context, pair.look(source, context), whole)
    assert plain.weights[0][0, 0, 2] > 0.01
    bias = region_context_bias(torch.eye(len(REGIONS))[None], owners, 1.0)
    assert bias[0, REGIONS.index("hair"), 0] == 0 > bias[0, REGIONS.index("hair"), 1]


@torch.no_grad()
def test_the_recorded_share_is_that_of_the_paper_s_diagnosis(
    pair_inputs: tuple[SiamesePair, Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every share counted by hand: over the person's tokens, the mean of the blocks."""
    pair, source, noisy, context = pair_inputs
    seen = []

    def watched(*given):
        seen.append(attention_mass(*given))
        return seen[-1]

    monkeypatch.setattr("pose_transfer.truepose.siamese.attention_mass", watched)
    maps, one = half_and_half(), torch.ones(1)
    maps[..., 3:] = 0.0
    maps[:, REGIONS.index("background"), :, 3:] = 1.0
    record = MassRecord()
    with pytest.raises(ValueError, match="Nothing was recorded"):
        record.mean()
    regions = PairRegions(maps, maps, one, one)
    look = pair.look(source, context)
    pair.predict(noisy, torch.tensor([500]), context, look, regions, record=record)
    by_hand = []
    for mass in seen:  # (1, N, R); the left half of the picture is the person
        height, width = {48: (8, 6), 12: (4, 3)}[mass.shape[1]]
        person = (
            1
            - torch.nn.functional.adaptive_avg_pool2d(maps, (height, width))[
                0, REGIONS.index("background")
            ].flatten()
        )
        by_hand.append((mass[0] * person[:, None]).sum(0) / person.sum())
    assert torch.allclose(record.mean()[0], torch.stack(by_hand).mean(0), atol=1e-6)
    shares = dict(zip(REGIONS, record.mean()[0].tolist(), strict=True))
    assert shares["background"] == 0 < shares["face"] < 1 and shares["upper"] > 0


def test_checkpointing_changes_no_gradient(small_unet: UNet2DConditionModel) -> None:
    """Blocks are run again in the backward pass, and must see the same source then."""

    def gradients(checkpointed: bool, separate: bool) -> list[Tensor]:
        torch.manual_seed(3)
        unet = copy.deepcopy(small_unet).train()
        source_unet = copy.deepcopy(small_unet).train() if separate else None
        pair = SiamesePair(unet, source_unet)
        nets = [unet] if source_unet is None else [unet, source_unet]
        for net in nets:
            for name, value in net.named_parameters():
                if "to_out" in name:
                    torch.nn.init.normal_(value, std=0.2)
            if checkpointed:
                net.enable_gradient_checkpointing()
        source, noisy, context = (
            torch.randn(1, 4, 8, 6),
            torch.randn(1, 4, 8, 6),
            torch.randn(1, 3, 12),
        )
        regions = PairRegions(half_and_half(), half_and_half(), torch.ones(1), torch.ones(1))
        look = pair.look(source, context)
        out, guided = pair.predict(noisy, torch.tensor([500]), context, look, regions)
        (out.square().mean() + pair_alignment(guided, regions)).backward()
        return [x.grad for net in nets for x in net.parameters() if x.grad is not None]

    for separate in (False, True):
        plain, again = gradients(False, separate), gradients(True, separate)
        assert len(plain) == len(again)
        for a, b in zip(plain, again, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("aligned", [True, False])
def test_a_source_net_of_its_own_has_layers_that_nobody_hears(
    small_unet: UNet2DConditionModel, aligned: bool
) -> None:
    source_unet = copy.deepcopy(small_unet)
    pair = SiamesePair(copy.deepcopy(small_unet), source_unet)
    regions = PairRegions(half_and_half(), half_and_half(), torch.ones(1), torch.ones(1))
    context = torch.randn(1, 3, 12)
    look = pair.look(torch.randn(1, 4, 8, 6), context)
    out, guided = pair.predict(torch.randn(1, 4, 8, 6), torch.tensor([500]), context, look, regions)
    loss = out.square().mean()
    if aligned:
        loss = loss + pair_alignment(guided, regions)
    loss.backward()
    silent = {id(x) for x in unheard(source_unet, aligned)}
    wrong = [n for n, x in source_unet.named_parameters() if (x.grad is None) != (id(x) in silent)]
    assert silent and wrong == []
