# SPDX-License-Identifier: GPL-3.0-or-later
"""Placing, pasting, and the hole that is left."""

from __future__ import annotations

import numpy as np
import pytest

from pose_transfer import mannequin
from pose_transfer.compositing import (
    ParsedPicture,
    composite,
    contain,
    cut_out,
    onto,
    rgb_to_lab,
    stand_in,
)
from pose_transfer.errors import NoPersonError, ParsingError, PoseTransferError
from pose_transfer.parsing import LABELS, region_mask
from pose_transfer.types import Box, Parsing


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, shape).astype(np.float32)


def block(
    size: tuple[int, int], rows: slice, columns: slice, colour: float = 0.8, name: str = "person"
) -> ParsedPicture:
    """Somebody rectangular before grey."""
    labels = np.zeros((1, *size), np.uint8)
    labels[0, rows, columns] = LABELS.index("upper")
    pictures = np.full((1, *size, 3), 0.5, np.float32)
    pictures[0, rows, columns] = colour
    return ParsedPicture(name, pictures, Parsing(labels, LABELS))


def mannequins(name: str, *seeds: tuple[int, int]) -> ParsedPicture:
    samples = [mannequin.render(*seed) for seed in seeds]
    return ParsedPicture(
        name,
        np.stack([s.image for s in samples]).astype(np.float32) / np.float32(255),
        Parsing(np.stack([s.parsing for s in samples]), mannequin.LABELS),
    )


# Placing


def test_a_picture_of_the_canvas_size_is_copied_bit_for_bit() -> None:
    picture = noise(20, 31, 4)
    np.testing.assert_array_equal(onto(picture, contain((20, 31), (20, 31)), (20, 31)), picture)


def test_whole_pixels_move_without_change_and_are_cut_at_the_border() -> None:
    picture, canvas = noise(10, 12, 3), (15, 16)
    for x, y in ((2, 3), (-4, 3), (9, -2), (0, 11)):
        expected = np.zeros((*canvas, 3), np.float32)
        for row in range(10):
            for column in range(12):
                if 0 <= row + y < 15 and 0 <= column + x < 16:
                    expected[row + y, column + x] = picture[row, column]
        np.testing.assert_array_equal(onto(picture, Box(x, y, 12, 10), canvas), expected)


def test_a_picture_beside_the_canvas_leaves_it_empty() -> None:
    assert not onto(noise(10, 12, 3), Box(40, 3, 12, 10), (15, 16)).any()


def ramp(height: int, width: int) -> np.ndarray:
    """A straight slope: its value is the x of the pixel's centre in px."""
    return np.broadcast_to(np.arange(width) + 0.5, (height, width))[..., None].astype(np.float32)


@pytest.mark.parametrize("place", [Box(3.25, 0, 40, 10), Box(3.6, 0, 80.5, 20), Box(2.3, 1, 17, 9)])
def test_places_are_exact_to_fractions_of_a_pixel(place: Box) -> None:
    result = onto(ramp(10, 40), place, (30, 100))[..., 0]
    x = np.arange(100) + 0.5
    expected = (x - place.x) * 40 / place.width
    inside = (expected > 6) & (expected < 34)  # away from the ends, where a slope bends
    assert inside.sum() > 8
    row = result[5]
    np.testing.assert_allclose(row[inside], expected[inside], atol=2e-2)


def test_contain_keeps_the_shape_in_the_middle() -> None:
    assert contain((100, 50), (200, 300)) == Box(100, 0, 100, 200)
    assert contain((100, 200), (50, 50)) == Box(0, 12.5, 50, 25)


def test_a_stand_in_has_the_height_and_the_ground_of_the_place() -> None:
    place = stand_in((100, 80), Box(10, 20, 40, 60), Box(200, 100, 30, 90))
    scale = place.width / 80
    assert scale == pytest.approx(place.height / 100) == pytest.approx(1.5)
    assert place.y + (20 + 60) * scale == pytest.approx(190)
    assert place.x + (10 + 20) * scale == pytest.approx(215)


# Pasting


def test_without_a_background_the_person_is_cut_out() -> None:
    person = mannequins("person", (19, 29))
    made = composite(person)
    mask = region_mask(person.parsing, ["person"])
    np.testing.assert_array_equal(made.images, cut_out(person.pictures, mask))
    np.testing.assert_array_equal(made.images[..., 3], mask)
    np.testing.assert_array_equal(made.masks, mask)
    assert not made.holes.any()


