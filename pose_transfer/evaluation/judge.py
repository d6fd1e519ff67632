# SPDX-License-Identifier: GPL-3.0-or-later
"""An independent judge of garment patterns: which of the six is it, in a picture?

The judge shares no weight and no training run with the models that it judges. It sees one
picture and the mask of one garment and names the pattern under the mask; the same network serves
the upper and the lower garment. It is trained on true pictures, degraded in the ways in which a
generated picture may honestly differ (autoencoder blur, grain, a slight tint, an outline two
pixels off), so that it judges the pattern and not the sharpness. Its accuracy on true held-out
pictures is the ceiling that belongs next to every figure it gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import CheckpointError
from ..weights import load_into, read_weights, write_weights
from .degrade import degrade

FORMAT = "pose_transfer.judge"
JUDGE_FILE = Path(__file__).parent.parent / "demo" / "weights" / "mannequin_judge.safetensors"

Batch = tuple[NDArray[np.uint8] | Tensor, NDArray | Tensor, NDArray | Tensor, NDArray | Tensor]
"""image uint8 (B, H, W, 3), parsing (B, H, W), upper class (B,), lower class (B,)."""


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU()
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_conv(width, width), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class PatternJudge(nn.Module):
    """Garment picture -> pattern logits. 0.52 M parameters.

    `upper`, `lower` are the label numbers of the two garments in a parsing map, `patterns` the
    class names in the order of the logits.
    """

    def __init__(self, patterns: tuple[str, ...], upper: int, lower: int) -> None:
        super().__init__()
        self.patterns, self.upper, self.lower = patterns, upper, lower
        # A pattern's period is 16 pixels or more: stride 4 still has four cells to a period.
        self.features = nn.Sequential(
            _conv(4, 24, 2),
            _conv(24, 56, 2),
            _Residual(56),
            _Residual(56),
            _conv(56, 96, 2),
            _Residual(96),
            _conv(96, 96),
        )
        self.head = nn.Linear(2 * 96, len(patterns))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """image (B, 3, H, W) in [0, 1], mask (B, 1, H, W) in {0, 1} -> logits (B, patterns)."""
        features = self.features(torch.cat([image * 2 - 1, mask], dim=1))
        weight = F.adaptive_avg_pool2d(mask, features.shape[-2:])  # (B, 1, H/8, W/8)
        area = weight.sum((2, 3)).clamp_min(1e-3)
        mean = (features * weight).sum((2, 3)) / area
        # The maximum sees a small logo that the mean would drown.
        peak = torch.where(weight > 0.05, features, features.new_tensor(-4.0)).amax((2, 3))
        return self.head(torch.cat([mean, peak], dim=1))

    def garments(self, image: Tensor, parsing: Tensor) -> Tensor:
        """image (B, 3, H, W) in [0, 1], parsing (B, H, W) -> logits (B, 2, patterns)."""
        masks = torch.stack([parsing == self.upper, parsing == self.lower], 1).float()
        pictures = image[:, None].expand(-1, 2, -1, -1, -1)
        return self(pictures.flatten(0, 1), masks.flatten(0, 1)[:, None]).unflatten(0, (-1, 2))


def _tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The batch on the device: image (B,3,H,W) [0,1], parsing (B,H,W), classes (B,2) int64."""
    image, parsing, upper, lower = (torch.as_tensor(part) for part in batch)
    image = image.to(device).permute(0, 3, 1, 2).float() / 255  # BHWC -> BCHW
    classes = torch.stack([upper, lower], 1).to(device, torch.int64)
    return image, parsing.to(device), classes


