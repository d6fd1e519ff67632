# SPDX-License-Identifier: GPL-3.0-or-later
"""The mannequin world's visual consistency module, with the image tower that it looks through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..errors import CheckpointError
from ..fpdm.conv_towers import ConvImageTower, build_image_tower
from ..fpdm.preprocess import FPDMPreprocess
from ..oneposetrans import VCM, read_vcm_file
from ..weights import load_into
from .architecture import EMBED_SIZE
from .models import GET_AGAIN, WEIGHTS, existing

VCM_FILE = "mannequin_vcm.safetensors"
VCM_WEIGHTS = WEIGHTS / VCM_FILE


class DemoImageTower(nn.Module):
    """Pictures (B, H, W, 3) in [0, 1] -> image embeddings (B, E)."""

    def __init__(self, tower: ConvImageTower) -> None:
        super().__init__()
        self.tower = tower
        self.preprocess = FPDMPreprocess(embed_size=EMBED_SIZE)

    def forward(self, image_bhwc: Tensor) -> Tensor:
        pixels = self.preprocess.embed_pixels(image_bhwc).to(self.tower.device)
        embeds = self.tower(pixels).image_embeds
        assert embeds is not None
        return embeds


@dataclass(frozen=True, eq=False)
class DemoVCM:
    vcm: VCM
    tower: DemoImageTower


def load_vcm(path: Path | str = VCM_WEIGHTS) -> DemoVCM:
    """Both, in float32 and in evaluation mode. Raises CheckpointError."""
    file = read_vcm_file(existing(Path(path)))
    if file.image is None or file.image_tower is None:
        raise CheckpointError(f"{path} is not the demo's: it has no image tower. {GET_AGAIN}")
    tower = build_image_tower(file.image_tower.config)
    load_into(tower, file.image_tower.tensors, "the image tower")
    module = DemoImageTower(tower).eval().requires_grad_(False)
    return DemoVCM(VCM(file.image, file.face).float().eval(), module)