def test_a_hard_paste_takes_every_pixel_from_one_of_the_two() -> None:
    person = mannequins("person", (19, 29))
    background = noise(1, 256, 192, 3)
    made = composite(person, background)
    cover = made.masks[..., None]
    np.testing.assert_array_equal(made.images, np.where(cover, person.pictures, background))
    np.testing.assert_array_equal(made.masks, region_mask(person.parsing, ["person"]))


def test_a_feathered_paste_is_the_blend_that_its_mask_says() -> None:
    person = mannequins("person", (19, 29))
    background = noise(1, 256, 192, 3)
    made = composite(person, background, grow_px=-1, feather_px=4)
    np.testing.assert_array_equal(made.masks, region_mask(person.parsing, ["person"], -1, 4))
    cover = made.masks[..., None]
    blend = person.pictures * cover + background * (1 - cover)
    np.testing.assert_allclose(made.images, blend, atol=1e-6)
    np.testing.assert_array_equal(made.images[made.masks == 0], background[made.masks == 0])


def test_the_person_lands_in_the_box_at_any_size() -> None:
    person = block((40, 30), slice(10, 30), slice(5, 15))
    background = np.zeros((1, 200, 300, 3), np.float32)
    box = Box(120, 50, 70, 100)
    made = composite(person, background, placement="box", boxes=[box])
    rows, columns = (np.flatnonzero((made.masks[0] > 0.5).any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1] + 1) == (50, 150)
    # Five times as large: 50 px wide, in the middle of the box.
    assert (columns[0], columns[-1] + 1) == (130, 180)
    np.testing.assert_allclose(made.images[0, 60:140, 140:170], 0.8, atol=1e-5)
    # Nothing of the grey that was cut away.
    outside = made.images[made.masks < 0.01]
    assert outside.max() < 0.01


@pytest.mark.parametrize("size", [(90, 70), (410, 333)])
def test_resized_people_bring_nothing_of_their_background(size: tuple[int, int]) -> None:
    person = mannequins("person", (19, 29))
    pictures = person.pictures.copy()
    outside = person.mask(["background"]) > 0
    results = []
    for colour in (0, 1):
        pictures[0, outside] = colour
        other = ParsedPicture("person", pictures.copy(), person.parsing)
        results.append(composite(other, np.full((1, *size, 3), 0.5, np.float32)))
    np.testing.assert_array_equal(results[0].images, results[1].images)
    image, cover = results[0].images, results[0].masks
    assert 0 <= image.min() <= image.max() <= 1
    np.testing.assert_array_equal(image[cover == 0], 0.5)


