# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a folder of generated pictures against a folder of true ones.

One pass over the pairs in batches: of a picture only its numbers are kept, so memory does not grow
with the folder. FID keeps sums. What each measure is and whose settings it has is told in
docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..detectors import FaceEncoder
from ..errors import PoseTransferError
from ..types import Person
from .frechet import FrechetDistance, Inception
from .hands import hand_pose_error, hand_ssim, hands_found
from .metrics import FLAT_WINDOW, psnr, ssim_51, ssim_released
from .pairing import FilePair, Matched, Size, list_pictures, read_picture, require_equal_sizes
from .perceptual import PerceptualDistance
from .person_measures import face_similarity
from .statistics import Estimate, bootstrap

Picture = NDArray[np.uint8]
Posing = Callable[[FilePair, Picture], Person | None]
"""Tells where a pair's person is in its picture, the true or the generated one."""


@dataclass(frozen=True)
class Measure:
    """How a number is shown: heading, decimals, and which way is better."""

    heading: str
    decimals: int
    more_is_better: bool


MEASURES: Mapping[str, Measure] = {
    "ssim": Measure("SSIM", 4, True),
    "ssim_51": Measure("SSIM, window 51", 4, True),
    "psnr": Measure("PSNR, dB", 3, True),
    "lpips": Measure("LPIPS", 4, False),
    "face_truth": Measure("face similarity to the truth", 3, True),
    "face_source": Measure("face similarity to the source", 3, True),
    "hand_ssim": Measure("hand SSIM", 4, True),
    "hand_error": Measure("hand pose error, px", 2, False),
    "hands_found": Measure("hands found", 3, True),
    "fid_train": Measure("FID to training pictures", 3, False),
    "fid_test": Measure("FID to the truth", 3, False),
}
"""Every measure there is, in the order of the report. FID is one number for the whole folder."""


@dataclass(frozen=True, eq=False)
class Instruments:
    """What measures beyond SSIM and PSNR; each is left out where it is None.

    Networks are on the device where they shall run. `train_reference` is a folder of pictures for
    the second FID.
    """

    inception: Inception | None = None
    perceptual: PerceptualDistance | None = None
    faces: FaceEncoder | None = None
    truth_pose: Posing | None = None
    generated_pose: Posing | None = None
    train_reference: Path | None = None


@dataclass(frozen=True, eq=False)
class FolderResult:
    """Scores by measure, each (N,) in the order of the pairs; FID by reference.

    `sizes` counts the pairs by (height, width) as measured; `counts` the pictures behind each FID.
    `size` is what all pictures were resized to, None where none was.
    """

    matched: Matched
    scores: Mapping[str, NDArray[np.float64]]
    fid: Mapping[str, float]
    sizes: Mapping[Size, int]
    size: Size | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    instruments: Mapping[str, str] = field(default_factory=dict)

    def estimates(self) -> dict[str, Estimate]:
        """Mean and 95 % interval of every measure of pairs."""
        return {name: bootstrap(values) for name, values in self.scores.items()}


def evaluate_folder(
    matched: Matched,
    instruments: Instruments | None = None,
    *,
    size: Size | None = None,
    batch_size: int = 16,
) -> FolderResult:
    """Measure every pair of `matched`.

    `size` (H, W) is what all pictures, the training reference's too, are resized to first, by
    PIL's bicubic filter; without it the two pictures of a pair must be of one size. `batch_size`
    pictures go through the networks at once. Raises PoseTransferError.
    """
    tools = instruments or Instruments()
    if size is None:
        require_equal_sizes(matched.pairs)
    distances: dict[str, FrechetDistance] = {}
    if tools.inception is not None:
        references = ("fid_train", "fid_test") if tools.train_reference else ("fid_test",)
        distances = {name: FrechetDistance(tools.inception.num_features) for name in references}
    rows: list[dict[str, float]] = []
    sizes: dict[Size, int] = {}
    seen: set[Path] = set()
    bar = tqdm(total=len(matched.pairs), desc="measure", unit="pair")
    for batch in _batches(matched.pairs, size, batch_size):
        made = np.stack([picture for _, picture, _ in batch])
        true = np.stack([picture for _, _, picture in batch])
        height, width = made.shape[1:3]
        sizes[height, width] = sizes.get((height, width), 0) + len(batch)
        measured = [_measure(*one, tools, size) for one in batch]
        if tools.perceptual is not None:
            values = tools.perceptual(*(_to(x, tools.perceptual) for x in (made, true)))
            for row, value in zip(measured, values.tolist(), strict=True):
                row["lpips"] = value
        rows += measured
        if tools.inception is not None:
            features = tools.inception(_to(made, tools.inception))
            for distance in distances.values():
                distance.add(features, reference=False)
            # A true picture that several pairs share counts once, as in the released code.
            first = {pair.truth: row for row, (pair, _, _) in reversed([*enumerate(batch)])}
            new = sorted(row for path, row in first.items() if path not in seen)
            seen.update(first)
            if new:
                features = tools.inception(_to(true[new], tools.inception))
                distances["fid_test"].add(features, reference=True)
        bar.update(len(batch))
    bar.close()
    if tools.inception is not None and tools.train_reference is not None:
        reference = list(list_pictures(tools.train_reference).values())
        _add_reference(distances["fid_train"], tools.inception, reference, size, batch_size)
    names = [name for name in MEASURES if any(name in row for row in rows)]
    return FolderResult(
        matched=matched,
        scores={n: np.array([row.get(n, np.nan) for row in rows], np.float64) for n in names},
        fid={name: distance.value() for name, distance in distances.items()},
        sizes=sizes,
        size=size,
        counts={name: distance.references for name, distance in distances.items()},
        instruments=_describe(tools),
    )


