# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of one-shot tuning on a model of two layers, for noise, velocity and flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pose_transfer.errors import PoseTransferError
from pose_transfer.oneposetrans.crops import Photos, crop_starts, draw_crops, person_square
from pose_transfer.oneposetrans.low_rank import LowRankBranches
from pose_transfer.oneposetrans.objective import draw_noise, loss_weight, masked_error
from pose_transfer.oneposetrans.preview import euler, likest
from pose_transfer.oneposetrans.settings import TuningSettings
from pose_transfer.oneposetrans.tuning import Course, Denoise, tune

FAST = TuningSettings(steps=12, rank=2, alpha=2.0, learning_rate=0.02, seed=3)


def column(sigma: Tensor) -> Tensor:
    return sigma[:, None, None, None]


class Noise:
    """x = x0 + s e; the network predicts e."""

    sigmas = torch.linspace(0.1, 10.0, 50)

    def noisy(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return clean + column(sigma) * noise

    def gain(self, sigma: Tensor) -> Tensor:
        return -sigma

    def snr(self, sigma: Tensor) -> Tensor:
        return sigma**-2

    def denoised(self, x: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        return x - column(sigma) * prediction

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise


class Velocity(Noise):
    """The same x; the network predicts v = (e - s x0) / sqrt(s^2 + 1), up to x's scale."""

    def gain(self, sigma: Tensor) -> Tensor:
        return -sigma / (sigma**2 + 1).sqrt()

    def denoised(self, x: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        s = column(sigma)
        return x / (s**2 + 1) - prediction * s / (s**2 + 1).sqrt()

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        s = column(sigma)
        return (noise - s * clean) / (s**2 + 1).sqrt()


class Flow(Noise):
    """x = (1 - s) x0 + s e; the network predicts e - x0."""

    sigmas = torch.linspace(0.02, 1.0, 50)

    def noisy(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return (1 - column(sigma)) * clean + column(sigma) * noise

    def snr(self, sigma: Tensor) -> Tensor:
        return ((1 - sigma) / sigma) ** 2

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise - clean


KINDS = [Noise(), Velocity(), Flow()]


@dataclass(eq=False)
class World:
    """Two frozen layers that see channels only, and a photo of 6x5 cells."""

    layers: dict[str, nn.Linear]
    photos: Photos
    sampling: Noise

    def predict(self, x: Tensor) -> Tensor:
        hidden = self.layers["a"](x.movedim(1, -1)).tanh()
        return self.layers["b"](hidden).movedim(-1, 1)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.sampling.denoised(x, self.predict(x), sigma)

    def tune(
        self,
        settings: TuningSettings = FAST,
        denoise: Denoise | None = None,
        **options: Any,
    ) -> tuple[LowRankBranches, Course]:
        branches = LowRankBranches(self.layers, settings.rank, settings.alpha, settings.seed)
        denoise = denoise or self.denoise
        with branches.attached():
            course = tune(
                branches, self.photos, (4, 4), denoise, self.sampling, settings, **options
            )
        return branches, course


@pytest.fixture
def world() -> Callable[..., World]:
    def make(sampling: Noise | None = None) -> World:
        generator = torch.Generator().manual_seed(0)
        layers = {"a": nn.Linear(3, 8), "b": nn.Linear(8, 3)}
        for layer in layers.values():
            for weight in layer.requires_grad_(False).parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) / 3)
        latents = torch.randn(1, 3, 6, 5, generator=generator) + 1
        return World(layers, Photos(latents, torch.ones(1, 1, 6, 5)), sampling or Noise())

    return make


@pytest.mark.parametrize("sampling", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_loss_is_that_of_what_the_network_predicts(sampling: Noise) -> None:
    clean, noise, prediction = torch.randn(3, 4, 3, 6, 5, generator=torch.Generator())
    sigma = sampling.sigmas[torch.tensor([0, 10, 30, 49])]
    x = sampling.noisy(clean, noise, sigma)
    error = masked_error(sampling.denoised(x, prediction, sigma), clean, torch.ones(4, 1, 6, 5))
    expected = (prediction - sampling.target(clean, noise, sigma)).square().mean((1, 2, 3))
    torch.testing.assert_close(
        loss_weight(sampling, sigma, 0.0) * error, expected, rtol=2e-3, atol=1e-4
    )


def test_min_snr_is_what_the_paper_says_of_noise_prediction() -> None:
    sigma = torch.tensor([0.1, 0.5, 2.0])
    relative = loss_weight(Noise(), sigma, 5.0) / loss_weight(Noise(), sigma, 0.0)
    snr = sigma**-2
    torch.testing.assert_close(relative, snr.clamp(max=5.0) / snr)


def test_only_what_the_mask_shows_counts() -> None:
    clean = torch.zeros(2, 3, 4, 4)
    wrong = clean.clone()
    wrong[..., :2] = 7.0
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, ..., 2:] = 1.0
    mask[1, ..., 1:] = 1.0
    torch.testing.assert_close(masked_error(wrong, clean, mask), torch.tensor([0.0, 49.0 / 3]))


def test_an_offset_moves_whole_channels() -> None:
    plain = draw_noise((1, 4, 64, 64), 0.0, torch.Generator().manual_seed(0))
    moved = draw_noise((1, 4, 64, 64), 2.0, torch.Generator().manual_seed(0)) - plain
    assert moved.flatten(2).std(-1).max() < 1e-6
    assert moved[0, :, 0, 0].unique().numel() == 4


@pytest.mark.parametrize("sampling", KINDS, ids=lambda kind: type(kind).__name__)
def test_tuning_lowers_the_loss(world: Callable[..., World], sampling: Noise) -> None:
    made = world(sampling)
    _, course = made.tune(replace(FAST, steps=150, batch=8))
    assert not course.broke_down and len(course.loss) == 150
    assert sum(course.loss[-30:]) < 0.8 * sum(course.loss[:30])


def test_one_seed_is_one_lora_and_the_world_s_random_numbers_stay(
    world: Callable[..., World],
) -> None:
    names = {"a": "a", "b": "b"}
    made = world()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    first = made.tune()[0].tensors(names)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    again = world().tune()[0].tensors(names)
    other = world().tune(replace(FAST, seed=4))[0].tensors(names)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["a.lora_up.weight"], other["a.lora_up.weight"])


def test_the_layers_are_left_as_they_were(world: Callable[..., World]) -> None:
    made = world()
    before = {name: layer.weight.clone() for name, layer in made.layers.items()}
    x = torch.ones(1, 3, 2, 2)
    expected = made.predict(x)
    made.tune()
    for name, layer in made.layers.items():
        assert torch.equal(layer.weight, before[name]) and not layer._forward_hooks
    assert torch.equal(made.predict(x), expected)


def test_branches_add_up_times_down(world: Callable[..., World]) -> None:
    made = world()
    branches, _ = made.tune(replace(FAST, alpha=6.0))
    layer, x = made.layers["a"], torch.randn(2, 7, 3)
    with branches.attached():
        got = layer(x)
    merged = layer.weight + 6.0 / 2 * branches.up["a"] @ branches.down["a"]
    torch.testing.assert_close(got, nn.functional.linear(x, merged, layer.bias))


def test_gradients_are_those_of_the_merged_weight() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 5).requires_grad_(False)
    branches = LowRankBranches({"a": layer}, 2, 6.0, 0)
    branches.up["a"].normal_()
    x, towards = torch.randn(2, 7, 3, requires_grad=True), torch.randn(2, 7, 5)
    with branches.attached():
        (layer(x) * towards).sum().backward()
    downs, ups = (parameter.grad for parameter in branches.parameters())

    down, up = (
        x[name].clone().requires_grad_() for x, name in ((branches.down, "a"), (branches.up, "a"))
    )
    y = x.detach().requires_grad_()
    merged = layer.weight + 6.0 / 2 * up @ down
    (nn.functional.linear(y, merged, layer.bias) * towards).sum().backward()
    assert downs is not None and ups is not None and down.grad is not None and up.grad is not None
    torch.testing.assert_close(downs, down.grad.flatten())
    torch.testing.assert_close(ups, up.grad.flatten())
    torch.testing.assert_close(x.grad, y.grad)


