# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage that trains the demo's visual consistency module, at the smallest size."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from pose_transfer.demo.architecture import CONTEXT_WIDTH, FACE_NET, IMAGE_TOWER, UNET
from pose_transfer.demo.face_net import build_face_net
from pose_transfer.demo.network_files import FACE_FILE, write_network
from pose_transfer.demo.vcm import VCM_FILE, load_vcm
from pose_transfer.fpdm.conv_towers import build_image_tower
from pose_transfer.oneposetrans import vcm_attention
from pose_transfer.training import export
from pose_transfer.training.autoencoder import TrainableAutoencoder
from pose_transfer.training.demo import DemoTraining
from pose_transfer.training.diffusion import DemoDiffusion
from pose_transfer.training.fusion import FusionModel
from pose_transfer.training.settings import SMOKE
from pose_transfer.training.vcm import VCMTask


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> DemoTraining:
    """A rendered world, and untrained files where the shipped ones are."""
    folder = tmp_path_factory.mktemp("vcm")
    torch.manual_seed(0)
    diffusion = DemoDiffusion()
    # The tower that the source tokens come from plays no part here.
    fpdm = export.assemble_fpdm(diffusion, FusionModel(build_image_tower(IMAGE_TOWER)), None)  # type: ignore[arg-type]
    export.write_base(folder / "out", diffusion, TrainableAutoencoder(), 0.1, 0.9)
    export.write_fpdm(folder / "out", fpdm)
    write_network(folder / "out" / FACE_FILE, build_face_net(FACE_NET), FACE_NET)
    made = DemoTraining(folder / "work", SMOKE, folder / "out", "smoke")
    made.render()
    return made


def test_the_stage_trains_and_writes_a_small_file_that_loads(training: DemoTraining) -> None:
    trained = training.vcm()
    path: Path = training.out / VCM_FILE
    assert path.stat().st_size < 6e6
    demo = load_vcm(path)
    assert demo.vcm.face is not None and trained.face is not None
    embeds = demo.tower(torch.rand(2, 256, 192, 3))
    tokens = demo.vcm.image.tokens(embeds)
    assert tokens.shape == (2, 4, CONTEXT_WIDTH)
    assert demo.vcm.face.tokens(torch.randn(2, 512)).shape == (2, 16, CONTEXT_WIDTH)
    weight = trained.image.to_v[0]
    torch.testing.assert_close(demo.vcm.image.to_v[0], weight.half().float())
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["settings"] == asdict(SMOKE.vcm)

    again = training.vcm()
    torch.testing.assert_close(again.image.to_v[0], weight)
    assert again.image.to_v[0].std() > 0


def test_training_computes_what_inference_does_and_every_part_learns() -> None:
    torch.manual_seed(1)
    unet = UNet2DConditionModel(**UNET).eval()
    task = VCMTask(unet)
    latents, context = torch.randn(2, UNET["in_channels"], 8, 6), torch.randn(2, 77, CONTEXT_WIDTH)
    images, faces = torch.randn(2, 128), torch.randn(2, 512)
    words = torch.zeros(2, 77, dtype=torch.bool)
    words[:, 4] = True
    vcm, names = task.vcm, [n for n in unet.attn_processors if ".attn2." in n]
    assert vcm.face is not None
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    got = task(latents, torch.tensor(500), context, torch.zeros(1), images, faces, words)
    got.square().mean().backward()
    still = [name for name, x in task.named_parameters() if x.grad is None or not x.grad.any()]
    assert still == []
    with torch.no_grad():
        image_tokens, face_tokens = vcm.image.tokens(images), vcm.face.tokens(faces)

        def library(i: int) -> Any:  # diffusers lists its own processors only
            def attend(attn, hidden_states, encoder_hidden_states=None, **_):
                q, k, v = (
                    layer(x)
                    for layer, x in (
                        (attn.to_q, hidden_states),
                        (attn.to_k, encoder_hidden_states),
                        (attn.to_v, encoder_hidden_states),
                    )
                )
                assert vcm.face is not None
                return attn.to_out[0](
                    vcm_attention(
                        q, k, v, vcm.image.key(image_tokens, i), vcm.image.value(image_tokens, i),
                        vcm.face.key(face_tokens, i), vcm.face.value(face_tokens, i),
                        4, 1.0, 0.0, attn.heads,
                    )
                )  # fmt: skip

            return attend

        unet.set_attn_processor(
            {**unet.attn_processors, **{name: library(i) for i, name in enumerate(names)}}
        )
        expected = unet(latents, 500, context, return_dict=False)[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
