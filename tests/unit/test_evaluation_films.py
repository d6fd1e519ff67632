# SPDX-License-Identifier: GPL-3.0-or-later
"""Films: who keeps their colours and follows the poses, and how the report says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pose_transfer.evaluation import films_report
from pose_transfer.evaluation.films import (
    REGIONS,
    Film,
    MeasuredFilm,
    film_set,
    measure_films,
    sample_film,
    score_film,
    wavering,
    with_hands_at_wrists,
)
from pose_transfer.evaluation.films_report import FilmResult
from pose_transfer.evaluation.hands import MIDDLE_KNUCKLE, hand_ssim, visible_hands
from pose_transfer.evaluation.sampling import SamplingSettings
from pose_transfer.fpdm import FPDM

FRAMES = 3
SHORT = SamplingSettings(steps=2)


@pytest.fixture(scope="module")
def film() -> Film:
    return film_set(1, FRAMES, "validation")[0]


@pytest.fixture
def measured(make_fpdm: Callable[..., FPDM], film: Film) -> MeasuredFilm:
    from tests.unit.test_evaluation_benchmark import small_models

    (found,) = measure_films(small_models(make_fpdm(), judge=False), [film], SHORT)
    return found


def test_wavering_is_the_deviation_of_a_regions_colour() -> None:
    parsing = np.repeat([1, 2], 8)[None].repeat(8, axis=0)  # two regions of 8 x 8 px
    film = np.zeros((4, 8, 16, 3), np.uint8)
    film[:, :, :8] = 100
    for frame, level in enumerate((90, 110, 90, 110)):
        film[frame, :, 8:] = level
    np.testing.assert_allclose(wavering(film, [parsing] * 4, (1, 2)), [0, 10])
    film[:, :, 8:, 1:] = 100  # now red alone varies
    assert wavering(film, [parsing] * 4, (2,))[0] == pytest.approx(10 / 3)
    gone = np.where(parsing == 2, 0, parsing)
    found = wavering(film, [parsing, gone, gone, gone], (1, 2))
    assert found[0] == 0 and np.isnan(found[1]), "seen in one frame only"
    found = wavering(film, [parsing, gone, parsing, gone], (2,))
    assert found[0] == 0, "both of its frames are alike"
    with pytest.raises(ValueError, match="shorter"):
        wavering(film, [parsing] * 3, (1,))


def test_the_truth_follows_itself_and_keeps_its_colours(film: Film) -> None:
    scores = score_film(film.pictures, film)
    np.testing.assert_allclose(scores.iou, 1)
    np.testing.assert_allclose(scores.ssim, 1)
    assert np.nanmin(scores.hand_ssim) == pytest.approx(1)
    assert (scores.wavering[~np.isnan(scores.wavering)] < 10).all()


def test_a_still_and_a_crowd_are_told_from_a_film(film: Film, measured: MeasuredFilm) -> None:
    still = score_film(np.repeat(film.pictures[-1:], FRAMES, axis=0), film)
    assert still.iou[-1] == 1 and (still.iou[:-1] < 0.9).all()
    np.testing.assert_array_equal(measured.frozen_iou, still.iou)
    assert np.nanmin(measured.strangers.wavering) > 2 * np.nanmax(measured.truth.wavering)
    assert (measured.strangers.iou > 0.6).all(), "strangers take the right poses"


def test_held_out_films_are_of_different_people_and_poses() -> None:
    first, second = film_set(2, FRAMES)
    for film in (first, second):
        assert all(x % 10 == 9 for x in (film.identity_seed, film.start_seed, film.end_seed))
        assert film.pictures.shape == (FRAMES, 256, 192, 3) and film.source.shape == (256, 192, 3)
        assert not any(np.array_equal(film.source, picture) for picture in film.pictures)
    seeds = [(x.identity_seed, x.start_seed, x.end_seed) for x in (first, second)]
    assert all(a != b for a, b in zip(*seeds, strict=True))
    with pytest.raises(ValueError, match="at least one film"):
        film_set(0)


def test_frames_share_one_noise_and_no_batch_size_matters(
    make_fpdm: Callable[..., FPDM], film: Film
) -> None:
    from tests.unit.test_evaluation_benchmark import small_models

    models = small_models(make_fpdm(), judge=False)
    whole = sample_film(models, film, SHORT, 5, "cpu")
    single = sample_film(models, film, SHORT, 5, "cpu", batch_size=1)
    assert whole.shape == (FRAMES, 256, 192, 3) and whole.dtype == np.uint8
    assert np.abs(whole.astype(int) - single).max() <= 1
    still = Film(film.identity_seed, 0, 0, film.source, (film.truth[0],) * 2)
    one, other = sample_film(models, still, SHORT, 5, "cpu")
    assert np.array_equal(one, other)
    assert not np.array_equal(one, sample_film(models, still, SHORT, 6, "cpu")[0])


def test_a_mannequins_hands_are_at_its_wrists(film: Film) -> None:
    sample = film.truth[0]
    person = with_hands_at_wrists(sample.pose.people[0])
    for hand, wrist in zip(visible_hands(person), (7, 4), strict=True):
        assert hand is not None
        np.testing.assert_array_equal(hand[MIDDLE_KNUCKLE], person.body[wrist])
        assert (hand[:, 2] > 0).sum() == 1, "no finger is made up"
    spoilt = sample.image.copy()
    x, y = person.body[7, :2].astype(int)
    spoilt[max(y - 15, 0) : y + 15, max(x - 15, 0) : x + 15] = 0
    assert hand_ssim(spoilt, sample.image, person) < 0.95


def test_section_and_picture(measured: MeasuredFilm, tmp_path: Path) -> None:
    result = FilmResult((measured,), SHORT, {"some.safetensors": "abc"})
    (tmp_path / "benchmark.md").write_text("# Title\n\n## Films\n\nold words\n\n## Films of old\n")
    films_report.update_report(result, tmp_path)
    films_report.update_report(result, tmp_path)
    text = (tmp_path / "benchmark.md").read_text()
    assert text.startswith("# Title\n\n## Films of old\n") and "old words" not in text
    assert text.count("## Films\n") == 1 and text.endswith(films_report.section(result) + "\n")
    assert "1 held-out people" in text and "2 steps" in text and "`some.safetensors` abc" in text
    row = [f"{value:.3f}" for value in measured.scores.iou]
    assert f"| person {measured.film.identity_seed} | {' | '.join(row)} |" in text
    assert (
        "| SignGAN (paper, RWTH-PHOENIX-Weather 2014T, 260 x 210) | 0.759 | 0.605 | 22.05 |" in text
    )
    facts = json.loads((tmp_path / "benchmark.json").read_text())["films"]
    assert facts["films"][0]["truth"]["iou"] == [1.0] * FRAMES
    assert set(facts["films"][0]["strangers"]["wavering"]) == set(REGIONS)
    with Image.open(tmp_path / "images" / films_report.PICTURE) as picture:
        assert f"images/{films_report.PICTURE}" in text
        assert picture.size == (192 * (FRAMES + 1) + 12, 2 * 256 + 18)
        assert np.asarray(picture.convert("L")).std() > 5


def test_colours_that_no_film_shows_are_a_dash(measured: MeasuredFilm) -> None:
    scores = measured.scores
    hidden = type(scores)(
        scores.iou, scores.ssim, scores.hand_ssim * np.nan, scores.wavering * np.nan
    )
    film = MeasuredFilm(
        measured.film, measured.pictures, hidden, measured.truth, measured.strangers,
        measured.frozen_iou,
    )  # fmt: skip
    result = FilmResult((film,), SHORT, {})
    text = films_report.section(result)
    assert "| FPDM | - | - | - | - |" in text
    assert f"Frames without a hand in the picture: {FRAMES}." in text
    json.dumps(films_report.summary(result), allow_nan=False)
