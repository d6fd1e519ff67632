# SPDX-License-Identifier: GPL-3.0-or-later
"""Frechet Inception distance (Heusel et al. 2017) with weights from a local file.

Two networks are in use and their numbers must not be mixed. The released FPDM code (as CFLD's,
PIDM's and their predecessors') takes torchvision's Inception v3, and so do the papers' tables;
most other literature takes the TensorFlow network of 2015 as torch-fidelity ports it. Which one a
file holds is seen from its tensors.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, MissingDependencyError
from ..weights import load_into, read_weights

TORCHVISION_FILE = "inception_v3_google-0cc3c7bd.pth"
TORCHVISION_URL = f"https://download.pytorch.org/models/{TORCHVISION_FILE}"
TENSORFLOW_FILE = "weights-inception-2015-12-05-6726825d.pth"
TENSORFLOW_URL = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{TENSORFLOW_FILE}"
)
INPUT = 299
"""Height and width of what both networks see."""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Inception(nn.Module):
    """Pictures (B, 3, H, W) uint8 -> features (B, num_features) float32.

    `name` is what a report says of it.
    """

    num_features = 2048
    name: str


class TorchvisionInception(Inception):
    """As the released FPDM code: bilinear to 299 x 299 without anti-aliasing, then an affine map.

    The map is torchvision's own change from ImageNet's normalisation to [-1, 1], applied to
    pictures in [0, 1] all the same (FPDM, src/metrics/metrics.py, forward_inception). It is kept,
    since the papers' numbers were made with it.
    """

    name = "torchvision's Inception v3, as the released code"

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        from torchvision.models import inception_v3

        with torch.device("meta"):
            network = inception_v3(weights=None, init_weights=False, transform_input=False)
        load_into(network, tensors, "torchvision's Inception v3")
        network.fc = nn.Identity()  # type: ignore[assignment]
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, image_bchw: Tensor) -> Tensor:
        x = F.interpolate(image_bchw.float() / 255, (INPUT, INPUT), mode="bilinear")
        deviation, mean = (x.new_tensor(v).view(1, 3, 1, 1) for v in (_DEVIATION, _MEAN))
        return self.network(x * (deviation / 0.5) + (mean - 0.5) / 0.5)


class TensorflowInception(Inception):
    """The network of 2015 as torch-fidelity ports it, with TensorFlow's resizing."""

    name = "TensorFlow's Inception v3 of 2015 (torch-fidelity)"

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise MissingDependencyError(
                f"FID with {TENSORFLOW_FILE} needs torch-fidelity, which is not installed. "
                f"Install it: pip install torch-fidelity, or use {TORCHVISION_FILE}."
            ) from error
        # Its constructor unpickles whatever file it is given, and downloads one if it is given
        # none. What it gets is our own copy of tensors that were read as weights only.
        copy = io.BytesIO()
        torch.save(dict(tensors), copy)
        copy.seek(0)
        try:
            network = FeatureExtractorInceptionV3("inception", ["2048"], copy)
        except RuntimeError as error:
            raise CheckpointError(f"The Inception weights do not fit: {error}"[:600]) from error
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, image_bchw: Tensor) -> Tensor:
        return self.network(image_bchw)[0]


def load_inception(path: str | Path) -> Inception:
    """The feature network of a file, by its tensors, in eval mode on the CPU.

    Raises CheckpointError for a file that is missing, refused or of another network, and
    MissingDependencyError.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"FID needs the Inception weights, and there is no file {path}. For numbers that can "
            f"be compared with the papers get {TORCHVISION_URL} (109 MB, torchvision), put it "
            f"anywhere and name it with --fid-weights. Nothing is downloaded by itself. For FID "
            f"as most other literature has it, get {TENSORFLOW_URL}."
        )
    tensors = read_weights(path).tensors
    last = tensors.get("fc.weight")
    classes = None if last is None else last.shape[0]
    tensors = {name: x.float() if x.is_floating_point() else x for name, x in tensors.items()}
    if classes == 1000 and "Mixed_7c.branch_pool.conv.weight" in tensors:
        return TorchvisionInception(tensors)
    if classes == 1008 and "Mixed_7c.branch_pool.conv.weight" in tensors:
        return TensorflowInception(tensors)
    raise CheckpointError(
        f"{path} holds no Inception v3 with 1000 (torchvision) or 1008 (TensorFlow) classes. "
        f"Get {TORCHVISION_URL}."
    )


class _Given(nn.Module):
    """Hands features on, so that torchmetrics takes them as its network's output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


class FrechetDistance:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)) of the features of two sets of pictures.

    Only sums are kept, in float64 on the CPU: memory does not grow with the pictures.
    """

    def __init__(self, width: int) -> None:
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance
        except ImportError as error:
            raise MissingDependencyError(
                "FID needs torchmetrics, which is not installed. Install the extra: "
                "pip install '.[evaluation]', or: pip install torchmetrics"
            ) from error
        self._metric: Any = FrechetInceptionDistance(feature=_Given(width))
        self.references = self.generated = 0

    def add(self, features: Tensor, reference: bool) -> None:
        """Features (B, width) of references or of generated pictures."""
        self._metric.update(features.detach().cpu().double(), real=reference)
        if reference:
            self.references += len(features)
        else:
            self.generated += len(features)

    def value(self) -> float:
        """NaN where either set has fewer than two pictures."""
        if min(self.references, self.generated) < 2:
            return float("nan")
        return max(float(self._metric.compute()), 0.0)  # rounding may leave -1e-12