def test_the_edge_is_as_wide_as_asked_in_the_result() -> None:
    """Feathering counts px of the result, however large the person is made."""
    person = block((40, 60), slice(0, 40), slice(0, 30))
    for size in (40, 80, 160):
        background = np.zeros((1, size, size * 3 // 2, 3), np.float32)
        row = composite(person, background, feather_px=12).masks[0, size // 2]
        assert ((row > 0.01) & (row < 0.99)).sum() == pytest.approx(12, abs=3)
        assert row.sum() == pytest.approx(size * 3 / 4, abs=0.5)


def test_the_source_person_gives_place_and_hole() -> None:
    source = block((100, 120), slice(20, 80), slice(70, 90), name="source")
    person = block((50, 40), slice(10, 40), slice(10, 20))
    made = composite(person, source.pictures, source, placement="source person", hole_grow_px=2)
    cover, hole = made.masks[0], made.holes[0]
    rows, columns = (np.flatnonzero((cover > 0.5).any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1] + 1) == (20, 80)
    assert (columns[0] + columns[-1] + 1) / 2 == 80
    expected = source.mask(["person"], 2) * (cover < 0.999)
    np.testing.assert_array_equal(hole, expected)
    assert set(np.unique(hole)) == {0, 1}
    # Hole and opaque cover never meet, and nothing of the source person is left uncovered.
    assert not (hole * (cover >= 0.999)).any()
    assert (hole + cover >= 0.999)[source.mask(["person"]) > 0].all()


def test_a_background_of_another_size_holds_no_source_person() -> None:
    source = block((100, 120), slice(20, 80), slice(70, 90), name="source")
    person = block((50, 40), slice(10, 40), slice(10, 20))
    background = noise(1, 60, 60, 3)
    assert not composite(person, background, source).holes.any()
    with pytest.raises(PoseTransferError, match="120x100 px and the background 60x60 px"):
        composite(person, background, source, placement="source person")


def test_skin_takes_the_colours_of_the_source_skin_and_clothes_stay() -> None:
    person, source = mannequins("person", (19, 29)), mannequins("source", (5, 3))
    background = noise(1, 256, 192, 3)
    made = composite(person, background, source, colour_match="skin")
    plain = composite(person, background)
    skin, clothes = (
        person.mask(regions) > 0 for regions in (["face", "skin"], ["upper", "lower", "shoes"])
    )
    np.testing.assert_array_equal(made.images[0][clothes], plain.images[0][clothes])
    wanted = rgb_to_lab(source.pictures[0][source.mask(["face", "skin"]) > 0]).mean(0)
    before = rgb_to_lab(plain.images[0][skin]).mean(0)
    after = rgb_to_lab(made.images[0][skin]).mean(0)
    assert np.linalg.norm(before - wanted) > 5
    assert np.linalg.norm(after - wanted) < 1
    halfway = composite(person, background, source, colour_match="skin", strength=0.5)
    middle = rgb_to_lab(halfway.images[0][skin]).mean(0)
    np.testing.assert_allclose(middle, (before + after) / 2, atol=1)


def test_a_person_matched_to_itself_is_itself() -> None:
    person = mannequins("person", (19, 29))
    made = composite(person, person.pictures, person, colour_match="person")
    np.testing.assert_allclose(made.images, person.pictures, atol=1e-4)


def test_single_pictures_go_with_every_picture_of_a_batch() -> None:
    people = mannequins("person", (19, 29), (7, 3))
    one = mannequins("person", (19, 29))
    background = noise(1, 256, 192, 3)
    made = composite(people, background)
    np.testing.assert_array_equal(made.images[0], composite(one, background).images[0])
    assert made.images.shape == (2, 256, 192, 3)
    many = composite(one, noise(3, 64, 48, 3), mannequins("source", (7, 3)), colour_match="skin")
    assert many.images.shape == (3, 64, 48, 3)
    with pytest.raises(PoseTransferError, match="2, 3"):
        composite(people, noise(3, 64, 48, 3))


def test_what_does_not_fit_is_named() -> None:
    person = mannequins("person", (19, 29))
    background = noise(1, 256, 192, 3)
    labels = person.parsing.labels
    with pytest.raises(ParsingError, match="person is 96x128 px and its parsing 192x256 px"):
        ParsedPicture("person", noise(1, 128, 96, 3), person.parsing)
    with pytest.raises(ParsingError, match="batch of 2 and its parsing a batch of 1"):
        ParsedPicture("person", noise(2, 256, 192, 3), person.parsing)
    with pytest.raises(ParsingError, match="Connect 'source_parsing'"):
        composite(person, background, colour_match="skin")
    with pytest.raises(PoseTransferError, match="Connect 'box'"):
        composite(person, background, placement="box")
    with pytest.raises(PoseTransferError, match="box to put the person into is empty"):
        composite(person, background, placement="box", boxes=[Box(3, 3, 0, 9)])
    nobody = ParsedPicture("person", person.pictures, Parsing(labels * 0, mannequin.LABELS))
    with pytest.raises(NoPersonError, match="parsing of the person shows nobody"):
        composite(nobody, background, placement="box", boxes=[Box(3, 3, 9, 9)])
    with pytest.raises(ParsingError, match="source shows no skin"):
        source = block((256, 192), slice(20, 80), slice(70, 90), name="source")
        composite(person, background, source, colour_match="skin")


def test_a_frame_without_anybody_keeps_its_background() -> None:
    person = mannequins("person", (19, 29))
    nobody = ParsedPicture(
        "person", person.pictures, Parsing(person.parsing.labels * 0, mannequin.LABELS)
    )
    background = noise(1, 256, 192, 3)
    made = composite(nobody, background, feather_px=3)
    np.testing.assert_array_equal(made.images, background)
    assert not made.masks.any()
