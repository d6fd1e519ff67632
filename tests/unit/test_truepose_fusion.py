# SPDX-License-Identifier: GPL-3.0-or-later
"""TruePose's attention against the formula written out token by token, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pose_transfer.truepose import (
    attention_mass,
    correspondence_logits,
    fusion_attention,
    joined_attention,
    kept_tokens,
)
from pose_transfer.truepose import fusion as module

BATCH, TARGET, SOURCE, HEADS, WIDTH, REGIONS = 2, 5, 7, 3, 12, 4
BETA, EPS = 1.7, 1e-3


@pytest.fixture
def given() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    gate = random(BATCH, SOURCE).abs()
    gate[:, 2] = 0.0
    gate[0, 4] = 0.0
    return {
        "q": random(BATCH, TARGET, WIDTH),
        "k_t": random(BATCH, TARGET, WIDTH),
        "v_t": random(BATCH, TARGET, WIDTH),
        "k_s": random(BATCH, SOURCE, WIDTH),
        "v_s": random(BATCH, SOURCE, WIDTH),
        "gate": gate,
        "target_regions": random(BATCH, TARGET, REGIONS).sigmoid(),
        "source_regions": random(BATCH, SOURCE, REGIONS).sigmoid(),
    }


def tokens_of(given: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return given["q"], given["k_t"], given["v_t"], given["k_s"], given["v_s"]


def written_out(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Fused tokens (B, N_t, C) and head-mean attention to source tokens (B, N_t, N_s)."""
    q, k_t, v_t, k_s, v_s = tokens_of(given)
    out, to_source = torch.zeros_like(q), torch.zeros(BATCH, TARGET, SOURCE, dtype=q.dtype)
    size = WIDTH // HEADS
    for b in range(BATCH):
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            for i in range(TARGET):
                weights, values = [], []
                for j in range(TARGET):
                    logit = sum(q[b, i, part] * k_t[b, j, part]) / math.sqrt(size)
                    weights.append(math.exp(logit))
                    values.append(v_t[b, j, part])
                for j in range(SOURCE):
                    shared = sum(given["target_regions"][b, i] * given["source_regions"][b, j])
                    logit = sum(q[b, i, part] * k_s[b, j, part]) / math.sqrt(size)
                    weights.append(
                        math.exp(logit) * float(given["gate"][b, j]) * float(EPS + shared) ** BETA
                    )
                    values.append(v_s[b, j, part])
                total = sum(weights)
                out[b, i, part] = sum(w / total * v for w, v in zip(weights, values, strict=True))
                for j in range(SOURCE):
                    to_source[b, i, j] += weights[TARGET + j] / total / HEADS
    return out, to_source


def correspondence(given: dict[str, Tensor]) -> Tensor:
    return correspondence_logits(given["target_regions"], given["source_regions"], BETA, EPS)


def test_one_softmax_over_target_and_source(given: dict[str, Tensor]) -> None:
    got = fusion_attention(*tokens_of(given), given["gate"], correspondence(given), HEADS)
    torch.testing.assert_close(got, written_out(given)[0], rtol=1e-12, atol=1e-12)


def test_gates_alone_need_one_row_only(
    given: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = []
    original = module.F.scaled_dot_product_attention

    def watched(*args: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        masks.append(None if attn_mask is None else tuple(attn_mask.shape))
        return original(*args, attn_mask=attn_mask)

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", watched)
    gated = fusion_attention(*tokens_of(given), given["gate"], None, HEADS)
    fusion_attention(*tokens_of(given), given["gate"], correspondence(given), HEADS)
    fusion_attention(*tokens_of(given), None, None, HEADS)
    keys = TARGET + SOURCE
    assert masks == [(BATCH, 1, 1, keys), (BATCH, 1, TARGET, keys), None]

    same = fusion_attention(
        *tokens_of(given), None, given["gate"].log()[:, None].expand(-1, TARGET, -1), HEADS
    )
    torch.testing.assert_close(gated, same, rtol=1e-12, atol=1e-12)


def test_tokens_without_weight_may_be_left_out(given: dict[str, Tensor]) -> None:
    kept = kept_tokens(given["gate"])
    assert kept.tolist() == [0, 1, 3, 4, 5, 6]  # token 4 is kept for the second picture
    q, k_t, v_t, k_s, v_s = tokens_of(given)
    bias = correspondence(given)
    fewer = fusion_attention(
        q, k_t, v_t, k_s[:, kept], v_s[:, kept], given["gate"][:, kept], bias[..., kept], HEADS
    )
    every = fusion_attention(q, k_t, v_t, k_s, v_s, given["gate"], bias, HEADS)
    torch.testing.assert_close(fewer, every, rtol=1e-12, atol=1e-12)


def test_a_gate_of_zero_everywhere_is_plain_attention(given: dict[str, Tensor]) -> None:
    q, k_t, v_t, k_s, v_s = tokens_of(given)
    none = k_s[:, :0]
    plain = fusion_attention(q, k_t, v_t, none, none, None, None, HEADS)
    closed = fusion_attention(q, k_t, v_t, k_s, v_s, 0 * given["gate"], None, HEADS)
    torch.testing.assert_close(closed, plain, rtol=1e-12, atol=1e-12)
    joined = joined_attention(plain, q, k_t, k_s, v_s, 0 * given["gate"], None, HEADS)
    torch.testing.assert_close(joined, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [2, 512])
def test_joining_plain_attention_is_one_softmax_too(
    given: dict[str, Tensor], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    q, k_t, v_t, k_s, v_s = tokens_of(given)
    plain = fusion_attention(q, k_t, v_t, k_s[:, :0], v_s[:, :0], None, None, HEADS)
    bias = correspondence(given)
    got = joined_attention(plain, q, k_t, k_s, v_s, given["gate"], bias, HEADS)
    torch.testing.assert_close(got, written_out(given)[0], rtol=1e-12, atol=1e-12)


def test_attention_mass_is_what_falls_on_each_region(given: dict[str, Tensor]) -> None:
    q, k_t, _, k_s, _ = tokens_of(given)
    regions = given["source_regions"]
    got = attention_mass(q, k_t, k_s, given["gate"], correspondence(given), regions, HEADS)
    torch.testing.assert_close(got, written_out(given)[1] @ regions, rtol=1e-12, atol=1e-12)


def test_correspondence_holds_regions_together() -> None:
    regions = torch.eye(3, dtype=torch.float64)[None]
    bias = correspondence_logits(regions, regions, beta=2.0, eps=1e-3)
    assert bias.diagonal(dim1=1, dim2=2).abs().max() < 0.01
    assert float(bias[0, 0, 1]) == pytest.approx(2 * math.log(1e-3))


def test_half_precision_stays_near_the_exact_result(given: dict[str, Tensor]) -> None:
    q, k_t, v_t, k_s, v_s = (x.to(torch.bfloat16) for x in tokens_of(given))
    got = fusion_attention(q, k_t, v_t, k_s, v_s, given["gate"], correspondence(given), HEADS)
    assert got.dtype == torch.bfloat16
    assert (got.double() - written_out(given)[0]).abs().max() < 0.05
