# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 1's losses against the released code, and the retrieval rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pose_transfer.fpdm import info_nce, retrieval_ranks

FORMS = [("self_learning", True), ("baseline", False)]


@pytest.fixture(scope="module")
def recorded(fpdm_data: Path) -> dict[str, Any]:
    return json.loads((fpdm_data / "ipf_loss.json").read_text())


def embeds(recorded: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    names = ("img_t_feats", "img_s_feats", "fusion_feats")
    target, source, fused = (torch.tensor(recorded["inputs"][n], dtype=dtype) for n in names)
    return target, source, fused


@pytest.mark.parametrize(("form", "source_enhanced"), FORMS)
def test_info_nce_as_released(recorded: dict[str, Any], form: str, source_enhanced: bool) -> None:
    temperature, lambda_l1 = recorded["temperature"], recorded["lambda_l1"]
    for dtype, key in ((torch.float32, "loss_fp32"), (torch.float64, "loss_fp64")):
        loss = info_nce(*embeds(recorded, dtype), temperature, lambda_l1, source_enhanced)
        assert loss.item() == pytest.approx(recorded["outputs"][form][key], abs=1e-5)


@pytest.mark.parametrize(("form", "source_enhanced"), FORMS)
def test_l1_term_as_released(recorded: dict[str, Any], form: str, source_enhanced: bool) -> None:
    values = embeds(recorded, torch.float64)
    with_l1 = info_nce(*values, lambda_l1=1.0, source_enhanced=source_enhanced)
    without = info_nce(*values, lambda_l1=0.0, source_enhanced=source_enhanced)
    expected = recorded["outputs"][form]["logged_fp64"]["train_loss_fushion_l1"]
    assert (with_l1 - without).item() == pytest.approx(expected, abs=1e-9)


def test_rows_are_targets(recorded: dict[str, Any]) -> None:
    """Softmax over fusions, not over targets: the loss is not symmetric."""
    target, source, fused = embeds(recorded, torch.float64)
    swapped = info_nce(fused, source, target, lambda_l1=0.0, source_enhanced=False)
    plain = info_nce(target, source, fused, lambda_l1=0.0, source_enhanced=False)
    assert abs(swapped.item() - plain.item()) > 0.01


def test_loss_is_float32_and_finite_under_autocast() -> None:
    values = [torch.randn(4, 8, requires_grad=True) for _ in range(3)]
    target, source, fused = (100 * v for v in values)
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(target, source, fused)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, info_nce(target, source, fused))
    loss.backward()
    assert all(v.grad is not None and v.grad.isfinite().all() for v in values)


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\), \(2, 4\)"):
        info_nce(torch.zeros(3, 4), torch.zeros(2, 4), torch.zeros(3, 4))


def test_ranks_as_released(recorded: dict[str, Any]) -> None:
    target, _, fused = embeds(recorded, torch.float32)
    ranks = retrieval_ranks(target, fused)
    logged = recorded["outputs"]["baseline"]["logged_fp32"]
    assert (ranks <= 1).float().mean().item() == pytest.approx(logged["train_fushion_acc_top1"])
    assert ranks.float().mean().item() == pytest.approx(logged["train_fushion_acc_mean_pos"])


def test_rank_of_chosen_positives() -> None:
    gallery = torch.eye(4)
    queries = torch.tensor([[0.1, 0.2, 0.3, 0.4], [9.0, 1.0, 0.0, 0.0]])
    assert retrieval_ranks(queries, gallery, torch.tensor([3, 1])).tolist() == [1, 2]


def test_constant_embedding_does_not_look_perfect() -> None:
    assert retrieval_ranks(torch.ones(3, 4), torch.ones(3, 4)).tolist() == [3, 3, 3]
