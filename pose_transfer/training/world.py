# SPDX-License-Identifier: GPL-3.0-or-later
"""A rendered training set on disk: written once by all cores, read as memory maps.

Sample `i * poses_per_identity + j` is identity `i` in its `j`-th pose. A world that is still being
rendered can be opened: `ready` says how many samples are complete.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..demo.architecture import IMAGE_SIZE
from ..mannequin import render_figure, sample_identity, sample_pose, split_seeds
from ..pose import draw

_HEIGHT, _WIDTH = IMAGE_SIZE
CELLS = (64, 48)
"""Rows and columns of the body-coordinate maps."""
_CELL = _HEIGHT // CELLS[0]
_CHUNK = 64

_FIELDS: dict[str, tuple[tuple[int, ...], str]] = {
    "image": ((_HEIGHT, _WIDTH, 3), "uint8"),
    "pose_map": ((_HEIGHT, _WIDTH, 3), "uint8"),
    "parsing": ((_HEIGHT, _WIDTH), "uint8"),
    "coordinates": ((*CELLS, 3), "float16"),
    "cloth": ((*CELLS, 4), "float16"),
    "keypoints": ((18, 3), "float32"),
    "yaw": ((2,), "float32"),
}


@dataclass(frozen=True)
class World:
    """The arrays of a rendered world, (N, ...) each, and the seeds they came from.

    `image`, `pose_map` (N, 256, 192, 3) uint8; `parsing` (N, 256, 192) uint8; `coordinates`
    (N, 64, 48, 3) and `cloth` (N, 64, 48, 4) float16, body heights, as in `mannequin.Rendering`;
    `keypoints` (N, 18, 3) float32 in pixels; `yaw` (N, 2) cosine and sine.
    """

    folder: Path
    split: str
    identities: int
    poses_per_identity: int
    image: np.ndarray
    pose_map: np.ndarray
    parsing: np.ndarray
    coordinates: np.ndarray
    cloth: np.ndarray
    keypoints: np.ndarray
    yaw: np.ndarray

    @property
    def identity_seeds(self) -> np.ndarray:
        """(identities,) int64."""
        return split_seeds(self.split, 0, self.identities)

    @property
    def size(self) -> int:
        return self.identities * self.poses_per_identity

    def ready(self) -> int:
        """How many samples, from the first on, are rendered."""
        chunks = -(-self.size // _CHUNK)
        done = 0
        while done < chunks and (self.folder / f"done-{done}").exists():
            done += 1
        return min(done * _CHUNK, self.size)

    def wait_for(self, samples: int) -> int:
        """Block until `samples` are rendered; returns how many are by then."""
        while (ready := self.ready()) < min(samples, self.size):
            time.sleep(1.0)
        return ready


def open_world(folder: Path, split: str, identities: int, poses_per_identity: int) -> World:
    """Open a world, making its (sparse) files where there are none.

    Raises ValueError where the folder holds a world of another kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"split": split, "identities": identities, "poses": poses_per_identity}
    index = folder / "world.json"
    if index.exists():
        found = json.loads(index.read_text())
        if found != wanted:
            raise ValueError(
                f"{folder} holds the world {found}, wanted {wanted}: remove it or choose another"
            )
    count = identities * poses_per_identity
    arrays = {}
    for name, (shape, kind) in _FIELDS.items():
        path = folder / f"{name}.bin"
        mode = "r+" if path.exists() else "w+"
        arrays[name] = np.memmap(path, np.dtype(kind), mode, shape=(count, *shape))
    if not index.exists():
        index.write_text(json.dumps(wanted))
    return World(folder, split, identities, poses_per_identity, **arrays)


def _render_chunk(job: tuple[Path, str, int, int, int]) -> int:
    folder, split, identities, poses, chunk = job
    world = open_world(folder, split, identities, poses)
    start, stop = chunk * _CHUNK, min((chunk + 1) * _CHUNK, world.size)
    identity_seeds = world.identity_seeds
    pose_seeds = split_seeds(split, start, stop - start)
    for index, pose_seed in zip(range(start, stop), pose_seeds.tolist(), strict=True):
        pose = sample_pose(pose_seed)
        identity = sample_identity(int(identity_seeds[index // poses]))
        rendering = render_figure(identity, pose, _HEIGHT, _WIDTH, with_coordinates=True)
        sample = rendering.sample
        assert rendering.coordinates is not None and rendering.cloth is not None
        world.image[index] = sample.image
        world.pose_map[index] = draw(sample.pose, _HEIGHT, _WIDTH, "fpdm")
        world.parsing[index] = sample.parsing
        centres = slice(_CELL // 2, None, _CELL)
        world.coordinates[index] = rendering.coordinates[centres, centres]
        world.cloth[index] = rendering.cloth[centres, centres]
        world.keypoints[index] = sample.pose.people[0].body
        world.yaw[index] = (np.cos(pose.yaw), np.sin(pose.yaw))
    (folder / f"done-{chunk}").touch()
    return stop - start


def render_world(
    folder: Path, split: str, identities: int, poses_per_identity: int, workers: int | None = None
) -> World:
    """Render what is missing of a world, on `workers` processes (default: all cores)."""
    world = open_world(folder, split, identities, poses_per_identity)
    chunks = range(-(-world.size // _CHUNK))
    jobs = [
        (folder, split, identities, poses_per_identity, chunk)
        for chunk in chunks
        if not (folder / f"done-{chunk}").exists()
    ]
    if jobs:
        # One thread per process: the arrays are small, and cores are shared by processes.
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
        start = time.time()
        with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count()) as pool:
            rendered = sum(pool.imap(_render_chunk, jobs))
        seconds = time.time() - start
        print(f"rendered {rendered} samples in {seconds:.0f} s ({rendered / seconds:.0f}/s)")
    return world
