# SPDX-License-Identifier: GPL-3.0-or-later
"""R@k and mean rank of an FPDM checkpoint on a folder of one's own pairs (FPDM, table 2).

Pictures are read one batch at a time; only their embeddings are kept. Every picture is embedded
once, in however many pairs it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..errors import PoseError
from ..fpdm import FPDM
from ..pose import draw, read_keypoints
from .pairing import SUFFIXES, picture_size, read_picture, read_table, require_files
from .retrieval import RetrievalScores, retrieval_scores

TABLE = "pairs.csv"
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Query:
    """A source picture, a pose (a drawn map or a file of keypoints), and the true target."""

    source: Path
    pose: Path
    target: Path


def read_queries(folder: Path, images: Path | None = None) -> tuple[Query, ...]:
    """Of `folder`/pairs.csv, the plain layout that training reads as well.

    Columns source and target, and pose if you like; paths in `images`, by default in `folder`. A
    pose is a picture as drawn for FPDM, or a file of keypoints that `read_keypoints` takes;
    without that column it lies beside the target, as NAME.json or NAME_keypoints.json. Raises
    PoseTransferError.
    """
    table, images = folder / TABLE, images or folder
    rows = read_table(table, ("source", "target"))
    queries = []
    for row in rows:
        target = images / row["target"]
        beside = target.with_name(f"{target.stem}_keypoints.json")
        if row.get("pose"):
            pose = images / row["pose"]
        else:
            pose = beside if beside.is_file() else target.with_suffix(".json")
        queries.append(Query(images / row["source"], pose, target))
    require_files(table, [path for q in queries for path in (q.source, q.pose, q.target)])
    return tuple(queries)


def evaluate_retrieval(
    fpdm: FPDM, queries: tuple[Query, ...], device: torch.device | str, batch_size: int = 16
) -> dict[str, Mapping[str, RetrievalScores]]:
    """Scores by method and gallery.

    Methods: "source" asks with the source's own embedding (A1), "fusion" with the fusion of source
    and pose (A2, A3). Galleries: "targets" holds every target once; "targets and sources" the
    sources too, as wrong answers. The model must be on `device`.
    """
    # Targets first; a picture that is a source as well is in the gallery once.
    targets = list(dict.fromkeys(query.target for query in queries))
    pictures = list(dict.fromkeys([*targets, *(query.source for query in queries)]))
    row = {path: number for number, path in enumerate(pictures)}
    place = torch.device(device)
    everything = _run(pictures, read_picture, fpdm.embed_image, place, batch_size, "pictures")
    positives = torch.tensor([row[query.target] for query in queries])
    alone = everything[[row[query.source] for query in queries]]
    poses = _run(queries, _pose_map, fpdm.embed_pose, place, batch_size, "poses")
    with torch.no_grad():
        fused = torch.cat(
            [
                fpdm.combine(a.to(place), b.to(place)).cpu()
                for a, b in zip(alone.split(batch_size), poses.split(batch_size), strict=True)
            ]
        )
    galleries = {"targets": everything[: len(targets)], "targets and sources": everything}
    return {
        method: {
            name: retrieval_scores(asked, items, positives) for name, items in galleries.items()
        }
        for method, asked in (("source", alone), ("fusion", fused))
    }


def _pose_map(query: Query) -> NDArray[np.uint8]:
    if query.pose.suffix.lower() in SUFFIXES:
        return read_picture(query.pose)
    height, width = picture_size(query.target)
    # DeepFashion's joints count on small pictures, whatever size the target has.
    canvas = None if query.pose.suffix.lower() == ".txt" else (width, height)
    try:
        pose = read_keypoints(query.pose.read_text(encoding="utf-8"), canvas)[0]
    except (PoseError, UnicodeDecodeError) as error:
        raise PoseError(f"{query.pose}: {error}") from error
    return draw(pose, height, width, "fpdm")


def _run(
    items: Iterable[_Item],
    read: Callable[[_Item], NDArray[np.uint8]],
    network: Callable[[Tensor], Tensor],
    device: torch.device,
    batch_size: int,
    what: str,
) -> Tensor:
    """(items, E) on the CPU."""
    rows = []
    pictures = map(read, tqdm(list(items), desc=what, unit="picture"))
    with torch.no_grad():
        for batch in _of_one_size(pictures, batch_size):
            pixels = torch.from_numpy(np.stack(batch)).to(device).float() / 255
            rows.append(network(pixels).float().cpu())
    return torch.cat(rows)


def _of_one_size(
    pictures: Iterable[NDArray[np.uint8]], batch_size: int
) -> Iterator[list[NDArray[np.uint8]]]:
    """In order; a batch ends where the size changes."""
    batch: list[NDArray[np.uint8]] = []
    for picture in pictures:
        if batch and (len(batch) == batch_size or batch[0].shape != picture.shape):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch
