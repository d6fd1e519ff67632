# SPDX-License-Identifier: GPL-3.0-or-later
"""The visual consistency module against numbers made by running the released code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from pose_transfer.oneposetrans import (
    VCM,
    ImageProjection,
    Resampler,
    TokenAdapter,
    face_value,
    vcm_attention,
)
from pose_transfer.oneposetrans.vcm import replace_value
from pose_transfer.oneposetrans.vcm_adapter import average_face
from pose_transfer.oneposetrans.vcm_plan import Plan

DATA = Path(__file__).parent.parent / "data" / "vcm"
HEADS = 4


def close(got: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    return {k: x.float() for k, x in load_file(DATA / "attention.safetensors").items()}


@pytest.fixture(scope="module")
def projections() -> dict[str, Tensor]:
    return {k: x.float() for k, x in load_file(DATA / "projections.safetensors").items()}


def project(io: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of the reference's inputs."""
    text, ip, face = io["in.encoder_hidden_states"].split((77, 4, 16), dim=1)
    return {
        "q": F.linear(io["in.hidden_states"], io["attn.to_q.weight"]),
        "k": F.linear(text, io["attn.to_k.weight"]),
        "v": F.linear(text, io["attn.to_v.weight"]),
        "ip_k": F.linear(ip, io["processor.to_k_ip.weight"]),
        "ip_v": F.linear(ip, io["processor.to_v_ip.weight"]),
        "face": F.linear(face, io["processor.to_face_v_ip.weight"]),
    }


@pytest.mark.parametrize(
    ("name", "scale_ip", "scale_face"),
    [
        ("out.face_ip1.0_face0.0", 1.0, 0.0),
        ("out.face_ip1.0_face0.8", 1.0, 0.8),
        ("out.face_ip0.4_face0.0", 0.4, 0.0),
        ("out.face_ip0.0_face0.0", 0.0, 0.0),
        ("out.noface_ip1.0", 1.0, 0.0),
        ("out.noface_ip0.4", 0.4, 0.0),
        ("out.noface_ip0.0", 0.0, 0.0),
    ],
)
def test_attention_is_the_released_one(
    io: dict[str, Tensor], name: str, scale_ip: float, scale_face: float
) -> None:
    given = project(io)
    # The released code makes the face's keys with its value projection.
    face = None if "noface" in name else given.pop("face")
    given.pop("face", None)
    out = vcm_attention(
        **given, face_k=face, face_v=face, token_index=4,
        scale_ip=scale_ip, scale_face=scale_face, heads=HEADS,
    )  # fmt: skip
    close(F.linear(out, io["attn.to_out.0.weight"], io["attn.to_out.0.bias"]), io[name])


def test_face_value_is_the_released_one(io: dict[str, Tensor]) -> None:
    close(project(io)["face"], io["face.face_value"])
    close(face_value(io["face.face_value"]), io["face.replaced_value"])


def test_only_the_face_words_values_change(io: dict[str, Tensor]) -> None:
    v = torch.randn(2, 80, 64)  # three more tokens than the text: another pack's
    words = torch.zeros(1, 77, dtype=torch.bool)
    words[:, [4, 9]] = True
    replaced = replace_value(v, io["face.replaced_value"], words)
    changed = (replaced != v).any(-1).any(0).nonzero()[:, 0]
    assert changed.tolist() == [4, 9]
    close(replaced[:, 9:10], io["face.replaced_value"])
    given = project(io)
    face = given.pop("face")
    scales = {"scale_ip": 1.0, "scale_face": 0.0, "heads": HEADS}
    one, same, two = (
        vcm_attention(**given, face_k=face, face_v=face, token_index=index, **scales)
        for index in (4, [4], [4, 9])
    )
    close(one, same, 0)
    assert (two - one).abs().max() > 0.01


def test_resampler_is_the_released_one(projections: dict[str, Tensor]) -> None:
    resampler = Resampler(
        dim=64, depth=2, dim_head=16, heads=4, num_queries=16, embedding_dim=512, output_dim=96,
        ff_mult=4,
    )  # fmt: skip
    resampler.load_state_dict(part(projections, "resampler."))
    face = projections["in.face_embedding"]
    close(resampler(face), projections["out.face_tokens"])
    close(resampler(0 * face), projections["out.face_tokens_zero"])


def test_image_projection_is_the_released_one(projections: dict[str, Tensor]) -> None:
    projection = ImageProjection(
        cross_attention_dim=96, clip_embeddings_dim=80, clip_extra_context_tokens=4
    )
    projection.load_state_dict(part(projections, "image_proj."))
    embeds = projections["in.clip_image_embeds"]
    close(projection(embeds), projections["out.ip_tokens"])
    close(projection(0 * embeds), projections["out.ip_tokens_zero"])


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}


@pytest.mark.parametrize("face_scale", [0.0, 0.7])
@pytest.mark.parametrize("with_face", [True, False])
def test_a_packed_plan_adds_what_the_attention_adds(face_scale: float, with_face: bool) -> None:
    torch.manual_seed(0)
    widths, scales = (8, 16, 8), (1.0, 0.0, 0.4)

    def adapter(projection: ImageProjection | Resampler) -> TokenAdapter:
        to_k, to_v = ([torch.randn(c, 12) for c in widths] for _ in range(2))
        return TokenAdapter(projection, to_v, to_k).requires_grad_(False)

    vcm = VCM(adapter(ImageProjection(12, 6, 2)), adapter(Resampler(16, 1, 8, 2, 3, 512, 12, 2)))
    assert vcm.face is not None
    image, face = vcm.image.tokens(torch.randn(1, 6)), vcm.face.tokens(torch.randn(1, 512))
    plan = Plan(widths, scales, 2, 3 if with_face else 0, face_scale)
    packed = plan.pack(vcm, image, face if with_face else None)
    assert packed.shape == (1, plan.size)
    for i, (added, width) in enumerate(zip(plan.unpack(packed), widths, strict=True)):
        q, k, v = torch.randn(2, 5, width), torch.randn(2, 7, width), torch.randn(2, 7, width)
        keys = (vcm.face.key(face, i), vcm.face.value(face, i)) if with_face else (None, None)
        ip = (x.expand(2, -1, -1) for x in (vcm.image.key(image, i), vcm.image.value(image, i)))
        expected = vcm_attention(
            q, k, v, *ip, *(x if x is None else x.expand(2, -1, -1) for x in keys),
            token_index=3, scale_ip=scales[i], scale_face=face_scale, heads=2,
        )  # fmt: skip
        assert plan.acts(i) == (bool(scales[i]) or with_face)
        words = torch.arange(7)[None] == 3
        if added.value is not None:
            v = replace_value(v, added.value, words)
        got = vcm_attention(q, k, v, None, None, None, None, (), 0.0, 0.0, 2)
        more = plan.unpack(packed.expand(2, -1))[i].attend(q, 2)
        close(got if more is None else got + more, expected)


def test_faces_of_several_pictures_are_averaged() -> None:
    raw = torch.randn(3, 512) * 20
    assert average_face(raw, torch.tensor([False] * 3)) is None
    one = average_face(raw, torch.tensor([False, True, False]))
    assert one is not None and torch.equal(one, raw[1:2])
    both = average_face(torch.cat([raw[:1], raw[:1] * 3]), torch.tensor([True, True]))
    assert both is not None
    close(both, raw[:1] * 2, 1e-3)
