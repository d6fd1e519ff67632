# SPDX-License-Identifier: GPL-3.0-or-later
"""Are the hands right? Hand SSIM and hand pose error of sign language videos.

FPDM's experiments, after Saunders et al. 2022 (SignGAN): both look at a 60 x 60 patch
around the true hand's middle knuckle. Hand SSIM is the SSIM of the patch; hand pose error the L1
distance between the 2-D keypoints of the two hands, which the paper finds with HRNetV2. The paper
evaluates at 260 x 210. It leaves open how the L1 distance is averaged; here it is the mean over
the keypoints that both hands show of |dx| + |dy|, in px.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..types import Person
from .metrics import Image, ssim_released

PATCH = 60
"""Height and width in px."""
MIDDLE_KNUCKLE = 9
"""Row of the middle finger's first joint among OpenPose's 21 points of a hand."""

Hand = NDArray[np.float32]
"""(21, 3): x px, y px, confidence; absent points have confidence 0."""


def visible_hands(person: Person | None) -> list[Hand | None]:
    """Left and right hand; None for one whose middle knuckle is absent."""
    hands = [None, None] if person is None else [person.left_hand, person.right_hand]
    return [hand if hand is not None and hand[MIDDLE_KNUCKLE, 2] > 0 else None for hand in hands]


def hand_patch(picture: Image, hand: Hand, side: int = PATCH) -> Image | None:
    """The patch (side, side, 3) around the middle knuckle, moved into the picture at its edge.

    None where the knuckle lies outside of the picture, or the picture is smaller than the patch.
    """
    x, y = hand[MIDDLE_KNUCKLE, :2]
    height, width = picture.shape[:2]
    if min(height, width) < side or not (0 <= x < width and 0 <= y < height):
        return None
    left = int(np.clip(round(float(x) - side / 2), 0, width - side))
    top = int(np.clip(round(float(y) - side / 2), 0, height - side))
    return picture[top : top + side, left : left + side]


def hand_ssim(picture: Image, truth: Image, person: Person | None) -> float:
    """Mean SSIM of the patches around the true person's hands; NaN where none is to be seen."""
    values = []
    for hand in visible_hands(person):
        if hand is None:
            continue
        patch, true_patch = hand_patch(picture, hand), hand_patch(truth, hand)
        if patch is not None and true_patch is not None:
            values.append(ssim_released(patch, true_patch))
    return float(np.mean(values)) if values else float("nan")


def hand_pose_error(generated: Person | None, truth: Person | None) -> float:
    """Mean L1 distance in px of hand keypoints, over the hands that both show.

    NaN where there is none: a hand that the generated picture lacks has no keypoints to compare,
    so read it with `hands_found`.
    """
    errors = []
    for found, true in zip(_hands(generated), _hands(truth), strict=True):
        if found is None or true is None:
            continue
        both = (found[:, 2] > 0) & (true[:, 2] > 0)
        if both.any():
            errors.append(np.abs(found[both, :2] - true[both, :2]).sum(axis=1).mean())
    return float(np.mean(errors)) if errors else float("nan")


def hands_found(generated: Person | None, truth: Person | None) -> float:
    """Share, 0..1, of the true hands that are found in the generated picture; NaN without any."""
    pairs = list(zip(_hands(generated), _hands(truth), strict=True))
    expected = [found is not None for found, true in pairs if true is not None]
    return float(np.mean(expected)) if expected else float("nan")


def _hands(person: Person | None) -> list[Hand | None]:
    """Left and right hand; None for one without any point."""
    hands = [None, None] if person is None else [person.left_hand, person.right_hand]
    return [hand if hand is not None and (hand[:, 2] > 0).any() else None for hand in hands]
