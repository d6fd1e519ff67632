# SPDX-License-Identifier: GPL-3.0-or-later
"""The mannequin world: determinism, ground truth that agrees with the picture, disjoint splits."""

import hashlib

import numpy as np
import pytest

from pose_transfer.mannequin import (
    HELD_OUT_PATTERNS,
    LABELS,
    PATTERNS,
    pair_seeds,
    pairs,
    render,
    render_figure,
    sample_identity,
    sample_pose,
    split_seeds,
)
from pose_transfer.mannequin.captions import caption
from pose_transfer.mannequin.vocabulary import BEGIN, END, LENGTH, TOKEN_IDS, encode
from pose_transfer.pose.skeleton import BODY_NAMES

SEEDS = [(int(i), int(p)) for i, p in zip(range(0, 40), range(1000, 1040), strict=True)]

# sha256 of image and parsing: a change of these is a change of the world that all weights know.
GOLDEN = {
    (0, 0): "9f110ae8f113f3dbd91ab3d8a518f5bb22d42b0657edefd3896f38b1ce924b80",
    (19, 1009): "7685f4f23ec30f5932c7dd3005795cafac40df532b4623463f1eeac34e09a52c",
    (123, 456): "d94219b167a84ba027149dde07915112bbf23e24fc1799c827020b3c93e34dd8",
    (78, 3): "f9bbc065aad915a2eafb209e4117e8bc2fada8041752816c79fa7e059b4b9f88",
}


@pytest.fixture(scope="module")
def samples():
    return [render(identity, pose) for identity, pose in SEEDS]


@pytest.mark.parametrize(("seeds", "digest"), GOLDEN.items())
def test_seeds_name_the_same_picture_on_every_machine(seeds, digest):
    sample = render(*seeds)
    found = hashlib.sha256(sample.image.tobytes() + sample.parsing.tobytes()).hexdigest()
    assert found == digest


def test_sample_shapes(samples):
    for sample in samples:
        assert sample.image.shape == (256, 192, 3) and sample.image.dtype == np.uint8
        assert sample.parsing.shape == (256, 192) and sample.parsing.max() < len(LABELS)
        assert (sample.pose.height, sample.pose.width) == (256, 192)


def test_other_canvas_sizes_show_the_same_figure():
    small, large = render(3, 5), render(3, 5, 512, 384)
    shrunk = large.parsing[1::2, 1::2]
    assert (shrunk == small.parsing).mean() > 0.97
    scaled = large.pose.people[0].body[:, :2] / 2
    assert np.abs(scaled - small.pose.people[0].body[:, :2]).max() < 0.6


def test_canvas_must_hold_a_figure():
    with pytest.raises(ValueError, match="at least 32"):
        render(0, 0, 16, 16)


@pytest.mark.parametrize("sampler", [sample_identity, sample_pose])
def test_negative_seed_is_refused(sampler):
    with pytest.raises(ValueError, match="-1"):
        sampler(-1)


def test_figure_is_inside_and_fills_the_canvas(samples):
    for sample in samples:
        rows = np.flatnonzero((sample.parsing > 0).any(axis=1))
        assert rows[-1] - rows[0] > 0.6 * 256
        assert not (sample.parsing[:, [0, -1]] > 0).any()


def test_every_part_is_seen_in_most_pictures(samples):
    for label in range(1, len(LABELS)):
        shown = np.mean([(sample.parsing == label).any() for sample in samples])
        # Long sleeves and trousers hide arms and legs.
        assert shown > (0.4 if LABELS[label] == "legs" else 0.85 if label != 2 else 0.6)


def test_keypoints_lie_on_the_parts_they_name(samples):
    on_figure, on_face = [], []
    for sample in samples:
        body = sample.pose.people[0].body
        for name, (x, y, confidence) in zip(BODY_NAMES, body, strict=True):
            if not confidence:
                continue
            label = sample.parsing[int(np.clip(y, 0, 255)), int(np.clip(x, 0, 191))]
            if name in ("left_eye", "right_eye"):
                on_face.append(LABELS[label] in ("face", "hair", "arms", "upper"))
            else:
                on_figure.append(label > 0)
    assert np.mean(on_figure) > 0.97
    assert np.mean(on_face) > 0.95


