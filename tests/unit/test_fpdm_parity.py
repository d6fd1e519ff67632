# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM against numbers made by running the released code (tests/data/fpdm)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from pose_transfer.fpdm import FPDM, cumulative_guidance

IO = dict[str, Tensor]
SMALL, UNET = 1e-5, 1e-4


def assert_close(got: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


def test_combiner_fuses_as_released(released: FPDM, reference_io: IO) -> None:
    source, pose = reference_io["clip.source_image_embeds"], reference_io["clip.pose_image_embeds"]
    assert released.combiner is not None
    assert_close(
        released.combiner.combine_features(source, pose),
        reference_io["combiner.combine_features"],
        SMALL,
    )
    assert_close(released.combine(source, pose), reference_io["combiner.out"], SMALL)


def test_combiner_tells_source_from_pose(released: FPDM, reference_io: IO) -> None:
    source, pose = reference_io["clip.source_image_embeds"], reference_io["clip.pose_image_embeds"]
    difference = released.combine(pose, source) - reference_io["combiner.out"]
    assert difference.abs().max() > 0.01


def test_source_tokens(released: FPDM, reference_io: IO) -> None:
    tokens = released.source_tokens(reference_io["dino.last_hidden_state"])
    assert_close(tokens, reference_io["srcimage_proj_model.out"], SMALL)


def test_pose_features(released: FPDM, reference_io: IO) -> None:
    pose_map = reference_io["in.target_pose_u8"].float() / 255
    assert_close(released.pose_features(pose_map), reference_io["pose_t_proj.out"], SMALL)


@pytest.mark.parametrize("released_shape", [True, False], ids=["(B, 1, E)", "(B, E)"])
def test_time_offset(released: FPDM, reference_io: IO, released_shape: bool) -> None:
    fusion = reference_io["combiner.out"]
    offset = released.time_offset(fusion[:, None] if released_shape else fusion)
    assert_close(offset, reference_io["unet.class_embedding.out"], SMALL)


def test_image_tower(released: FPDM, reference_io: IO) -> None:
    assert released.image_tower is not None
    for pixels, embeds in (("source_image", "source"), ("target_pose", "pose")):
        got = released.image_tower(reference_io[f"in.fusion_processed_{pixels}"]).image_embeds
        assert_close(got, reference_io[f"clip.{embeds}_image_embeds"], SMALL)


@pytest.mark.parametrize(
    ("pixels", "states"),
    [
        ("in.src_processed_source_image", "dino.last_hidden_state"),  # positions interpolated
        ("in.dino_native_pixels", "dino_native.last_hidden_state"),
    ],
)
def test_source_tower(released: FPDM, reference_io: IO, pixels: str, states: str) -> None:
    assert released.source_tower is not None
    got = released.source_tower(reference_io[pixels]).last_hidden_state
    assert_close(got, reference_io[states], SMALL)


@pytest.mark.parametrize(
    ("output", "source_on", "pose_on", "fusion_on"),
    [
        ("unet.out", True, True, True),
        ("unet.out_uncond", False, False, False),
        ("unet.out_src", True, True, False),
        ("unet.out_pose_only", False, True, False),
        ("unet.out_tokens_only", True, False, False),
    ],
)
def test_predict_noise(
    released: FPDM,
    reference_io: IO,
    output: str,
    source_on: bool,
    pose_on: bool,
    fusion_on: bool,
) -> None:
    got = released.predict_noise(
        reference_io["in.noisy_latents"],
        reference_io["in.timesteps"],
        reference_io["srcimage_proj_model.out"] * source_on,
        reference_io["pose_t_proj.out"] * pose_on,
        reference_io["combiner.out"] * fusion_on,
    )
    assert_close(got, reference_io[output], UNET)


def predictions(io: IO) -> tuple[Tensor, Tensor, Tensor]:
    return io["unet.out_uncond"], io["unet.out_src"], io["unet.out"]


def test_equal_weights_guide_as_released(reference_io: IO) -> None:
    e = predictions(reference_io)
    assert_close(cumulative_guidance(*e, 2.0, 2.0), reference_io["guided.w2"], SMALL)


def test_source_weight_matters(reference_io: IO) -> None:
    e = predictions(reference_io)
    stronger = cumulative_guidance(*e, 3.0, 2.0)
    assert_close(stronger - reference_io["guided.w2"], e[1] - e[0], SMALL)
    assert (stronger - reference_io["guided.w2"]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("name", "scheduler_class"), [("ddpm", DDPMScheduler), ("ddim", DDIMScheduler)]
)
def test_trajectory(
    released: FPDM,
    reference: dict[str, Any],
    reference_io: IO,
    name: str,
    scheduler_class: type[Any],
) -> None:
    scheduler = scheduler_class.from_config(reference["schedulers"][name])
    scheduler.set_timesteps(3)
    assert scheduler.timesteps.tolist() == reference_io[f"traj.{name}.timesteps"].tolist()
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(1, 4, 16, 12, generator=generator)
    assert_close(latents, reference_io[f"traj.{name}.init_latents"], 0)

    tokens, pose_features, fusion = (
        reference_io[key][:1]
        for key in ("srcimage_proj_model.out", "pose_t_proj.out", "combiner.out")
    )
    for step, t in enumerate(scheduler.timesteps):
        guided = released.predict_guided(latents, t, tokens, pose_features, fusion)
        assert_close(guided[0], reference_io[f"traj.{name}.guided"][step], UNET)
        latents = scheduler.step(guided, t, latents, generator=generator).prev_sample
        assert_close(latents[0], reference_io[f"traj.{name}.latents"][step], UNET)
