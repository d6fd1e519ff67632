# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter files are known by their tensors; anything else is refused with a sentence."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pose_transfer.errors import CheckpointError
from pose_transfer.oneposetrans import VCM, ImageProjection, Resampler, read_vcm_file, save_vcm
from pose_transfer.oneposetrans.vcm_files import Tower

DATA = Path(__file__).parent.parent / "data" / "vcm"
WIDTHS = (16, 16, 32)
Nested = dict[str, dict[str, Tensor]]


def attentions(token_width: int) -> dict[str, Tensor]:
    """Odd numbers, as the files have them: the even ones are self-attentions."""
    torch.manual_seed(0)
    return {
        f"{2 * i + 1}.to_{side}_ip.weight": torch.randn(width, token_width)
        for i, width in reversed(list(enumerate(WIDTHS)))
        for side in "kv"
    }


def plain(embed_width: int = 1024, token_width: int = 24) -> Nested:
    projection = ImageProjection(token_width, embed_width, 4)
    return {"image_proj": projection.state_dict(), "ip_adapter": attentions(token_width)}


def resampled(embed_width: int, depth: int = 2, token_width: int = 24) -> Nested:
    """Heads are 64 wide in released files."""
    projection = Resampler(32, depth, 64, 3, 5, embed_width, token_width, 2)
    return {"image_proj": projection.state_dict(), "ip_adapter": attentions(token_width)}


def as_bin(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def as_safetensors(content: Nested, path: Path) -> Path:
    flat = {f"{part}.{k}": x.contiguous() for part, xs in content.items() for k, x in xs.items()}
    save_file(flat, path)
    return path


@pytest.fixture(params=[as_bin, as_safetensors], ids=["bin", "safetensors"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Nested], Path]:
    # The name tells nothing.
    return lambda content: request.param(content, tmp_path / "weights.pt")


@pytest.mark.parametrize("embed_width", [1024, 1280], ids=["ViT-H", "ViT-bigG"])
def test_plain_ip_adapters(write: Callable[[Nested], Path], embed_width: int) -> None:
    content = plain(embed_width)
    file = read_vcm_file(write(content))
    assert file.face is None and file.image is not None
    assert file.image.widths == WIDTHS and file.image.embed_width == embed_width
    assert not file.image.reads_states and not file.image.reads_faces
    embeds = torch.randn(2, embed_width)
    tokens = file.image.tokens(embeds)
    assert tokens.shape == (2, 4, 24)
    for i in range(3):
        for got, side in ((file.image.key, "k"), (file.image.value, "v")):
            weight = content["ip_adapter"][f"{2 * i + 1}.to_{side}_ip.weight"]
            torch.testing.assert_close(got(tokens, i), tokens @ weight.T)


def test_plus_ip_adapters(write: Callable[[Nested], Path]) -> None:
    file = read_vcm_file(write(resampled(1280)))
    assert file.face is None and file.image is not None and file.image.reads_states
    projection = file.image.projection
    assert isinstance(projection, Resampler) and projection.heads == 3
    assert len(projection.layers) == 2
    assert file.image.tokens(torch.randn(1, 257, 1280)).shape == (1, 5, 24)


def test_instantid_gives_the_face_and_its_keys_by_the_values(
    write: Callable[[Nested], Path],
) -> None:
    file = read_vcm_file(write(resampled(512)))
    assert file.image is None and file.face is not None and file.face.reads_faces
    tokens = file.face.tokens(torch.randn(1, 512))
    assert tokens.shape == (1, 5, 24)
    assert torch.equal(file.face.key(tokens, 1), file.face.value(tokens, 1))


def test_the_released_resampler_s_numbers_come_through_a_file(tmp_path: Path) -> None:
    reference = load_file(DATA / "projections.safetensors")

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): x for k, x in reference.items() if k.startswith(prefix)}

    image = read_vcm_file(
        as_bin({"image_proj": part("image_proj."), "ip_adapter": attentions(96)}, tmp_path / "i")
    ).image
    face = read_vcm_file(
        as_bin({"image_proj": part("resampler."), "ip_adapter": attentions(96)}, tmp_path / "f")
    ).face
    assert image is not None and face is not None and isinstance(face.projection, Resampler)
    # This tiny one has heads of 16; the width of a head is in no released file.
    face.projection.heads = 4
    for layer in face.projection.layers:
        layer[0].heads = 4  # type: ignore[index]
    path = tmp_path / "own"
    tower = Tower({"kind": "convolutional"}, {"stem.weight": torch.ones(2, 2)})
    save_vcm(VCM(image, face), path, tower=tower)
    own = read_vcm_file(path)
    assert own.image is not None and own.face is not None and own.image_tower is not None
    assert own.image_tower.config == tower.config
    assert torch.equal(own.image_tower.tensors["stem.weight"], torch.ones(2, 2))
    for got, expected in (
        (own.image.tokens(reference["in.clip_image_embeds"]), reference["out.ip_tokens"]),
        (own.face.tokens(reference["in.face_embedding"][:, 0]), reference["out.face_tokens"]),
    ):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert own.image.to_k is not None and own.face.to_k is None
    assert own.image.widths == WIDTHS


def test_parts_for_different_unets_are_told_apart(tmp_path: Path) -> None:
    image = read_vcm_file(as_bin(plain(), tmp_path / "image")).image
    other = resampled(512)
    other["ip_adapter"] = {k: x for k, x in other["ip_adapter"].items() if not k.startswith("5")}
    face = read_vcm_file(as_bin(other, tmp_path / "face")).face
    assert image is not None
    with pytest.raises(CheckpointError, match="3 cross-attentions of widths 16, 32"):
        VCM(image, face)


def broken(change: Callable[[Nested], object]) -> Nested:
    content = plain()
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {"unet.weight": torch.ones(1)}}, "neither an IP-Adapter nor an InstantID"),
        (
            broken(lambda c: c["ip_adapter"].update({"0.to_q_lora.down.weight": torch.ones(2, 2)})),
            "FaceID",
        ),
        (
            {**plain(), "image_proj": {"proj.0.weight": torch.ones(2, 2)}},
            "Full-face and FaceID files are not supported",
        ),
        (broken(lambda c: c["ip_adapter"].popitem()), "key or a value only"),
        (broken(lambda c: c["image_proj"].pop("proj.bias")), "do not fit"),
        ({**plain(), "ip_adapter": attentions(20)}, "tokens are 24 wide, the attentions take 20"),
    ],
    ids=["another model", "FaceID", "full face", "half", "incomplete", "mixed"],
)
def test_other_files_are_refused(content: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_vcm_file(as_bin(content, tmp_path / "ip-adapter.bin"))


def test_code_in_a_bin_file_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "ip-adapter.bin"
    path.write_bytes(pickle.dumps({"image_proj": Trap()}))
    with pytest.raises(CheckpointError):
        read_vcm_file(path)
    torch.save({"image_proj": Trap()}, path)
    with pytest.raises(CheckpointError, match="refused"):
        read_vcm_file(path)
    assert not (tmp_path / "sprung").exists()


def test_an_own_file_of_another_version_is_refused(tmp_path: Path) -> None:
    metadata = {"format": "pose_transfer.vcm", "version": "2", "config": json.dumps({})}
    save_file({"image.to_v.0": torch.ones(2, 2)}, tmp_path / "vcm", metadata)
    with pytest.raises(CheckpointError, match="its version is 2, expected 1"):
        read_vcm_file(tmp_path / "vcm")
