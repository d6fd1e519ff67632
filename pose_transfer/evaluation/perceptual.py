# SPDX-License-Identifier: GPL-3.0-or-later
"""LPIPS (Zhang et al. 2018) with its trunk from a local file.

The released code's setting: AlexNet, version 0.1, pictures scaled to [-1, 1], one number per pair.
The package lpips brings the small linear layers itself; left alone it would download the trunk.
"""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, MissingDependencyError
from ..weights import read_weights

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
ALEXNET_URL = f"https://download.pytorch.org/models/{ALEXNET_FILE}"
SMALLEST = 63
"""Pictures with a shorter side have no cell left in the trunk's last layers."""


class PerceptualDistance(nn.Module):
    """Pictures (B, 3, H, W) uint8 and true ones -> LPIPS (B,), 0 for equal pictures."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, image_bchw: Tensor, truth_bchw: Tensor) -> Tensor:
        if min(image_bchw.shape[2:]) < SMALLEST:
            raise ValueError(
                f"LPIPS needs pictures of at least {SMALLEST} x {SMALLEST} pixels, got "
                f"{tuple(image_bchw.shape[2:])} (H, W)."
            )
        x, y = (picture.float() / 127.5 - 1 for picture in (image_bchw, truth_bchw))
        return self.network(x, y).flatten()


def load_perceptual_distance(trunk: str | Path) -> PerceptualDistance:
    """LPIPS on the CPU, its trunk from torchvision's AlexNet file.

    Raises CheckpointError for a file that is missing, refused or of another network, and
    MissingDependencyError.
    """
    trunk = Path(trunk)
    if not trunk.is_file():
        raise CheckpointError(
            f"LPIPS needs AlexNet's weights, and there is no file {trunk}. Get {ALEXNET_URL} "
            "(244 MB, torchvision), put it anywhere and name it with --lpips-weights. Nothing is "
            "downloaded by itself."
        )
    try:
        import lpips
    except ImportError as error:
        raise MissingDependencyError(
            "LPIPS needs the package lpips, which is not installed. Install the extra: "
            "pip install '.[evaluation]', or: pip install lpips"
        ) from error
    with warnings.catch_warnings():
        # lpips asks torchvision in a way that it has renamed since.
        warnings.simplefilter("ignore")
        # A random trunk is the one way in which the package does not reach for the network.
        network: Any = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    linear = Path(inspect.getfile(lpips)).parent / "weights" / "v0.1" / "alex.pth"
    _fill(network.net, _trunk_names(network.net), trunk, "torchvision's AlexNet", ALEXNET_URL)
    heads = nn.ModuleDict({f"lin{n}": getattr(network, f"lin{n}") for n in range(network.L)})
    own = {name: name for name in heads.state_dict()}
    _fill(heads, own, linear, "LPIPS' linear layers", "the package lpips again")
    return PerceptualDistance(network)


def _trunk_names(net: nn.Module) -> dict[str, str]:
    """Name in lpips, `slice<k>.<layer>.weight` -> name in torchvision's file."""
    return {name: f"features.{name.split('.', 1)[1]}" for name in net.state_dict()}


def _fill(module: nn.Module, names: dict[str, str], path: Path, what: str, remedy: str) -> None:
    wanted = set(names.values())
    tensors = read_weights(path, wanted.__contains__).tensors
    lacking = sorted(wanted - set(tensors))
    if lacking:
        raise CheckpointError(
            f"{path} is not {what}: it lacks {', '.join(lacking[:3])}. Get {remedy}."
        )
    try:
        module.load_state_dict({ours: tensors[theirs].float() for ours, theirs in names.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {what}: {error} Get {remedy}."[:600]) from error