def _measure(
    pair: FilePair, made: Picture, true: Picture, tools: Instruments, size: Size | None
) -> dict[str, float]:
    """Everything that is measured picture by picture."""
    row = {"ssim": ssim_released(made, true), "psnr": psnr(made, true)}
    if min(made.shape[:2]) >= FLAT_WINDOW:
        row["ssim_51"] = ssim_51(made, true)
    if tools.faces is not None:
        faces, true_faces = tools.faces.faces(made), tools.faces.faces(true)
        row["face_truth"] = face_similarity(faces, true_faces)
        # A back view keeps no face, however good it is: only where the truth shows one.
        if pair.source is not None and true_faces:
            source = tools.faces.faces(read_picture(pair.source, size))
            row["face_source"] = face_similarity(faces, source)
    if tools.truth_pose is not None:
        person = tools.truth_pose(pair, true)
        row["hand_ssim"] = hand_ssim(made, true, person)
        if tools.generated_pose is not None:
            found = tools.generated_pose(pair, made)
            row["hand_error"] = hand_pose_error(found, person)
            row["hands_found"] = hands_found(found, person)
    return row


def _batches(
    pairs: Sequence[FilePair], size: Size | None, batch_size: int
) -> Iterator[list[tuple[FilePair, Picture, Picture]]]:
    """Pairs with their pictures, in order; a batch ends where the size changes."""
    batch: list[tuple[FilePair, Picture, Picture]] = []
    for pair in pairs:
        made, true = read_picture(pair.generated, size), read_picture(pair.truth, size)
        if batch and (len(batch) == batch_size or batch[0][1].shape != made.shape):
            yield batch
            batch = []
        batch.append((pair, made, true))
    if batch:
        yield batch


def _add_reference(
    distance: FrechetDistance,
    inception: Inception,
    paths: Sequence[Path],
    size: Size | None,
    batch_size: int,
) -> None:
    batch: list[Picture] = []

    def flush() -> None:
        distance.add(inception(_to(np.stack(batch), inception)), reference=True)
        batch.clear()

    for path in tqdm(paths, desc="training pictures", unit="picture"):
        picture = read_picture(path, size)
        if batch and (len(batch) == batch_size or batch[0].shape != picture.shape):
            flush()
        batch.append(picture)
    flush()


def _to(pictures: NDArray[np.uint8], network: torch.nn.Module) -> Tensor:
    """(B, H, W, 3) -> (B, 3, H, W) uint8 on the network's device."""
    parameter = next(network.parameters(), None)
    device = "cpu" if parameter is None else parameter.device
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().to(device)


def _describe(tools: Instruments) -> dict[str, str]:
    said = {}
    if tools.inception is not None:
        said["FID"] = tools.inception.name
    if tools.perceptual is not None:
        said["LPIPS"] = "AlexNet, version 0.1"
    if tools.faces is not None:
        said["faces"] = tools.faces.name
    return said


def parse_size(text: str) -> Size:
    """ "512x352" -> (512, 352), height first. Raises PoseTransferError."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise PoseTransferError(
            f"Got the size {text!r}, expected height x width in px such as 512x352."
        )
    return int(height), int(width)
