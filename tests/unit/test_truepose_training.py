# SPDX-License-Identifier: GPL-3.0-or-later
"""TruePose's stage: the pair is guided and learns, and its file has what the loader needs."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from pose_transfer.training.settings import SMOKE
from pose_transfer.training.truepose import FILE, TOKENS, TruePosePair, TruePoseStages
from pose_transfer.truepose import REGIONS
from pose_transfer.truepose.checkpoint import load_pair
from pose_transfer.truepose.siamese import Lesson, PairRegions, SiamesePair


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TruePoseStages:
    """A whole run at the smallest size."""
    folder = tmp_path_factory.mktemp("truepose")
    training = TruePoseStages(folder / "work", SMOKE, folder / "out", "smoke")
    training.truepose()
    training.export_truepose()
    return training


def test_the_file_is_small_and_says_where_it_comes_from(trained: TruePoseStages) -> None:
    path = trained.out / FILE
    assert path.stat().st_size < 16 * 2**20
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["steps"] == 3 and record["bytes"] == path.stat().st_size
    assert "training.truepose" in record["command"]


def test_the_file_holds_the_pair_and_its_networks(trained: TruePoseStages) -> None:
    pair = load_pair(trained.out / FILE)
    assert pair.source is None and not pair.leffa
    assert set(pair.parts) == {"image_tokens", "pose_encoder", "image_tower"}
    assert pair.config["image_tokens"]["tokens"] == TOKENS
    unet = UNet2DConditionModel(**pair.config["unet"])
    unet.load_state_dict({name: tensor.float() for name, tensor in pair.target.items()})


def test_priors_are_those_of_each_sample(trained: TruePoseStages) -> None:
    priors = trained.target_priors()
    assert priors.shape == (18, len(REGIONS), 32, 24) and priors.dtype == torch.uint8
    upper, background = (REGIONS.index(name) for name in ("upper", "background"))
    parsing = torch.from_numpy(trained.world().parsing[:])[:, 4::8, 4::8]
    garment = parsing == 3
    assert priors[:, upper][garment].float().mean() > 0.6 * 255
    assert priors[:, background][parsing == 0].float().mean() > 0.8 * 255


def test_every_part_learns(trained: TruePoseStages) -> None:
    torch.manual_seed(0)
    module = TruePosePair().to(trained.device)
    # A fresh net may not depend on some of its layers yet; what counts is whether they are used.
    for value in module.parameters():
        if value.dim() > 1 and not value.any():
            torch.nn.init.normal_(value, std=0.02)
    loss, figures = trained.truepose_task()(module, 8, torch.Generator().manual_seed(1))
    loss.backward()
    still = [name for name, x in module.named_parameters() if x.grad is None]
    assert still == []
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


def predict(
    given: tuple[SiamesePair, Tensor, Tensor, Tensor], region: str, keep: float, beta: float
) -> Tensor:
    pair, source, noisy, context = given
    maps = torch.zeros(1, len(REGIONS), 8, 6)
    maps[:, REGIONS.index(region)] = 1.0
    pair.look(source, context)
    regions = PairRegions(maps, maps, torch.tensor([keep]), torch.tensor([beta]))
    return pair.predict(noisy, torch.tensor([500]), context, regions)


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
    maps = torch.zeros(3, len(REGIONS), 8, 6)
    maps[:, REGIONS.index("upper")] = 1.0
    regions = PairRegions(maps, maps, torch.ones(3), torch.ones(3))
    pair.look(source, context)
    pair.repeat(3)
    many = torch.cat([noisy, noisy.flip(-1), noisy])
    out = pair.predict(many, torch.full((3,), 500), context.expand(3, -1, -1), regions)
    alone = predict(pair_inputs, "upper", keep=1.0, beta=1.0)
    assert torch.allclose(out[0], alone[0], atol=1e-5)
    assert torch.allclose(out[2], out[0], atol=1e-6) and not torch.allclose(out[1], out[0])
