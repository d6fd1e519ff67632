# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the hands are in a folder's pictures: from keypoint files, or from a detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..detectors import PoseDetector
from ..errors import PoseError
from ..pose import read_keypoints
from ..types import Person
from .folder import Picture, Posing
from .pairing import FilePair, spell


def poses_of_files(folder: Path, pairs: tuple[FilePair, ...]) -> Posing:
    """From `<name>.json` in `folder`, in any dialect that `read_keypoints` takes.

    Coordinates are scaled from the file's canvas to the picture. Raises PoseError now for files
    that are missing, later for one that is no pose.
    """
    absent = [pair.name for pair in pairs if not (folder / f"{pair.name}.json").is_file()]
    if absent:
        raise PoseError(
            f"{folder} lacks the keypoints of {len(absent)} pictures: {spell(absent)}. It must "
            "hold NAME.json for every generated picture NAME; 'Save Pose' writes such files."
        )

    def person(pair: FilePair, picture: Picture) -> Person | None:
        height, width = picture.shape[:2]
        path = folder / f"{pair.name}.json"
        try:
            pose = read_keypoints(path.read_text(encoding="utf-8"), (width, height))[0]
        except PoseError as error:
            raise PoseError(f"{path}: {error}") from error
        largest = _largest(list(pose.people))
        return largest and _scaled(largest, width / pose.width, height / pose.height)

    return person


def poses_of_detector(detector: PoseDetector) -> Posing:
    """The largest person that a detector finds in the picture itself."""

    def person(pair: FilePair, picture: Picture) -> Person | None:
        return _largest([person for person, _ in detector.detect(picture)])

    return person


def _largest(people: list[Person]) -> Person | None:
    def extent(person: Person) -> float:
        seen = person.body[person.body[:, 2] > 0, :2]
        return float(np.prod(np.ptp(seen, axis=0))) if len(seen) else 0.0

    return max(people, key=extent, default=None)


def _scaled(person: Person, across: float, down: float) -> Person:
    factor = np.array([across, down, 1], np.float32)

    def hand(points: np.ndarray | None) -> np.ndarray | None:
        return None if points is None else points * factor

    return Person(person.body * factor, hand(person.left_hand), hand(person.right_hand))