def test_layers_in_half_precision_teach_weights_in_full() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 5).requires_grad_(False).bfloat16()
    branches = LowRankBranches({"a": layer}, 2, 2.0, 0)
    with branches.attached():
        got = layer(torch.randn(4, 3).bfloat16())
    got.sum().backward()
    assert got.dtype == torch.bfloat16
    assert [x.grad.dtype for x in branches.parameters() if x.grad is not None] == [
        torch.float32
    ] * 2


def test_what_runs_after_a_step_sees_the_weights_after_it(world: Callable[..., World]) -> None:
    made, x, seen = world(), torch.ones(1, 3, 2, 2), []

    def look(_step: int, _loss: float) -> None:
        with torch.no_grad():
            seen.append(made.predict(x))

    made.tune(replace(FAST, steps=3), after_step=look)
    for steps, prediction in enumerate(seen, 1):
        until = world()
        branches, _ = until.tune(replace(FAST, steps=steps))
        with branches.attached(), torch.no_grad():
            assert torch.equal(until.predict(x), prediction)


def test_what_is_stored_is_what_the_file_of_that_moment_holds() -> None:
    branches = LowRankBranches(layers := {"a": nn.Linear(3, 2)}, 2, 2.0, 0)
    with torch.no_grad():
        branches.up["a"].normal_()
    stored, then = branches.stored(), branches.tensors({"a": "a"})
    assert {(x.dtype, x.device.type) for x in stored} == {(torch.float16, "cpu")}
    with torch.no_grad():
        branches.up["a"].zero_()
        branches.down["a"].zero_()
    branches.restore(stored)
    now = branches.tensors(dict.fromkeys(layers, "a"))
    assert all(torch.equal(x, then[name]) for name, x in now.items())