def test_face_points_are_absent_from_behind():
    seen_behind, seen_in_front = [], []
    nose = BODY_NAMES.index("nose")
    for seed in range(60):
        pose = sample_pose(seed)
        turned = np.cos(pose.yaw + pose.head_yaw)
        confidence = (
            render_figure(sample_identity(1), pose, 256, 192).sample.pose.people[0].body[nose, 2]
        )
        if turned < -0.3:
            seen_behind.append(confidence)
        elif turned > 0.3:
            seen_in_front.append(confidence)
    assert seen_behind and not any(seen_behind)
    assert seen_in_front and all(seen_in_front)


def test_left_and_right_are_the_persons_own():
    front = next(s for s in range(200) if np.cos(sample_pose(s).yaw) > 0.95)
    back = next(s for s in range(200) if np.cos(sample_pose(s).yaw) < -0.95)
    left, right = BODY_NAMES.index("left_shoulder"), BODY_NAMES.index("right_shoulder")
    body = render(0, front).pose.people[0].body
    assert body[left, 0] > body[right, 0]
    body = render(0, back).pose.people[0].body
    assert body[left, 0] < body[right, 0]


def test_garment_pixels_have_the_garments_colours():
    for seed in range(12):
        person, sample = sample_identity(seed), render(seed, 2000 + seed)
        for label, garment in ((3, person.upper), (4, person.lower)):
            pixels = sample.image[sample.parsing == label].astype(float)
            if len(pixels) < 50:
                continue
            # Shading scales a colour, so compare directions.
            colours = np.array([garment.colour, garment.second_colour], float)
            along = (pixels @ colours.T) / (colours**2).sum(1)
            rest = np.linalg.norm(pixels[:, None] - along[..., None] * colours, axis=-1).min(1)
            mixed = garment.pattern == "gradient"
            assert np.median(rest) < (90 if mixed else 14)


def test_patterns_stay_on_the_body_when_it_turns():
    """A checked shirt shows both of its colours in about equal shares from every side."""
    seed = next(s for s in range(500) if sample_identity(s).upper.pattern == "checks")
    garment = sample_identity(seed).upper
    for pose in (0, 1, 2, 3, 4, 5):
        sample = render(seed, pose)
        pixels = sample.image[sample.parsing == 3].astype(float)
        first = np.linalg.norm(pixels - np.array(garment.colour), axis=1)
        second = np.linalg.norm(pixels - np.array(garment.second_colour), axis=1)
        assert 0.25 < (first < second).mean() < 0.75


def test_all_patterns_occur_and_differ():
    found = {sample_identity(s).upper.pattern for s in range(200)}
    assert found == set(PATTERNS)
    assert "logo" not in {sample_identity(s).lower.pattern for s in range(200)}


def test_a_held_out_pattern_is_drawn_by_no_seed_and_changes_the_upper_garment_alone():
    assert not set(HELD_OUT_PATTERNS) & set(PATTERNS)
    own = render(19, 29)
    for pattern in HELD_OUT_PATTERNS:
        other = render(19, 29, upper_pattern=pattern)
        changed = (own.image != other.image).any(axis=-1)
        assert (own.parsing == other.parsing).all()
        upper = own.parsing == LABELS.index("upper")
        assert changed[upper].mean() > 0.2
        assert changed[~upper].mean() < 0.01  # mixed with it at its edges
        assert f"{pattern} {sample_identity(19).upper.kind}" in other.caption


def test_an_unknown_pattern_is_named():
    with pytest.raises(ValueError, match="tartan"):
        render(19, 29, upper_pattern="tartan")


