# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM files: ours, the released layout, Lightning's pickles, and everything that can be wrong."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from pose_transfer.errors import CheckpointError
from pose_transfer.fpdm import FPDM, load_checkpoint, save_checkpoint
from pose_transfer.fpdm.layout import guess_image_tower, guess_source_tower, guess_unet
from pose_transfer.fpdm.preprocess import RELEASED
from pose_transfer.fpdm.towers import OffsetEmbeddings
from pose_transfer.weights import read_weights, write_weights
from tests.autoencoders import build_autoencoder

MakeFPDM = Callable[..., FPDM]
RELEASED_PARTS = (
    "sd_model.unet.",
    "sd_model.srcimage_proj_model.",
    "sd_model.pose_t_proj.",
    "fusion_model.combiner.",
    "fusion_model.img_encoder.",
    "src_image_encoder.",
)


def assert_same_model(got: FPDM, expected: FPDM) -> None:
    a, b = got.state_dict(), expected.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in b)


def small_vae() -> AutoencoderKL:
    return build_autoencoder(4, 8, norm_num_groups=4, scaling_factor=0.5)


@torch.no_grad()
def picture_of(fpdm: FPDM) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    source, pose = torch.rand(2, 1, 64, 48, 3, generator=generator)
    fusion = fpdm.fuse(source, pose)
    tokens = fpdm.source_tokens(fpdm.source_hidden(source))
    features = fpdm.pose_features(pose.movedim(-1, 1))
    latents = torch.randn(1, 4, 8, 6, generator=generator)
    return [fusion, tokens, fpdm.predict_noise(latents, 500, tokens, features, fusion)]


@pytest.mark.parametrize("with_vae", [True, False])
def test_saved_model_loads_as_the_same(make_fpdm: MakeFPDM, tmp_path: Path, with_vae: bool) -> None:
    fpdm = make_fpdm(vae=small_vae() if with_vae else None)
    save_checkpoint(fpdm, tmp_path / "fpdm.safetensors")
    loaded = load_checkpoint(tmp_path / "fpdm.safetensors")
    assert_same_model(loaded, fpdm)
    assert loaded.preprocess == fpdm.preprocess
    assert not any(module.training for module in loaded.modules())
    if with_vae:
        assert loaded.vae is not None and loaded.vae.config["scaling_factor"] == 0.5
    for a, b in zip(picture_of(loaded), picture_of(fpdm), strict=True):
        torch.testing.assert_close(a, b)


def test_our_file_has_released_names_and_a_description(make_fpdm: MakeFPDM, tmp_path: Path) -> None:
    save_checkpoint(make_fpdm(vae=small_vae()), tmp_path / "fpdm.safetensors")
    weights = read_weights(tmp_path / "fpdm.safetensors")
    assert all(name.startswith((*RELEASED_PARTS, "vae.")) for name in weights.tensors)
    assert "sd_model.unet.class_embedding.net.3.weight" in weights.tensors
    query = "src_image_encoder.encoder.layer.0.attention.attention.query.weight"
    assert query in weights.tensors
    assert weights.metadata["format"] == "pose_transfer.fpdm"
    config = json.loads(weights.metadata["config"])
    assert config.keys() == {"unet", "source_tower", "image_tower", "vae", "preprocess"}


def test_names_are_those_of_a_released_file(
    released: FPDM, fpdm_data: Path, tmp_path: Path
) -> None:
    save_checkpoint(released, tmp_path / "ours.safetensors", dtype=torch.float16)
    ours, theirs = (
        load_file(tmp_path / "ours.safetensors"),
        load_file(fpdm_data / "tiny.safetensors"),
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], x) for name, x in theirs.items())
    # What the released file could not tell is in ours.
    again = load_checkpoint(tmp_path / "ours.safetensors")
    assert_same_model(again, released)
    assert again.source_tower is not None and again.source_tower.config.num_attention_heads == 3
    assert isinstance(again.source_tower.embeddings, OffsetEmbeddings)


def test_released_layout_is_read_from_shapes(fpdm_data: Path, reference: dict[str, Any]) -> None:
    fpdm = load_checkpoint(fpdm_data / "tiny.safetensors")
    assert fpdm.unet is not None and fpdm.image_tower is not None
    for key in (
        "block_out_channels", "down_block_types", "up_block_types", "layers_per_block",
        "cross_attention_dim", "attention_head_dim", "use_linear_projection", "in_channels",
    ):  # fmt: skip
        value = fpdm.unet.config[key]
        assert (list(value) if isinstance(value, tuple) else value) == reference["unet"][key], key
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "image_size"):
        assert getattr(fpdm.image_tower.config, key) == reference["image_tower"][key]
    assert fpdm.preprocess == replace(RELEASED, embed_size=(56, 56))
    assert fpdm.vae is None
    assert {p.dtype for p in fpdm.parameters()} == {torch.float32}


