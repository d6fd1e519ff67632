# SPDX-License-Identifier: GPL-3.0-or-later
"""One set of labels, and masks whose edges are where they are asked to be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pose_transfer import mannequin, parsing
from pose_transfer.errors import ParsingError
from pose_transfer.parsing import LABELS, PARTS, REGIONS, region_mask, to_taxonomy
from pose_transfer.types import Parsing

ATR = [
    "background", "hat", "hair", "glasses", "upper", "lower", "lower", "dress", "belt", "shoes",
    "shoes", "face", "legs", "legs", "arms", "arms", "bag", "scarf",
]  # fmt: skip
LIP = [
    "background", "hat", "hair", "gloves", "glasses", "upper", "dress", "upper", "socks", "lower",
    "dress", "scarf", "lower", "face", "arms", "arms", "legs", "legs", "shoes", "shoes",
]  # fmt: skip
CIHP = [*LIP[:10], "torso", *LIP[11:]]


def every(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint8).reshape(1, 1, count)


def names_of(parsed: Parsing) -> list[str]:
    return [parsed.names[label] for label in parsed.labels.ravel()]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (parsing.ATR_LABELS, ATR),
        (parsing.LIP_LABELS, LIP),
        (parsing.CIHP_LABELS, CIHP),
        (mannequin.LABELS, list(mannequin.LABELS)),
        (LABELS, list(LABELS)),
        (("Left_Arm", "UPPER-CLOTHES", "tosor-skin"), ["arms", "upper", "torso"]),
    ],
)
def test_every_label_set_finds_its_way(names: tuple[str, ...], expected: list[str]) -> None:
    parsed = to_taxonomy(every(len(names)), names)
    assert parsed.names == LABELS
    assert names_of(parsed) == expected


def test_the_mannequins_labels_keep_their_numbers() -> None:
    assert LABELS[: len(mannequin.LABELS)] == mannequin.LABELS


def test_a_label_that_nobody_knows_is_named() -> None:
    with pytest.raises(ParsingError, match=r"'tail'.*ATR, LIP, CIHP"):
        to_taxonomy(every(2), ("background", "tail"))
    with pytest.raises(ParsingError, match="label 3, but names for 2"):
        to_taxonomy(every(4), ("background", "hair"))


def test_every_label_lies_in_exactly_one_part() -> None:
    assert sorted(label for part in PARTS.values() for label in part) == sorted(LABELS)
    everything = Parsing(every(len(LABELS)), LABELS)
    total = sum(region_mask(everything, [part]) for part in PARTS)
    np.testing.assert_array_equal(total, 1)
    person, background = (region_mask(everything, [name]) for name in ("person", "background"))
    np.testing.assert_array_equal(person + background, 1)


def test_masks_of_the_mannequin_are_its_labels() -> None:
    sample = mannequin.render(19, 29)
    parsed = Parsing(sample.parsing[None], mannequin.LABELS)
    shirt = region_mask(parsed, ["upper"])
    np.testing.assert_array_equal(shirt[0], sample.parsing == mannequin.LABELS.index("upper"))
    assert shirt.dtype == np.float32
    several = region_mask(parsed, ["upper", "face", "upper"])
    np.testing.assert_array_equal(several, shirt + region_mask(parsed, ["face"]))


def half(width: int = 40) -> Parsing:
    """The left half is a person, the right half is not."""
    labels = np.zeros((1, 30, width), np.uint8)
    labels[:, :, : width // 2] = LABELS.index("dress")
    return Parsing(labels, LABELS)


@pytest.mark.parametrize("grow", [-7, -1, 0, 1, 7])
def test_growing_moves_a_straight_edge_by_whole_pixels(grow: int) -> None:
    mask = region_mask(half(), ["dress"], grow_px=grow)
    np.testing.assert_array_equal(mask, np.broadcast_to(np.arange(40) < 20 + grow, (1, 30, 40)))


@pytest.mark.parametrize("feather", [1, 4, 10])
def test_feathering_is_a_linear_ramp_about_the_edge(feather: int) -> None:
    mask = region_mask(half(), ["dress"], feather_px=feather)
    centres = np.arange(40) + 0.5
    ramp = np.clip(0.5 + (20 - centres) / feather, 0, 1)
    np.testing.assert_allclose(mask[0], np.broadcast_to(ramp, (30, 40)), atol=1e-6)
    assert mask.mean() == pytest.approx(0.5)


def test_a_grown_point_is_a_disc() -> None:
    labels = np.zeros((1, 41, 41), np.uint8)
    labels[0, 20, 20] = 1
    mask = region_mask(Parsing(labels, LABELS), ["hair"], grow_px=9)
    y, x = np.mgrid[:41, :41] - 20
    np.testing.assert_array_equal(mask[0], np.hypot(x, y) < 9.5)


def test_growing_never_loses_and_shrinking_never_gains() -> None:
    parsed = Parsing(mannequin.render(19, 29).parsing[None], mannequin.LABELS)
    masks = [region_mask(parsed, ["person"], grow_px=px, feather_px=3) for px in (-4, -1, 0, 2, 9)]
    for smaller, larger in pairwise(masks):
        assert (smaller <= larger).all()
        assert smaller.sum() < larger.sum()


def test_cropping_to_what_changes_changes_nothing() -> None:
    """The same figure far from and near to the border of the picture."""
    labels = mannequin.render(19, 29).parsing
    wide = np.pad(labels, 60)
    near = region_mask(Parsing(labels[None], mannequin.LABELS), ["hair"], 5, 4)[0]
    far = region_mask(Parsing(wide[None], mannequin.LABELS), ["hair"], 5, 4)[0]
    np.testing.assert_array_equal(far[60:-60, 60:-60], near)


def test_the_border_of_the_picture_is_no_edge() -> None:
    full = Parsing(np.full((2, 9, 9), LABELS.index("face"), np.uint8), LABELS)
    np.testing.assert_array_equal(region_mask(full, ["face"], -2, 6), 1)
    np.testing.assert_array_equal(region_mask(full, ["hair"], 5, 6), 0)
    assert region_mask(half(), ["dress"], feather_px=6)[0, :, 0].min() == 1


def test_an_unknown_region_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nose.*face"):
        region_mask(half(), ["nose"])
    with pytest.raises(ValueError, match="expected some of"):
        region_mask(half(), [])


def test_the_box_is_around_the_visible_half_of_a_mask() -> None:
    mask = np.zeros((20, 30), np.float32)
    mask[4:9, 11:13] = 1
    mask[0, 0] = 0.4
    box = parsing.person_box(mask)
    assert box is not None
    assert (box.x, box.y, box.width, box.height) == (11, 4, 2, 5)
    assert parsing.person_box(mask * 0.4) is None


def test_every_label_has_a_colour_of_its_own() -> None:
    picture = parsing.palette_picture(Parsing(every(len(LABELS)), LABELS))
    assert picture.shape == (1, 1, len(LABELS), 3)
    assert picture.dtype == np.uint8
    assert len({tuple(colour) for colour in picture[0, 0]}) == len(LABELS)
    # Another parser's picture has the same colours for the same things.
    atr = parsing.palette_picture(Parsing(every(18), parsing.ATR_LABELS))
    assert [tuple(c) for c in atr[0, 0]] == [parsing.PALETTE[name] for name in ATR]


def test_the_words_name_what_is_there_by_size() -> None:
    labels = np.zeros((1, 10, 10), np.uint8)
    labels[0, :2] = parsing.ATR_LABELS.index("Left-arm")
    labels[0, 2] = parsing.ATR_LABELS.index("Right-arm")
    labels[0, 3, :5] = parsing.ATR_LABELS.index("Hat")
    words = parsing.describe(Parsing(labels, parsing.ATR_LABELS))
    assert words == "background 65.0%, arms 30.0%, hat 5.0%"


def test_regions_are_what_truepose_weighs() -> None:
    asked = {"face", "hair", "upper", "lower", "dress", "shoes", "skin", "background"}
    assert asked <= set(PARTS)
    assert set(REGIONS) == {*PARTS, "person"}
