# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM's parts together: what reaches the UNet, and that the UNet is left as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from pose_transfer.errors import CheckpointError
from pose_transfer.fpdm import FPDM, ClassEmbedding, PoseEncoder, SourceProjection

MakeFPDM = Callable[..., FPDM]


def conditions(batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    return {
        "latents": noise(4, 8, 6),
        "t": torch.tensor([7, 900])[:batch],
        "tokens": noise(5, 12),
        "pose_features": noise(8, 8, 6),
        "fusion": noise(10),
    }


def raw_conditions() -> dict[str, Tensor]:
    torch.manual_seed(4)
    return {
        "latents": torch.randn(2, 4, 8, 6),
        "t": torch.tensor([7, 900]),
        "hidden_states": torch.randn(2, 5, 24),
        "pose_map": torch.rand(2, 3, 64, 48),
        "fusion": torch.randn(2, 10),
    }


@torch.no_grad()
def test_pose_and_time_offset_are_plain_additions(make_fpdm: MakeFPDM) -> None:
    """Folding both into the UNet's own biases gives the same output for constant additions."""
    fpdm = make_fpdm()
    unet = fpdm.unet
    assert unet is not None
    given = conditions()
    given["pose_features"] = torch.full((2, 8, 8, 6), 0.25)
    given["fusion"] = given["fusion"][:1].expand(2, -1)
    got = fpdm.predict_noise(**given)

    offset = fpdm.time_offset(given["fusion"])[0]
    unet.get_parameter("conv_in.bias").add_(0.25)
    unet.get_parameter("time_embedding.linear_2.bias").add_(offset)
    expected = unet(
        given["latents"], given["t"], given["tokens"], class_labels=torch.zeros(2, 32)
    ).sample
    torch.testing.assert_close(got, expected)


@torch.no_grad()
def test_every_condition_matters(make_fpdm: MakeFPDM) -> None:
    fpdm, given = make_fpdm(), conditions()
    full = fpdm.predict_noise(**given)
    for name in ("tokens", "pose_features", "fusion"):
        off = fpdm.predict_noise(**{**given, name: torch.zeros_like(given[name])})
        assert (off - full).abs().max() > 1e-4, name


@torch.no_grad()
def test_base_unet_is_shared_and_unchanged(
    make_fpdm: MakeFPDM, small_unet: UNet2DConditionModel
) -> None:
    given = conditions()
    before = small_unet(given["latents"], given["t"], given["tokens"]).sample
    config, modules = dict(small_unet.config), dict(small_unet.named_modules())
    fpdm = make_fpdm()
    fpdm.predict_noise(**given)

    after = small_unet(given["latents"], given["t"], given["tokens"]).sample
    assert torch.equal(before, after)
    assert dict(small_unet.config) == config
    assert dict(small_unet.named_modules()) == modules
    assert fpdm.unet is not None and fpdm.unet.conv_in is small_unet.conv_in
    assert type(fpdm.unet) is UNet2DConditionModel
    assert not any(x.is_meta for x in fpdm.unet.parameters())


def test_nothing_is_left_behind_by_an_error(make_fpdm: MakeFPDM) -> None:
    fpdm, given = make_fpdm(), conditions()
    assert fpdm.unet is not None
    with pytest.raises(RuntimeError):
        fpdm.predict_noise(**{**given, "tokens": torch.zeros(2, 5, 11)})
    assert not fpdm.unet.conv_in._forward_hooks


@torch.no_grad()
def test_guided_prediction_is_three_passes(make_fpdm: MakeFPDM) -> None:
    fpdm, given = make_fpdm(), conditions()
    given["t"] = torch.tensor(500)
    zeros = {k: torch.zeros_like(v) for k, v in given.items()}
    e_full = fpdm.predict_noise(**given)
    e_source = fpdm.predict_noise(**{**given, "fusion": zeros["fusion"]})
    off = {k: zeros[k] for k in ("tokens", "pose_features", "fusion")}
    e_none = fpdm.predict_noise(**{**given, **off})
    got = fpdm.predict_guided(**given, w_source=1.5, w_fusion=3.0)
    expected = e_none + 1.5 * (e_source - e_none) + 3.0 * (e_full - e_source)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_dropped_conditions_are_zeros(make_fpdm: MakeFPDM) -> None:
    """The source is zeroed behind its projection, the pose behind its encoder."""
    fpdm, given = make_fpdm(), raw_conditions()
    keep = torch.tensor([True, False])
    got = fpdm(**given, keep_source=keep, keep_pose=keep, keep_fusion=keep)
    on = fpdm(**given)
    off = fpdm.predict_noise(
        given["latents"], given["t"], torch.zeros(2, 5, 12), torch.zeros(2, 8, 8, 6),
        torch.zeros(2, 10),
    )  # fmt: skip
    torch.testing.assert_close(got[0], on[0])
    torch.testing.assert_close(got[1], off[1])


def gradients(fpdm: FPDM) -> dict[str, Tensor]:
    fpdm.zero_grad(set_to_none=True)
    fpdm(**raw_conditions()).square().mean().backward()
    return {n: p.grad.clone() for n, p in fpdm.named_parameters() if p.grad is not None}


def test_gradient_checkpointing_gives_the_same_gradients(make_fpdm: MakeFPDM) -> None:
    fpdm = make_fpdm()
    assert fpdm.unet is not None
    plain = gradients(fpdm)
    fpdm.unet.enable_gradient_checkpointing()
    fpdm.unet.train()
    checkpointed = gradients(fpdm)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)
    for part in ("pose_encoder.conv_in", "class_embedding.net.0", "source_projection.net.0"):
        assert plain[f"{part}.weight"].abs().max() > 0, part


