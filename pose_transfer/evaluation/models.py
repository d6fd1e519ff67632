# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark measures: FPDM on its base, the autoencoder, the judge; and FPDM's variants.

The host decodes the demo's latents with its own TAESD class. Here the same weights run in
diffusers' layers, so that a machine without ComfyUI can measure them.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.autoencoders.vae import DecoderTiny, EncoderTiny
from torch import Tensor, nn

from ..demo.models import BASE_WEIGHTS, FPDM_WEIGHTS, load_base, require_fpdm_weights
from ..errors import CheckpointError
from ..fpdm import FPDM, load_checkpoint
from ..weights import load_into, read_weights, write_weights
from .judge import JUDGE_FILE, PatternJudge, load_judge
from .sampling import FusionSlot, fused_embedding, no_embedding, source_embedding


class TinyAutoencoder(nn.Module):
    """TAESD of 64 channels, from the `vae.*` tensors of the demo's base.

    Pictures are (B, H, W, 3) in [0, 1], latents (B, C, H/8, W/8) on the scale that the UNet sees.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        channels = (64,) * 4
        first = tensors.get("taesd_decoder.1.weight")
        if first is None:
            raise CheckpointError(
                "The demo autoencoder is incomplete: taesd_decoder.1.weight is missing. Restore "
                "the demo weights with git."
            )
        latents = first.shape[1]
        self.encoder = EncoderTiny(3, latents, (1, 3, 3, 3), channels, "relu")
        self.decoder = DecoderTiny(latents, 3, (3, 3, 3, 1), channels, 2, "relu", "nearest")
        self.scale, self.shift = (float(tensors[f"vae_{name}"]) for name in ("scale", "shift"))
        encoder, decoder = {}, {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            index, _, parameter = rest.partition(".")
            if part == "taesd_encoder":
                encoder[f"layers.{index}.{parameter}"] = tensor.float()
            elif part == "taesd_decoder":
                # TAESD counts its clamp as layer 0; diffusers has it outside the list.
                decoder[f"layers.{int(index) - 1}.{parameter}"] = tensor.float()
        load_into(self.encoder, encoder, "the demo autoencoder's encoder")
        load_into(self.decoder, decoder, "the demo autoencoder's decoder")

    def encode(self, image_bhwc: Tensor) -> Tensor:
        image = image_bhwc.permute(0, 3, 1, 2) * 2 - 1  # BHWC -> BCHW, as EncoderTiny takes it
        return self.encoder(image) / self.scale + self.shift

    def decode(self, latents: Tensor) -> Tensor:
        image = self.decoder((latents - self.shift) * self.scale)
        return ((image + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)  # BCHW -> BHWC


@dataclass(frozen=True, eq=False)
class DemoModels:
    """Everything under test, in eval mode on one device.

    `encode` maps pictures (B, H, W, 3) in [0, 1] to latents, `decode` back. `judge` is None where
    no judge is at hand; `fingerprints` name the files by the first 12 digits of their sha256.
    """

    fpdm: FPDM
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    judge: PatternJudge | None
    fingerprints: Mapping[str, str] = field(default_factory=dict)


def load_demo_models(device: torch.device | str) -> DemoModels:
    """The embedded demo models. Raises CheckpointError where FPDM's or the base's are missing."""
    base = load_base()
    unet = UNet2DConditionModel(**base.unet_config)
    load_into(unet, base.unet, "the demo UNet")
    fpdm = load_checkpoint(require_fpdm_weights(), base_unet=unet).float().to(device).eval()
    autoencoder = TinyAutoencoder(base.vae).to(device).eval()
    files = [path for path in (BASE_WEIGHTS, FPDM_WEIGHTS, JUDGE_FILE) if path.is_file()]
    return DemoModels(
        fpdm=fpdm,
        encode=autoencoder.encode,
        decode=autoencoder.decode,
        judge=load_judge(device=device) if JUDGE_FILE.is_file() else None,
        fingerprints={
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in files
        },
    )


@dataclass(frozen=True)
class Variant:
    """One line of the paper's ablation: what goes into the fusion slot, and whose weights.

    `shipped` means the demo's own FPDM weights; else a file `<name>.safetensors` is needed.
    `carry`: whether the demo's `SourceTransport`, which is not the paper's, takes part.
    `optional`: nobody misses it where its file is not at hand.
    """

    name: str
    title: str
    fusion: FusionSlot
    shipped: bool = False
    carry: bool = True
    optional: bool = False


VARIANTS = (
    Variant("B3", "FPDM without fusion", no_embedding),
    Variant("B4", "source embedding in the fusion slot", source_embedding),
    Variant("B5", "IPF, baseline loss", fused_embedding),
    Variant("B6", "IPF, source-enhanced loss (shipped)", fused_embedding, shipped=True),
    Variant("B6+", "B6, trained on for as long as B3 to B5", fused_embedding, optional=True),
    Variant("B6-", "B6 without the carried colours", fused_embedding, shipped=True, carry=False),
)


def load_variant(variant: Variant, shipped: FPDM, folder: Path | None) -> FPDM | None:
    """The variant's FPDM, on the device of the shipped one; None where its file is not at hand.

    A variant's file holds the tensors that differ from the shipped model, by the names of
    `FPDM.state_dict()`; see `save_variant`. Raises CheckpointError for names or shapes that the
    shipped model does not have.
    """
    if variant.shipped:
        return shipped
    path = None if folder is None else folder / f"{variant.name}.safetensors"
    if path is None or not path.is_file():
        return None
    changed = read_weights(path).tensors
    state = shipped.state_dict()
    wrong = [
        name for name, tensor in changed.items()
        if name not in state or state[name].shape != tensor.shape
    ]  # fmt: skip
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the shipped FPDM: {', '.join(wrong[:5])}. Save it with "
            "`save_variant` from a model of the same architecture."
        )
    model = copy.deepcopy(shipped)
    model.load_state_dict(changed, strict=False)
    return model.eval()


def save_variant(model: FPDM, shipped: FPDM, path: Path | str) -> None:
    """Write the tensors in which `model` differs from `shipped`, in fp16."""
    base = {name: tensor.cpu() for name, tensor in shipped.state_dict().items()}
    changed = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
        if not torch.equal(tensor.cpu(), base[name])
    }
    write_weights(path, changed, {"format": "pose_transfer.fpdm_variant", "version": "1"})