def train_judge(
    batches: Iterable[Batch],
    device: torch.device | str,
    steps: int,
    *,
    patterns: tuple[str, ...],
    upper: int,
    lower: int,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> PatternJudge:
    """Train a judge on true pictures and return it in eval mode.

    `batches` yields (image uint8 (B,H,W,3), parsing (B,H,W), upper class (B,), lower class (B,));
    it is read until `steps` batches are used (4,000 of 64 suffice) and must be that long, else
    ValueError. A garment with no visible pixel is not learnt from. AdamW, one-cycle schedule,
    label smoothing 0.05; the same seed and batches give the same judge on the same device.
    """
    device = torch.device(device)
    torch.manual_seed(seed)
    dice = torch.Generator().manual_seed(seed)
    judge = PatternJudge(patterns, upper, lower).to(device).train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=max(steps, 2), pct_start=0.1
    )
    source = iter(batches)
    bar = tqdm(range(steps), desc="pattern judge", unit="step")
    for step in bar:
        batch = next(source, None)
        if batch is None:
            raise ValueError(f"train_judge wants {steps} batches, but they ended after {step}.")
        image, parsing, classes = _tensors(batch, device)
        image, parsing = degrade(image, parsing, dice)
        visible = torch.stack([(parsing == k).flatten(1).any(1) for k in (upper, lower)], 1)
        logits = judge.garments(image, parsing)[visible]
        loss = F.cross_entropy(logits, classes[visible], label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            right = (logits.argmax(1) == classes[visible]).float().mean()
            bar.set_postfix(loss=f"{loss.item():.3f}", right=f"{right.item():.2f}")
    return judge.eval()


@torch.no_grad()
def judge_patterns(
    judge: PatternJudge, images: NDArray[np.uint8], parsings: NDArray, batch_size: int = 64
) -> NDArray[np.int64]:
    """Verdicts (N, 2) on upper and lower garment; images uint8 (N,H,W,3), parsings (N,H,W).

    The verdict on a garment that the parsing does not show is -1.
    """
    device = next(judge.parameters()).device
    verdicts = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        none = np.zeros(len(images[part]), np.int64)
        image, parsing, _ = _tensors((images[part], parsings[part], none, none), device)
        verdict = judge.garments(image, parsing).argmax(-1)
        for column, label in enumerate((judge.upper, judge.lower)):
            verdict[~(parsing == label).flatten(1).any(1), column] = -1
        verdicts.append(verdict.cpu().numpy())
    return np.concatenate(verdicts) if verdicts else np.zeros((0, 2), np.int64)


def judge_accuracy(judge: PatternJudge, batches: Iterable[Batch]) -> dict[str, float]:
    """Share of visible garments named rightly on undegraded pictures: upper, lower, both."""
    verdicts, classes = [], []
    for image, parsing, upper, lower in batches:
        verdicts.append(judge_patterns(judge, np.asarray(image), np.asarray(parsing)))
        classes.append(np.stack([np.asarray(upper), np.asarray(lower)], 1))
    if not verdicts:
        raise ValueError("judge_accuracy got no batch; give it at least one.")
    verdict, true = np.concatenate(verdicts), np.concatenate(classes)
    hidden = verdict < 0
    right = (verdict == true) | hidden

    def share(column: int) -> float:
        seen = right[~hidden[:, column], column]
        return float(seen.mean()) if len(seen) else float("nan")

    return {"upper": share(0), "lower": share(1), "both": float(right.all(axis=1).mean())}


def save_judge(judge: PatternJudge, path: Path | str = JUDGE_FILE) -> None:
    """Write the judge as fp16 safetensors; its class names and labels go into the metadata."""
    config = {"patterns": judge.patterns, "upper": judge.upper, "lower": judge.lower}
    tensors = {name: tensor.half() for name, tensor in judge.state_dict().items()}
    metadata = {"format": FORMAT, "version": "1", "config": json.dumps(config)}
    write_weights(path, tensors, metadata)


def load_judge(path: Path | str = JUDGE_FILE, device: torch.device | str = "cpu") -> PatternJudge:
    """The judge in float32, eval mode. Raises CheckpointError for a missing or foreign file."""
    weights = read_weights(path)
    found = weights.metadata.get("format")
    if found != FORMAT:
        raise CheckpointError(
            f"{path} says its format is {found!r}, expected {FORMAT!r}. Restore the file with "
            "git, or train the judge again."
        )
    config = json.loads(weights.metadata["config"])
    judge = PatternJudge(tuple(config["patterns"]), config["upper"], config["lower"])
    tensors = {name: tensor.float() for name, tensor in weights.tensors.items()}
    load_into(judge, tensors, "the pattern judge")
    return judge.to(device).eval()