@torch.no_grad()
@pytest.mark.parametrize("how", ["autocast", "half weights"])
def test_half_precision_stays_near(make_fpdm: MakeFPDM, how: str) -> None:
    fpdm, given = make_fpdm(), conditions()
    exact = fpdm.predict_noise(**given)
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            half = fpdm.predict_noise(**given)
    else:
        assert fpdm.unet is not None
        fpdm.unet.bfloat16()
        half = fpdm.predict_noise(**given)
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 0.1 * exact.std()


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(os.fspath(tmp_path / "store"), 1), rank=0,
        world_size=1,
    )  # fmt: skip
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_trains_under_ddp_without_unused_parameters(make_fpdm: MakeFPDM) -> None:
    fpdm = make_fpdm(combiner=None, image_tower=None, source_tower=None)
    parallel = nn.parallel.DistributedDataParallel(fpdm)
    nothing = torch.zeros(2)
    for _ in range(2):  # DDP complains about unused parameters at the second step
        parallel(**raw_conditions(), keep_source=nothing).square().mean().backward()
    assert all(p.grad is not None for p in fpdm.parameters())


def test_dropout_acts_in_training_only(make_fpdm: MakeFPDM) -> None:
    fpdm = make_fpdm()
    inputs = torch.randn(2, 5, 24), torch.randn(2, 10), torch.randn(2, 10)

    def outputs() -> tuple[Tensor, ...]:
        hidden, source, pose = inputs
        return fpdm.source_tokens(hidden), fpdm.time_offset(source), fpdm.combine(source, pose)

    assert all(torch.equal(a, b) for a, b in zip(outputs(), outputs(), strict=True))
    fpdm.train()
    assert not any(torch.equal(a, b) for a, b in zip(outputs(), outputs(), strict=True))


def test_untrained_pose_encoder_changes_nothing() -> None:
    assert torch.equal(
        PoseEncoder(8, (4, 8, 8, 8))(torch.rand(1, 3, 32, 24)), torch.zeros(1, 8, 4, 3)
    )


@torch.no_grad()
def test_fuse_embeds_both_pictures(make_fpdm: MakeFPDM) -> None:
    fpdm = make_fpdm()
    source, pose = torch.rand(2, 50, 40, 3), torch.rand(2, 64, 48, 3)
    fusion = fpdm.fuse(source, pose)
    assert fusion.shape == (2, 10)
    torch.testing.assert_close(fusion.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(
        fusion, fpdm.combine(fpdm.embed_image(source), fpdm.embed_pose(pose))
    )
    assert fpdm.source_hidden(source).shape == (2, 1 + 4 * 3, 24)


def test_missing_part_is_named(make_fpdm: MakeFPDM) -> None:
    fpdm = make_fpdm(unet=None, image_tower=None)
    with pytest.raises(CheckpointError, match=r"no UNet.*sd_model\.unet"):
        fpdm.predict_noise(**conditions())
    with pytest.raises(CheckpointError, match="no image tower"):
        fpdm.embed_image(torch.rand(1, 8, 8, 3))


@pytest.mark.parametrize(
    ("part", "module", "message"),
    [
        ("source_projection", SourceProjection(24, 20, 16), "context width is 12.* is 16"),
        ("class_embedding", ClassEmbedding(10, 14, 48), "output is 48.* is 32"),
        ("pose_encoder", PoseEncoder(16, (4, 8)), "is 32.* is 64"),
        ("class_embedding", ClassEmbedding(11, 14, 32), "combiner's output is 10.* is 11"),
        ("source_projection", SourceProjection(23, 20, 12), "tower's width is 24.* is 23"),
    ],
)
def test_parts_that_do_not_fit_are_named(
    make_fpdm: MakeFPDM, part: str, module: nn.Module, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_fpdm(**{part: module})


def test_pose_map_of_an_odd_size_says_what_to_do(make_fpdm: MakeFPDM) -> None:
    fpdm = make_fpdm()
    with pytest.raises(ValueError, match=r"50x64 pixels.*multiples of 8.*Resize"):
        fpdm.pose_features(torch.zeros(1, 3, 64, 50))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        fpdm.pose_features(torch.zeros(1, 64, 48, 3))
    with pytest.raises(ValueError, match=r"\(8, 8\) cells.*\(8, 6\).*draw the pose"):
        given: dict[str, Any] = {**conditions(), "pose_features": torch.zeros(2, 8, 8, 8)}
        fpdm.predict_noise(**given)


def test_unet_with_another_class_embedding_is_refused(make_fpdm: MakeFPDM) -> None:
    other = UNet2DConditionModel(
        block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        layers_per_block=1, norm_num_groups=4, cross_attention_dim=12, num_class_embeds=3,
        attention_head_dim=4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="class embedding of its own"):
        make_fpdm(unet=other)


def test_formulas_do_not_import_diffusers() -> None:
    code = (
        "import sys; from pose_transfer.fpdm import cumulative_guidance, info_nce; "
        "sys.exit('diffusers' in sys.modules or 'transformers' in sys.modules)"
    )
    repository = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=repository).returncode == 0
