# SPDX-License-Identifier: GPL-3.0-or-later
"""The autoencoder without a host, and the files of FPDM's variants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pose_transfer.demo.models import load_base
from pose_transfer.detectors.demo import load_demo_face_encoder
from pose_transfer.errors import CheckpointError
from pose_transfer.evaluation.metrics import view_of
from pose_transfer.evaluation.models import VARIANTS, TinyAutoencoder, load_variant, save_variant
from pose_transfer.evaluation.person_measures import face_scores
from pose_transfer.evaluation.sampling import to_uint8
from pose_transfer.fpdm import FPDM
from pose_transfer.mannequin import pair_seeds, render, sample_pose

MakeFPDM = Callable[..., FPDM]
BY_NAME = {variant.name: variant for variant in VARIANTS}


class Block(nn.Module):
    """A residual block of TAESD, 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(64, 64), nn.ReLU(), conv(64, 64), nn.ReLU(), conv(64, 64)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


def taesd() -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder in the layout of the released TAESD."""
    encoder: list[nn.Module] = [conv(3, 64), Block()]
    for _ in range(3):
        encoder += [conv(64, 64, 2, bias=False), Block(), Block(), Block()]
    decoder: list[nn.Module] = [Clamp(), conv(4, 64), nn.ReLU()]
    for _ in range(3):
        decoder += [Block(), Block(), Block(), nn.Upsample(scale_factor=2)]
        decoder += [conv(64, 64, bias=False)]
    return nn.Sequential(*encoder, conv(64, 4)), nn.Sequential(*decoder, Block(), conv(64, 3))


@torch.no_grad()
def test_autoencoder_computes_what_taesd_does() -> None:
    torch.manual_seed(0)
    encoder, decoder = taesd()
    scale, shift = 1.7, -0.3
    tensors = {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(shift)}
    for part, module in (("taesd_encoder", encoder), ("taesd_decoder", decoder)):
        tensors |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
    autoencoder = TinyAutoencoder(tensors)
    image, latents = torch.rand(2, 64, 48, 3), torch.randn(2, 4, 8, 6)
    expected = encoder(image.permute(0, 3, 1, 2)) / scale + shift
    torch.testing.assert_close(autoencoder.encode(image), expected)
    expected = decoder((latents - shift) * scale).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(autoencoder.decode(latents), expected)


def test_the_demo_s_autoencoder_keeps_faces() -> None:
    """The face encoder knows who it was: what is lost here no training of the UNet brings back."""
    autoencoder = TinyAutoencoder(load_base().vae).eval()
    targets = [x for x in pair_seeds("test", 60, 0).tolist() if _faces_us(x[2])][:12]
    truths = [render(identity, pose).image for identity, _, pose in targets]
    pixels = torch.from_numpy(np.stack(truths)).float() / 255
    with torch.no_grad():
        decoded = to_uint8(autoencoder.decode(autoencoder.encode(pixels))).numpy()
    own, others = (
        face_scores(decoded, images, load_demo_face_encoder())["face"]
        for images in (truths, truths[1:] + truths[:1])
    )
    # Measured: .78; the decoder before that one was taught faces: .65.
    assert own.mean() > 0.72
    assert np.nanmax(others) < own.mean() - 0.3


def _faces_us(pose_seed: int) -> bool:
    return view_of(sample_pose(pose_seed).yaw) == "front"


def test_incomplete_autoencoder_is_refused() -> None:
    tensors = {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}
    with pytest.raises(CheckpointError, match="encoder"):
        TinyAutoencoder(tensors)


def test_variant_file_holds_and_restores_the_difference(
    make_fpdm: MakeFPDM, tmp_path: Path
) -> None:
    shipped, changed = make_fpdm(), make_fpdm()
    with torch.no_grad():
        assert changed.combiner is not None
        changed.combiner.output_layer.bias.fill_(0.25)
    save_variant(changed, shipped, tmp_path / "B5.safetensors")
    assert list(load_file(tmp_path / "B5.safetensors")) == ["combiner.output_layer.bias"]
    before = {name: value.clone() for name, value in shipped.state_dict().items()}
    loaded = load_variant(BY_NAME["B5"], shipped, tmp_path)
    assert loaded is not None and loaded is not shipped
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, changed.state_dict()[name]), name
        assert torch.equal(before[name], shipped.state_dict()[name]), "the shipped model changed"


def test_missing_variant_is_none_and_the_shipped_one_needs_no_file(
    make_fpdm: MakeFPDM, tmp_path: Path
) -> None:
    shipped = make_fpdm()
    assert load_variant(BY_NAME["B6"], shipped, None) is shipped
    assert load_variant(BY_NAME["B3"], shipped, None) is None
    assert load_variant(BY_NAME["B3"], shipped, tmp_path) is None


@pytest.mark.parametrize("tensors", [{"no.such": torch.zeros(1)},
                                     {"combiner.output_layer.bias": torch.zeros(3)}])  # fmt: skip
def test_variant_of_another_architecture_is_refused(
    tensors: dict[str, Tensor], make_fpdm: MakeFPDM, tmp_path: Path
) -> None:
    save_file(tensors, str(tmp_path / "B4.safetensors"))
    with pytest.raises(CheckpointError, match=next(iter(tensors))):
        load_variant(BY_NAME["B4"], make_fpdm(), tmp_path)
