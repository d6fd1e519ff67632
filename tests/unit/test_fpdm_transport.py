# SPDX-License-Identifier: GPL-3.0-or-later
"""The source's colours arrive where the target pose shows the same place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pose_transfer.fpdm import FPDM, SourceProjection, load_checkpoint, save_checkpoint
from pose_transfer.fpdm.conv_towers import build_pose_encoder, build_source_tower
from pose_transfer.fpdm.preprocess import FPDMPreprocess
from pose_transfer.fpdm.transport import SourceTransport, build_transport

CONFIG = {
    "source_width": 5,
    "pose_width": 5,
    "hidden": 8,
    "out_channels": 8,
    "sharpness": 0.01,
}
ROWS, COLUMNS = 4, 3


class Told(nn.Module):
    """A head that is told places (B, 4, 2h, 2w); zero where there is no body."""

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return states, (states.abs().sum(1, keepdim=True) > 0) * 2.0 - 1.0


@pytest.fixture
def transport() -> SourceTransport:
    torch.manual_seed(0)
    module = build_transport(CONFIG)
    module.source_places = module.pose_places = Told()  # type: ignore[assignment]
    return module


def grid_of_places() -> Tensor:
    """Every quarter cell another place, a tenth of a body height apart."""
    y, x = torch.meshgrid(torch.arange(2 * ROWS), torch.arange(2 * COLUMNS), indexing="ij")
    return torch.stack([y * 0.1 + 0.1, x * 0.1 + 0.1, y * 0.0, x * 0.0])[None].float()


def photo_of(quarters: Tensor) -> Tensor:
    """Flat quarters (B, 3, 2h, 2w) of 4 x 4 pixels."""
    return quarters.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_colours_follow_their_places(transport: SourceTransport) -> None:
    quarters = torch.rand(1, 3, 2 * ROWS, 2 * COLUMNS)
    order = torch.randperm(4 * ROWS * COLUMNS)
    shuffled = grid_of_places().flatten(2)[..., order].unflatten(2, (2 * ROWS, 2 * COLUMNS))
    carried = transport.carry(photo_of(quarters), grid_of_places(), shuffled)
    expected = quarters.flatten(2)[..., order].unflatten(2, (2 * ROWS, 2 * COLUMNS)) * 2 - 1
    torch.testing.assert_close(carried[:, :3], expected)
    torch.testing.assert_close(carried[:, 3:], torch.ones_like(carried[:, 3:]))


def test_what_the_source_does_not_show_is_not_made_up(transport: SourceTransport) -> None:
    source, target = grid_of_places(), grid_of_places()
    source[..., :3] = 0.0  # the left half is no body
    target[..., 0, :] = 0.0
    carried = transport.carry(torch.ones(1, 3, 32, 24), source, target)
    assert torch.equal(carried[..., 0, :], torch.zeros(1, 4, 6))
    assert (carried[..., 1:, 3:] > 0.99).all()
    assert (carried[:, :, 1:, 0].abs() < 0.01).all()  # three places away from anything seen


def test_nobody_in_the_picture_carries_nothing(transport: SourceTransport) -> None:
    nobody = torch.zeros(1, 4, 8, 6)
    for source, target in ((nobody, grid_of_places()), (grid_of_places(), nobody)):
        carried = transport.carry(torch.rand(1, 3, 32, 24), source, target)
        assert torch.equal(carried, torch.zeros(1, 4, 8, 6))


def test_one_source_goes_with_many_poses(transport: SourceTransport) -> None:
    places = torch.cat([grid_of_places(), grid_of_places().flip(3)])
    photo = torch.rand(1, 3, 32, 24)
    both = transport.carry(photo, grid_of_places(), places)
    for row in range(2):
        alone = transport.carry(photo, grid_of_places(), places[row : row + 1])
        assert torch.equal(both[row : row + 1], alone)


def test_untrained_transport_adds_nothing() -> None:
    module = build_transport(CONFIG)
    states = torch.rand(2, 5, ROWS, COLUMNS)
    assert torch.equal(module(torch.rand(2, 3, 32, 24), states, states), torch.zeros(2, 8, 4, 3))


@pytest.fixture
def demo_like(make_fpdm: Callable[..., FPDM]) -> FPDM:
    torch.manual_seed(4)
    towers = {"widths": (8, 8, 8, 16, 16), "hidden_size": 8}
    transport = build_transport({**CONFIG, "source_width": 8, "pose_width": 8})
    nn.init.normal_(transport.conv_out.weight)
    for head in (transport.source_places, transport.pose_places):
        nn.init.constant_(head.get_parameter("net.2.bias")[16:], 9.0)  # a body everywhere
    fpdm = make_fpdm(
        source_projection=SourceProjection(8, 20, 12),
        pose_encoder=build_pose_encoder({**towers, "out_channels": 8}),
        source_tower=build_source_tower(towers),
        transport=transport,
    )
    fpdm.preprocess = FPDMPreprocess(source_size=(64, 32))
    return fpdm


@torch.no_grad()
def test_saved_transport_loads_as_the_same(demo_like: FPDM, tmp_path: Path) -> None:
    size = demo_like.preprocess.source_size
    photo, pose = torch.rand(1, *size, 3), torch.rand(1, 3, 64, 32)
    hidden = demo_like.source_hidden(photo)
    before = demo_like.carried_features(photo, hidden, pose)
    assert before is not None and before.shape == (1, 8, 8, 4) and before.abs().max() > 0
    save_checkpoint(demo_like, tmp_path / "model.safetensors")
    # Some processors round products by where the numbers lie; a copy lies as any tensor does.
    loaded = copy.deepcopy(load_checkpoint(tmp_path / "model.safetensors"))
    assert isinstance(loaded.transport, SourceTransport)
    after = loaded.carried_features(photo, hidden, pose)
    assert after is not None and torch.equal(after, before)


def test_other_models_carry_nothing(make_fpdm: Callable[..., FPDM]) -> None:
    fpdm = make_fpdm()
    nothing = torch.zeros(1, 1, 1)
    assert fpdm.carried_features(torch.rand(1, 8, 8, 3), nothing, torch.rand(1, 3, 8, 8)) is None


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"source_width": 7}, "source width is 7.* is 8"),
        ({"pose_width": 7}, "pose width is 7.* is 8"),
        ({"out_channels": 7}, "output is 7.* is 8"),
    ],
)
def test_transport_of_another_model_is_refused(
    demo_like: FPDM, widths: dict[str, int], message: str
) -> None:
    other = build_transport({**CONFIG, "source_width": 8, "pose_width": 8, **widths})
    with pytest.raises(ValueError, match=message):
        FPDM(
            demo_like.source_projection,
            demo_like.pose_encoder,
            demo_like.class_embedding,
            source_tower=demo_like.source_tower,
            transport=other,
        )


def test_transport_needs_the_pose_encoder_that_knows_places(
    demo_like: FPDM, make_fpdm: Callable[..., FPDM]
) -> None:
    with pytest.raises(ValueError, match="convolutional pose encoder"):
        make_fpdm(transport=demo_like.transport)