def test_body_coordinates_name_the_same_place_in_two_poses():
    """Cells that lie at the same place on the body show about the same colour."""
    person = sample_identity(
        next(s for s in range(99) if sample_identity(s).upper.pattern == "dots")
    )
    front = [s for s in range(200) if np.cos(sample_pose(s).yaw) > 0.9][:2]
    one, two = (render_figure(person, sample_pose(s), 256, 192, True) for s in front)
    assert one.coordinates is not None and two.coordinates is not None
    mask_one = one.sample.parsing == 3
    mask_two = two.sample.parsing == 3
    places_one = one.coordinates[mask_one][::7]
    colours_one = one.sample.image[mask_one][::7].astype(float)
    places_two, colours_two = two.coordinates[mask_two], two.sample.image[mask_two].astype(float)
    distance = np.linalg.norm(places_one[:, None] - places_two[None], axis=-1)
    near = distance.min(1) < 0.006
    difference = np.abs(colours_one - colours_two[distance.argmin(1)]).mean(1)[near]
    assert near.sum() > 50 and np.median(difference) < 12


@pytest.mark.parametrize("pattern", ["stripes", "checks", "dots", "logo"])
def test_one_picture_shows_all_of_a_garment(pattern):
    """What the back shows is found at the same `cloth` place in a picture of the front."""
    yaws = [np.cos(sample_pose(s).yaw) for s in range(300)]
    front = [s for s, c in enumerate(yaws) if c > 0.9][:3]
    back = [s for s, c in enumerate(yaws) if c < -0.9][:3]
    person = sample_identity(
        next(s for s in range(200) if sample_identity(s).upper.pattern == pattern)
    )
    found, difference = [], []
    for one, two in zip(front, back, strict=True):
        seen, wanted = (render_figure(person, sample_pose(s), 256, 192, True) for s in (one, two))
        assert seen.cloth is not None and wanted.cloth is not None
        masks = [r.sample.parsing == LABELS.index("upper") for r in (seen, wanted)]
        places = wanted.cloth[masks[1]][::9]
        distance = np.linalg.norm(places[:, None] - seen.cloth[masks[0]][None], axis=-1)
        colours = seen.sample.image[masks[0]].astype(float)[distance.argmin(1)]
        near = distance.min(1) < 0.01
        found.append(near.mean())
        difference.append(
            np.abs(colours - wanted.sample.image[masks[1]][::9].astype(float)).mean(1)[near]
        )
    assert np.mean(found) > 0.75
    assert np.median(np.concatenate(difference)) < 14


def test_every_pixel_of_a_figure_has_its_place():
    for seed in range(12):
        rendering = render_figure(sample_identity(seed), sample_pose(seed), 256, 192, True)
        assert rendering.coordinates is not None and rendering.cloth is not None
        figure = rendering.sample.parsing > 0
        assert rendering.coordinates[figure].any(axis=-1).mean() > 0.999
        assert not rendering.coordinates[~figure].any() and not rendering.cloth[~figure].any()
        # Hair has places of its own, also where it hangs over the shoulders.
        hair = rendering.sample.parsing == LABELS.index("hair")
        assert (rendering.cloth[hair][:, 0] < -0.1).all()


def test_splits_are_disjoint_and_stable():
    seeds = {name: split_seeds(name, 0, 1000) for name in ("train", "validation", "test")}
    assert seeds["train"][:9].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10]
    assert seeds["test"][:2].tolist() == [9, 19]
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not np.intersect1d(seeds[first], seeds[second]).size
    with pytest.raises(ValueError, match="unknown split"):
        split_seeds("dev", 0, 1)


def test_pairs_show_one_person_in_two_poses():
    for pair in pairs("test", 3):
        assert pair.source.caption == pair.target.caption
        assert pair.source_pose_seed != pair.target_pose_seed
        assert not np.array_equal(pair.source.image, pair.target.image)
    assert len(np.unique(pair_seeds("test", 200)[:, 0])) == 200


def test_captions_have_oneposetrans_form_and_known_words():
    for seed in range(50):
        text = caption(sample_identity(seed))
        assert text.split()[3] == "face,"
        tokens = encode(text)
        assert len(tokens) == LENGTH and tokens[0] == BEGIN and tokens[-1] == END
        # The face is CLIP token 4, as the paper has it.
        assert tokens[4] == TOKEN_IDS["face"]
