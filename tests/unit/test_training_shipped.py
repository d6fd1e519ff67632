# SPDX-License-Identifier: GPL-3.0-or-later
"""A training run that starts from the shipped weights, and the ablation on top of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pose_transfer.demo.models import load_base
from pose_transfer.demo.text import text_context
from pose_transfer.evaluation.models import VARIANTS, DemoModels, load_demo_models, load_variant
from pose_transfer.mannequin.vocabulary import BEGIN, END, TOKEN_IDS
from pose_transfer.training import shipped
from pose_transfer.training.demo import DemoTraining
from pose_transfer.training.diffusion import DemoDiffusion
from pose_transfer.training.settings import SMOKE
from pose_transfer.weights import read_weights

# Three steps are left to the ablation, none of them a caption's.
SETTINGS = replace(SMOKE, text_share=0.0, diffusion=replace(SMOKE.diffusion, steps=20))


@pytest.fixture(scope="module")
def models() -> DemoModels:
    return load_demo_models("cpu")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> DemoTraining:
    folder = tmp_path_factory.mktemp("shipped")
    made = DemoTraining(folder / "work", SETTINGS, folder / "out", "smoke")
    shipped.seed(made)
    made.render()
    return made


def first_picture(training: DemoTraining, name: str) -> Tensor:
    return torch.from_numpy(np.array(getattr(training.world(), name)[:1])).float() / 255


def test_all_parts_are_the_shipped_ones(training: DemoTraining, models: DemoModels) -> None:
    photo, drawn = (first_picture(training, name) for name in ("image", "pose_map"))
    fpdm = models.fpdm
    with torch.no_grad():
        latents = training.latents()["latents"][:1].float()
        assert (latents - models.encode(photo)).abs().max() < 5e-3  # kept in float16
        hidden = training.source_states()[:1].float()
        assert (hidden - fpdm.source_hidden(photo)).abs().max() < 0.01
        pose = training.pose_states()[:1].float()
        images, maps = training.embeddings("fusion", training.fusion())
        fused = training.fusion().combiner(images[:1], maps[:1])
        # The node resizes with PIL, training on the device.
        assert (fused - fpdm.fuse(photo, drawn)).abs().max() < 2e-3

        module = training._load("diffusion", DemoDiffusion())
        carried = training.carried(training._second_stage())(torch.tensor([0]), torch.tensor([0]))
        noisy, t = torch.randn(latents.shape), torch.tensor([500])
        told = module(noisy, t, hidden, pose, fused, torch.ones(3, 1), carried)
        channels_first = drawn.permute(0, 3, 1, 2)
        features = fpdm.pose_features(channels_first)
        brought = fpdm.carried_features(photo, fpdm.source_hidden(photo), channels_first)
        assert brought is not None
        features = features + brought
        wanted = fpdm.predict_noise(noisy, t, fpdm.source_tokens(hidden), features, fused)
    assert (told - wanted).abs().max() < 0.02 * wanted.std()


def test_captions_are_read_as_the_shipped_text_encoder_reads_them(training: DemoTraining) -> None:
    unknown = 3
    tokens = torch.full((1, 77), END)
    tokens[0, :6] = torch.tensor([BEGIN, *list(TOKEN_IDS.values())[:4], unknown])
    module = training._load("diffusion", DemoDiffusion())
    expected = text_context(load_base(), torch.device("cpu"))(tokens)
    with torch.no_grad():
        assert torch.allclose(module.text(tokens), expected, atol=1e-4)


def test_ablation_leaves_the_run_and_ends_at_the_same_step(
    training: DemoTraining, models: DemoModels
) -> None:
    training.ablation()
    state = models.fpdm.state_dict()
    combiner = "combiner.output_layer.weight"
    last: dict[str, Tensor] = {}
    for name in ("B3", "B4", "B5", "B6+"):
        run = "diffusion" if name == "B6+" else f"diffusion-{name}"
        assert training._step(run) == SETTINGS.diffusion.steps
        variant = next(x for x in VARIANTS if x.name == name)
        model = load_variant(variant, models.fpdm, training.work / "variants")
        assert model is not None
        changed = read_weights(training.work / "variants" / f"{name}.safetensors").tensors
        last[name] = changed["unet.conv_out.weight"].float()
        assert torch.isfinite(last[name]).all()
        # Other weights, near the shipped ones; the first stage is another one in B5 only.
        assert 0 < (last[name] - state["unet.conv_out.weight"]).abs().max() < 0.01
        assert (combiner in changed) == (name == "B5")
    assert len({tuple(x.flatten().tolist()) for x in last.values()}) == 4


def test_a_folder_in_use_is_left_alone(training: DemoTraining) -> None:
    before = {path: path.stat().st_mtime_ns for path in training.work.glob("*.pt")}
    with pytest.raises(ValueError, match=r"holds a training run \(.*--work"):
        shipped.seed(training)
    assert before == {Path(p): p.stat().st_mtime_ns for p in training.work.glob("*.pt")}
