# SPDX-License-Identifier: GPL-3.0-or-later
"""The frames of a film: somebody in every one, and one size for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from ..errors import NoPersonError, PoseError
from ..types import Pose

OnEmpty = Literal["error", "skip", "previous"]
ON_EMPTY: tuple[OnEmpty, ...] = get_args(OnEmpty)
_NAMED = 5


def with_people(poses: Sequence[Pose], on_empty: OnEmpty) -> list[Pose]:
    """The film without frames that show nobody, which is: no point of anybody's body.

    "error" raises NoPersonError, which says which frames; "skip" leaves them out; "previous" gives
    them the people of the frame before, and those of the first frame that has any where there is
    none before. Raises NoPersonError for a film without anybody.
    """
    empty = [number for number, pose in enumerate(poses) if not _shows_somebody(pose)]
    if len(empty) == len(poses):
        raise NoPersonError(
            f"Nobody is in any of the {len(poses)} frames of the pose. Detect it in pictures that "
            "show a person, or connect another pose."
        )
    if empty and on_empty == "error":
        more = "" if len(empty) <= _NAMED else f" and {len(empty) - _NAMED} more"
        raise NoPersonError(
            f"Nobody is in frame {', '.join(map(str, empty[:_NAMED]))}{more} of the "
            f"{len(poses)} frames of the pose (the first is 0). Set on_missing to 'skip' to leave "
            "such frames out or to 'previous' to hold the pose before, or detect the pose again."
        )
    if on_empty == "skip":
        return [pose for number, pose in enumerate(poses) if number not in set(empty)]
    last = next(pose for pose in poses if _shows_somebody(pose))
    held = []
    for pose in poses:
        last = pose if _shows_somebody(pose) else last
        held.append(last)
    return held


def size_of(poses: Sequence[Pose], width: int, height: int) -> tuple[int, int]:
    """(height, width) in px for the pictures of all frames; 0 takes the canvas'.

    Raises PoseError where canvases of several sizes would have to be one.
    """
    sizes = {(height or pose.height, width or pose.width) for pose in poses}
    if len(sizes) > 1:
        raise PoseError(
            f"The frames of the pose have {len(sizes)} different canvas sizes and cannot be one "
            "film. Set width and height to the size that you want for all."
        )
    return sizes.pop()


def _shows_somebody(pose: Pose) -> bool:
    return any(person.body[:, 2].any() for person in pose.people)