def test_at_first_nothing_changes(world: Callable[..., World]) -> None:
    made, x = world(), torch.randn(1, 3, 2, 2)
    expected = made.predict(x)
    branches = LowRankBranches(made.layers, 4, 4.0, 0)
    with branches.attached():
        torch.testing.assert_close(made.predict(x).detach(), expected, atol=1e-6, rtol=0)
    assert branches.down["a"].detach().std() == pytest.approx(1 / 4, rel=0.4)


def test_parts_give_the_same_lora(world: Callable[..., World]) -> None:
    settings = replace(FAST, batch=4, steps=3)
    whole, _ = world().tune(settings)
    sizes = []
    made = world()

    def counting(x: Tensor, sigma: Tensor) -> Tensor:
        sizes.append(len(x))
        return made.denoise(x, sigma)

    halves, _ = made.tune(settings, denoise=counting, parts=2)
    assert sizes == [2] * 6
    for name in whole.up:
        torch.testing.assert_close(whole.up[name], halves.up[name], atol=1e-5, rtol=1e-3)


def test_the_last_good_weights_outlive_a_loss_that_is_no_number(
    world: Callable[..., World],
) -> None:
    until, broken = world(), world()
    calls = []

    def breaking(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(None)
        return broken.denoise(x, sigma) * (math.nan if len(calls) > 5 else 1.0)

    branches, course = broken.tune(denoise=breaking)
    assert course.broke_down and len(course.loss) == 5
    # The fifth loss was the last good one: it was measured after four updates.
    expected, _ = until.tune(replace(FAST, steps=4))
    for name in expected.up:
        assert torch.equal(branches.up[name], expected.up[name])


def test_a_model_that_never_gives_a_number_is_an_error(world: Callable[..., World]) -> None:
    made = world()
    with pytest.raises(PoseTransferError, match="first step"):
        made.tune(denoise=lambda x, sigma: x * math.nan)


def test_who_stops_it_between_steps_stops_it(world: Callable[..., World]) -> None:
    made, steps = world(), []

    def stop(step: int, _loss: float) -> None:
        steps.append(step)
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.tune(after_step=stop)
    assert steps == [1, 2]
    assert not any(layer._forward_hooks for layer in made.layers.values())


def test_crops_show_the_person() -> None:
    mask = torch.zeros(1, 1, 20, 8)
    mask[..., 12:16, 2:6] = 1.0
    photos = Photos(torch.arange(160.0).reshape(1, 1, 20, 8), mask)
    generator = torch.Generator().manual_seed(0)
    latents, masks = draw_crops(photos, (8, 8), 60, generator)
    assert latents.shape == (60, 1, 8, 8)
    assert masks.flatten(1).sum(1).min() >= 8, "half of the person's rows"
    assert len(latents[:, 0, 0, 0].unique()) == 7, "all places that show enough come up"


@pytest.mark.parametrize("low, high, side", [(0, 3, 8), (17, 20, 8), (0, 20, 8), (5, 6, 20)])
def test_crops_stay_within_the_photo(low: int, high: int, side: int) -> None:
    mask = torch.zeros(1, 20, 4)
    mask[:, low:high] = 1.0
    first, last = crop_starts(mask, side, -2)
    assert 0 <= first <= last <= 20 - side


def test_a_person_is_shown_alone_in_a_square() -> None:
    photo, mask = torch.rand(10, 8, 3), torch.zeros(10, 8)
    mask[1:9, 2:5] = 1.0
    mask[1, 2] = 0.25  # a soft edge is blended, and seen by nobody's box
    square = person_square(photo, mask)
    assert square.shape == (8, 8, 3)
    torch.testing.assert_close(square[1:, 2:5], photo[2:9, 2:5])
    torch.testing.assert_close(square[0, 2], 0.25 * photo[1, 2] + 0.75 * 0.5)
    assert (square[:, :2] == 0.5).all() and (square[:, 5:] == 0.5).all()


@pytest.mark.parametrize(
    "scores, place",
    [
        ([0.1, 0.3, 0.3], 1), ([math.nan, 0.1], 1), ([-0.5, math.inf], 0), ([math.nan] * 2, None),
        ([], None),
    ],
)  # fmt: skip
def test_the_likest_of_those_that_have_a_score(scores: list[float], place: int | None) -> None:
    assert likest(scores) == place


def test_an_empty_mask_is_an_error() -> None:
    with pytest.raises(PoseTransferError, match="mask"):
        Photos(
            torch.zeros(2, 4, 8, 8), torch.cat([torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)])
        )


def test_settings_that_make_no_sense_are_errors() -> None:
    with pytest.raises(PoseTransferError, match="steps"):
        TuningSettings(steps=0)
    with pytest.raises(PoseTransferError, match="learning rate"):
        TuningSettings(learning_rate=0.0)


def test_euler_ends_where_a_perfect_model_points() -> None:
    clean = torch.randn(1, 3, 4, 4)
    x = 5.0 * torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(
        euler(lambda x, sigma: clean, x, torch.tensor([5.0, 2.0, 0.5, 0.0])), clean
    )
