# SPDX-License-Identifier: GPL-3.0-or-later
"""The decoder's second training: where its windows lie, and what counts in them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from pose_transfer.mannequin import LABELS
from pose_transfer.training import decoder
from pose_transfer.training.autoencoder import TrainableAutoencoder
from pose_transfer.training.batches import Batches
from pose_transfer.training.decoder import WINDOW, Decoder, DecoderTask

CELLS = torch.Size((32, 24))
FACE, HAIR = LABELS.index("face"), LABELS.index("hair")


def labels(row: int, column: int, label: int = FACE) -> Tensor:
    """Two cells by two of a face, else background; (1, 256, 192)."""
    out = torch.zeros(1, 256, 192, dtype=torch.uint8)
    out[:, 8 * row : 8 * row + 16, 8 * column : 8 * column + 16] = label
    return out


@pytest.mark.parametrize("label", [FACE, HAIR])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 11), (15, 22), (30, 5)])
def test_a_window_around_a_head_shows_all_of_it(
    label: int, place: float, row: int, column: int
) -> None:
    seen = labels(row, column, label)
    corners = decoder._corners(seen, CELLS, torch.zeros(1), torch.full((1, 2), place))
    top, left = corners[0].tolist()
    assert 0 <= top <= 32 - WINDOW and 0 <= left <= 24 - WINDOW
    cut = decoder._cut(seen[:, None], corners, 8)
    assert cut.shape == (1, 1, 80, 80)
    assert int((cut == label).sum()) == 16 * 16


def test_other_windows_reach_every_edge() -> None:
    place = torch.cartesian_prod(*[torch.linspace(0, 0.999, 9)] * 2)
    seen = labels(10, 10).expand(len(place), -1, -1)
    corners = decoder._corners(seen, CELLS, torch.full((len(place),), 0.99), place)
    assert corners.amin(0).tolist() == [0, 0]
    assert corners.amax(0).tolist() == [32 - WINDOW, 24 - WINDOW]


def test_only_what_has_something_beside_it_counts() -> None:
    inside, corner = decoder._inner(torch.tensor([[5, 5], [0, 24 - WINDOW]]), CELLS)[:, 0]
    assert inside.shape == (80, 80) and float(inside.sum()) == 64 * 64
    assert not inside[:8].any() and not inside[:, -8:].any()
    # The picture's own top and right edge have what a decoded picture has there: nothing.
    assert corner[0, 8:].all() and corner[:-8, -1].all()
    assert not corner[-8:].any() and not corner[:, :8].any()


class World:
    """Stands where `Batches` does: one black sample, and which label is where."""

    device = torch.device("cpu")

    def __init__(self, shown: Tensor) -> None:
        self.shown = shown

    def rows(self, _name: str, index: Tensor) -> Tensor:
        return self.shown.expand(len(index), -1, -1)

    def pictures(self, _name: str, index: Tensor) -> Tensor:
        return torch.zeros(len(index), 3, 256, 192)


def loss_of(
    painted: nn.Module, latents: Tensor, predicted: Tensor, shown: Tensor | None = None
) -> SimpleNamespace:
    world = World(labels(10, 10) if shown is None else shown)
    task = DecoderTask(
        cast(Batches, world), latents, torch.tensor([0]), predicted, mean=0.25, std=2.0
    )
    loss, figures = task(painted, 64, torch.Generator().manual_seed(0))
    return SimpleNamespace(loss=float(loss), **{k: float(x) for k, x in figures.items()})


class Flat(nn.Module):
    """Paints windows in one grey, and keeps what it was given."""

    def __init__(self, grey: float) -> None:
        super().__init__()
        self.grey = grey
        self.given: list[Tensor] = []

    def forward(self, latents: Tensor) -> Tensor:
        self.given.append(latents)
        return torch.full((len(latents), 3, 8 * WINDOW, 8 * WINDOW), self.grey)


def test_true_and_predicted_latents_are_decoded_on_the_decoder_s_scale() -> None:
    painted = Flat(-1.0)
    perfect = loss_of(painted, torch.full((1, 8, 32, 24), 1.0), torch.full((1, 8, 32, 24), -1.0))
    assert perfect.loss == perfect.face == perfect.all == 0
    means = painted.given[0].mean((1, 2, 3))
    # 1 and -1, times 2, plus a quarter; the true ones with some noise.
    true = (means - 2.25).abs() < 0.1
    assert 16 < int(true.sum()) < 48
    assert torch.allclose(means[~true], torch.tensor(-1.75))


def test_faces_count_most() -> None:
    class Blind(nn.Module):
        """Right, but for a grey face or a grey rest."""

        def __init__(self, wrong_face: bool) -> None:
            super().__init__()
            self.wrong_face = wrong_face

        def forward(self, latents: Tensor) -> Tensor:
            where = latents[:, :1].mT.new_zeros(latents.shape[0], 1, 80, 80)
            marked = latents[:, :1] > 1.0
            where[:] = marked.repeat_interleave(8, 2).repeat_interleave(8, 3)
            grey = where if self.wrong_face else 1 - where
            return (grey - 1.0).expand(-1, 3, -1, -1)

    marked = torch.zeros(1, 8, 32, 24)
    marked[:, :, 10:12, 10:12] = 1.0
    face, rest = (loss_of(Blind(wrong), marked, marked) for wrong in (True, False))
    assert face.face == pytest.approx(1.0) and face.all < 0.1
    assert rest.face == 0.0 and rest.all > 0.9
    # Per pixel that is wrong.
    assert face.loss / face.all > 4 * rest.loss / rest.all


def test_garments_count_more_than_the_rest() -> None:
    latents = torch.zeros(1, 8, 32, 24)

    def loss(name: str) -> float:
        everywhere = torch.full((1, 256, 192), LABELS.index(name))
        return loss_of(Flat(0.0), latents, latents, everywhere).loss

    assert loss("upper") == loss("lower") == pytest.approx(2 * loss("background"))
    assert loss("arms") == pytest.approx(loss("background"))


def test_the_decoder_is_the_autoencoder_s() -> None:
    torch.manual_seed(0)
    autoencoder: Any = TrainableAutoencoder()
    part = Decoder(autoencoder)
    latents = torch.randn(1, 8, 4, 4)
    assert torch.equal(part(latents), autoencoder.decode(latents))
    names = {name for name, _ in part.named_parameters()}
    assert names == {n for n, _ in autoencoder.named_parameters() if n.startswith("decoder.")}
