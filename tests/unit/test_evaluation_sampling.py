# SPDX-License-Identifier: GPL-3.0-or-later
"""The host-free sampler: DDIM reaches what a perfect model knows, pass by pass."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from pose_transfer.evaluation.sampling import (
    SamplingSettings,
    fused_embedding,
    no_embedding,
    sample_latents,
    scheduler_for,
    source_embedding,
    to_uint8,
)
from pose_transfer.fpdm import FPDM

SHORT = SamplingSettings(steps=3)


class Oracle:
    """Stands in for an FPDM that knows the clean latents and what each condition adds."""

    def __init__(self, clean: Tensor, unet_channels: int = 4) -> None:
        self.unet = SimpleNamespace(config={"in_channels": unet_channels})
        self.clean = clean
        self.alphas = scheduler_for(20).alphas_cumprod
        self.weights: set[tuple[float, float]] = set()

    def source_hidden(self, source: Tensor) -> Tensor:
        return source.mean((1, 2))[:, None]

    def source_tokens(self, hidden: Tensor) -> Tensor:
        return hidden

    def pose_features(self, pose_map: Tensor) -> Tensor:
        return pose_map

    def carried_features(self, photo: Tensor, hidden: Tensor, pose_map: Tensor) -> None:
        """Nothing, as of every FPDM but the demo's."""

    def fuse(self, source: Tensor, pose_map: Tensor) -> Tensor:
        return torch.ones(len(source), 5)

    def predict_guided(
        self, x: Tensor, t: Tensor, tokens: Tensor, pose: Tensor, fusion: Tensor,
        w_source: float, w_fusion: float,
    ) -> Tensor:  # fmt: skip
        self.weights.add((w_source, w_fusion))
        a = self.alphas[t]
        noise = (x - a.sqrt() * self.clean) / (1 - a).sqrt()
        return a.sqrt() * noise - (1 - a).sqrt() * self.clean


def pictures(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.rand(batch, 64, 48, 3, generator=generator),
        torch.rand(batch, 64, 48, 3, generator=generator),
    )


def test_perfect_model_is_followed_to_the_clean_latents() -> None:
    clean = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    oracle = Oracle(clean)
    settings = SamplingSettings(steps=20, source_weight=1.5, fusion_weight=3.0)
    got = sample_latents(cast(Any, oracle), *pictures(), [7, 8], settings)
    torch.testing.assert_close(got, clean, atol=1e-3, rtol=1e-3)
    assert oracle.weights == {(1.5, 3.0)}, "source and fusion weight must not be mixed up"


def test_scheduler_starts_at_noise_and_ends_clean() -> None:
    times = scheduler_for(20).timesteps.tolist()
    assert times[0] == 999 and len(times) == 20 and times == sorted(times, reverse=True)
    assert scheduler_for(20).config["prediction_type"] == "v_prediction"


def test_picture_depends_on_its_seed_and_not_on_its_batch(make_fpdm: Callable[..., FPDM]) -> None:
    fpdm = make_fpdm()
    source, pose = pictures(3)
    together = sample_latents(fpdm, source, pose, [5, 6, 7], SHORT)
    alone = sample_latents(fpdm, source[1:2], pose[1:2], [6], SHORT)
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)
    other = sample_latents(fpdm, source[1:2], pose[1:2], [9], SHORT)
    assert (other - alone).abs().max() > 1e-2


def test_fusion_slots_differ_and_the_empty_one_is_zero(make_fpdm: Callable[..., FPDM]) -> None:
    fpdm = make_fpdm()
    source, pose = pictures()
    fused, alone, empty = (
        slot(fpdm, source, pose) for slot in (fused_embedding, source_embedding, no_embedding)
    )
    assert fused.shape == alone.shape == empty.shape == (2, 10)
    torch.testing.assert_close(fused.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(2))
    assert not empty.any() and (fused - alone).abs().max() > 1e-3


def test_without_fusion_the_fusion_weight_changes_nothing(make_fpdm: Callable[..., FPDM]) -> None:
    fpdm = make_fpdm()
    source, pose = pictures(1)
    results = [
        sample_latents(fpdm, source, pose, [1], SamplingSettings(3, 2.0, w), no_embedding)
        for w in (0.0, 5.0)
    ]
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


def test_unequal_batches_are_counted_in_the_error(make_fpdm: Callable[..., FPDM]) -> None:
    source, pose = pictures(3)
    with pytest.raises(ValueError, match="2 sources, 3 pose maps and 3 noise seeds"):
        sample_latents(make_fpdm(), source[:2], pose, [1, 2, 3], SHORT)
    with pytest.raises(ValueError, match="multiples of 8"):
        sample_latents(make_fpdm(), source, pose[:, :60], [1, 2, 3], SHORT)
    with pytest.raises(ValueError, match="no UNet"):
        sample_latents(make_fpdm(unet=None), source, pose, [1, 2, 3], SHORT)


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-0.5, 0.0, 0.5, 1.0, 2.0])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255]