def test_sizes_of_the_released_models_are_guessed() -> None:
    """Shapes of SD 2.1, CLIP ViT-L/14 and DINOv2-large, without their memory."""
    with torch.device("meta"):
        config: dict[str, Any] = {
            "block_out_channels": [320, 640, 1280, 1280],
            "attention_head_dim": [5, 10, 20, 20],
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
            "layers_per_block": 2,
        }
        unet = UNet2DConditionModel(**config)
    guess = guess_unet(unet.state_dict())
    assert {key: guess[key] for key in config} == config

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    clip = {
        "vision_model.embeddings.patch_embedding.weight": empty(1024, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": empty(257, 1024),
        "visual_projection.weight": empty(768, 1024),
    }
    clip |= {
        f"vision_model.encoder.layers.{i}.mlp.fc1.weight": empty(4096, 1024) for i in range(24)
    }
    guess = guess_image_tower(clip)
    assert (guess["num_attention_heads"], guess["image_size"]) == (16, 224)
    assert (guess["num_hidden_layers"], guess["projection_dim"]) == (24, 768)

    dino = {
        "embeddings.patch_embeddings.projection.weight": empty(1024, 3, 14, 14),
        "embeddings.position_embeddings": empty(1, 1370, 1024),
        "embeddings.mask_token": empty(1, 1024),
    }
    dino |= {f"encoder.layer.{i}.mlp.fc1.weight": empty(4096, 1024) for i in range(24)}
    guess = guess_source_tower(dino)
    assert (guess["num_attention_heads"], guess["image_size"], guess["mlp_ratio"]) == (16, 518, 4)


def test_autoencoder_is_read_from_shapes(fpdm_data: Path, tmp_path: Path) -> None:
    vae = build_autoencoder(32, 64, 32, layers_per_block=1)
    tensors = load_file(fpdm_data / "tiny.safetensors")
    tensors |= {f"vae.{name}": x for name, x in vae.state_dict().items()}
    save_file(tensors, tmp_path / "fpdm.safetensors")
    loaded = load_checkpoint(tmp_path / "fpdm.safetensors").vae
    assert loaded is not None and loaded.config["scaling_factor"] == 0.18215
    state = loaded.state_dict()
    assert all(torch.equal(state[name], x) for name, x in vae.state_dict().items())


@pytest.fixture(scope="module")
def lightning_file(fpdm_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Lightning wrote it: a pickle, the UNet and the fusion tower twice, an old buffer."""
    tensors = load_file(fpdm_data / "tiny.safetensors")
    for name, x in list(tensors.items()):
        for prefix, double in (
            ("sd_model.unet.", "unet."),
            ("fusion_model.img_encoder.", "fusion_model.pose_encoder."),
        ):
            if name.startswith(prefix):
                tensors[double + name.removeprefix(prefix)] = x
    buffer = "fusion_model.img_encoder.vision_model.embeddings.position_ids"
    tensors[buffer] = torch.arange(17)[None]
    path = tmp_path_factory.mktemp("lightning") / "fpdm.ckpt"
    content = {
        "epoch": 99,
        "global_step": 1,
        "state_dict": tensors,
        "hyper_parameters": {"args": argparse.Namespace(batch_size=42)},
    }
    torch.save(content, path)
    return path


def heads(reference: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        part: {"num_attention_heads": reference[part]["num_attention_heads"]}
        for part in ("source_tower", "image_tower")
    }


def test_lightning_checkpoint(
    lightning_file: Path, released: FPDM, reference: dict[str, Any]
) -> None:
    assert_same_model(load_checkpoint(lightning_file, config=heads(reference)), released)


@pytest.mark.parametrize("prefix", ["", "fusion_model."])
def test_stage_1_in_a_file_of_its_own(
    fpdm_data: Path, released: FPDM, reference: dict[str, Any], tmp_path: Path, prefix: str
) -> None:
    tensors = load_file(fpdm_data / "tiny.safetensors")
    stage_1 = {k: x for k, x in tensors.items() if k.startswith("fusion_model.")}
    stage_2 = {k: x for k, x in tensors.items() if k not in stage_1}
    inner = {prefix + k.removeprefix("fusion_model."): x for k, x in stage_1.items()}
    torch.save({"state_dict": inner}, tmp_path / "stage1.ckpt")
    save_file(stage_2, tmp_path / "stage2.safetensors")

    alone = load_checkpoint(tmp_path / "stage2.safetensors")
    assert alone.combiner is None and alone.image_tower is None
    both = load_checkpoint(
        tmp_path / "stage2.safetensors", tmp_path / "stage1.ckpt", config=heads(reference)
    )
    assert_same_model(both, released)
    with pytest.raises(CheckpointError, match=r"stage1\.ckpt is no FPDM.*fusion_path"):
        load_checkpoint(tmp_path / "stage1.ckpt")
    with pytest.raises(CheckpointError, match=r"stage2\.safetensors holds no FPDM fusion model"):
        load_checkpoint(tmp_path / "stage2.safetensors", tmp_path / "stage2.safetensors")


def test_given_fusion_model_wins(fpdm_data: Path, tmp_path: Path) -> None:
    tensors = load_file(fpdm_data / "tiny.safetensors")
    fusion = {k: x + 1 for k, x in tensors.items() if k.startswith("fusion_model.")}
    save_file(fusion, tmp_path / "stage1.safetensors")
    both = load_checkpoint(fpdm_data / "tiny.safetensors", tmp_path / "stage1.safetensors")
    assert both.combiner is not None
    expected = fusion["fusion_model.combiner.output_layer.bias"].float()
    assert torch.equal(both.combiner.output_layer.bias, expected)


def test_model_that_shares_a_base_unet(
    make_fpdm: MakeFPDM, small_unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    path = tmp_path / "demo.safetensors"
    fpdm = make_fpdm(vae=small_vae())
    save_checkpoint(fpdm, path, dtype=torch.float16, leave_out=("unet", "vae"))
    names = read_weights(path).tensors
    assert not any(n.startswith("vae.") for n in names)
    assert {n for n in names if n.startswith("sd_model.unet.")} == {
        f"sd_model.unet.class_embedding.net.{n}"
        for n in ("0.weight", "0.bias", "3.weight", "3.bias")
    }
    assert load_checkpoint(path).unet is None
    small_unet.train()
    loaded = load_checkpoint(path, base_unet=small_unet)
    assert small_unet.training
    assert loaded.unet is not None and loaded.unet.conv_out is small_unet.conv_out
    for a, b in zip(picture_of(loaded), picture_of(fpdm), strict=True):
        assert (a - b).abs().max() < 0.02  # stored as float16


def test_base_unet_that_does_not_fit(make_fpdm: MakeFPDM, tmp_path: Path) -> None:
    save_checkpoint(make_fpdm(), tmp_path / "demo.safetensors", leave_out=("unet",))
    other = UNet2DConditionModel(
        block_out_channels=(16,), down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), layers_per_block=1, cross_attention_dim=12,
        attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"UNet's first width is 16.*output is 8"):
        load_checkpoint(tmp_path / "demo.safetensors", base_unet=other)


def test_code_in_a_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.ones(1)}, "callback": shutil.rmtree}, tmp_path / "e.ckpt")
    with pytest.raises(CheckpointError, match=r"e\.ckpt was refused.*shutil\.rmtree"):
        load_checkpoint(tmp_path / "e.ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("sd_model.pose_t_proj.conv_out.bias"), "pose encoder.*conv_out.bias"),
        (lambda t: t.pop("sd_model.pose_t_proj.conv_out.weight"), "conv_out.weight"),
        (lambda t: t.pop("sd_model.unet.conv_in.weight"), "conv_in.weight.*missing"),
        (lambda t: t.pop("sd_model.unet.mid_block.resnets.0.conv1.weight"), "mid_block.resnets.0"),
        (
            lambda t: t.update({"fusion_model.combiner.output_layer.bias": torch.zeros(3)}),
            "combiner.*output_layer.bias",
        ),
        (
            lambda t: [t.pop(k) for k in list(t) if k.startswith("sd_model.srcimage")],
            r"lacks sd_model\.srcimage_proj_model\.\*. Choose a complete FPDM",
        ),
        (
            lambda t: [t.pop(k) for k in list(t) if k.startswith("sd_model.unet.class_embedding")],
            r"lacks sd_model\.unet\.class_embedding",
        ),
    ],
)
def test_incomplete_file_is_named_with_what_it_lacks(
    fpdm_data: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    tensors = load_file(fpdm_data / "tiny.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match=rf"bad\.safetensors.*{message}"):
        load_checkpoint(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "pose_transfer.mannequin", "version": "1"}, "says it is pose_transfer.mann"),
        ({"format": "pose_transfer.fpdm", "version": "9"}, "version 9, expected.*version 1"),
        ({"format": "pose_transfer.fpdm", "version": "1"}, "no readable description"),
        (
            {"format": "pose_transfer.fpdm", "version": "1", "config": "{broken"},
            "no readable description",
        ),
        (
            {
                "format": "pose_transfer.fpdm",
                "version": "1",
                "config": '{"preprocess": {"surprise": 1}}',
            },
            "surprise",
        ),
    ],
)
def test_description_of_another_kind(
    fpdm_data: Path, tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    write_weights(tmp_path / "f", load_file(fpdm_data / "tiny.safetensors"), metadata)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "f")


def test_file_of_another_model(tmp_path: Path) -> None:
    save_file({"model.diffusion_model.x": torch.ones(1)}, tmp_path / "sd.safetensors")
    with pytest.raises(CheckpointError, match=r"sd\.safetensors is no FPDM model.*stage 2"):
        load_checkpoint(tmp_path / "sd.safetensors")


def test_dtype(fpdm_data: Path) -> None:
    fpdm = load_checkpoint(fpdm_data / "tiny.safetensors", dtype=torch.bfloat16)
    assert {p.dtype for p in fpdm.parameters()} == {torch.bfloat16}
