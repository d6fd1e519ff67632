# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches for one process out of several, in order, from any call of the loss on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...errors import PoseTransferError
from .views import View, Views

Batch = dict[str, Tensor]
Inputs = Callable[[View], Batch]
"""A sample's tensors, without the batch dimension. Goes to other processes, so it is picklable."""


@dataclass(frozen=True)
class Share:
    """Which samples of a call this process sees: `size` from `offset` on, of `total`."""

    total: int
    offset: int
    size: int

    @classmethod
    def of(cls, batch: int, accumulation: int, processes: int, index: int) -> Share:
        """Process `index`'s part. PoseTransferError when the batch cannot be split evenly."""
        total = batch // accumulation
        if total % processes:
            raise PoseTransferError(
                f"A batch of {batch} in {accumulation} parts cannot be split over {processes} "
                "processes: make training.batch a multiple of accumulation times processes."
            )
        size = total // processes
        return cls(total, index * size, size)


class Feed:
    """The samples of a run as batches, read ahead in worker processes."""

    def __init__(self, views: Views, inputs: Inputs, share: Share, device: torch.device) -> None:
        self._samples = _Samples(views, inputs)
        self._share = share
        self._device = device
        self._workers = views.settings.workers
        self._next: int | None = None
        self._batches: Iterator[Batch | PoseTransferError] = iter(())

    def batch(self, call: int) -> Batch:
        """The batch of the loss's `call`, on the device; quick where calls follow each other.

        Raises PoseTransferError for a sample that cannot be read.
        """
        if call != self._next:
            loader = DataLoader(
                self._samples,
                batch_sampler=_Positions(self._share, call),  # type: ignore[arg-type]
                num_workers=self._workers,
                collate_fn=_collate,
                pin_memory=self._device.type == "cuda",
                # One of its own: from the global one it would take a number that dropout is to get.
                generator=torch.Generator(),
            )
            self._batches = iter(loader)
        self._next = call + 1
        batch = next(self._batches)
        if isinstance(batch, PoseTransferError):
            raise batch
        return {name: x.to(self._device, non_blocking=True) for name, x in batch.items()}


class _Samples(Dataset):
    def __init__(self, views: Views, inputs: Inputs) -> None:
        self.views = views
        self.inputs = inputs

    def __getitem__(self, position: int) -> Batch | PoseTransferError:
        # An error is handed over as it is: raised in a worker it would come out as a traceback.
        try:
            return self.inputs(self.views.at(position))
        except PoseTransferError as error:
            return error


class _Positions:
    """Endless lists of positions, one list for each call from `first` on."""

    def __init__(self, share: Share, first: int) -> None:
        self.share = share
        self.first = first

    def __iter__(self) -> Iterator[list[int]]:
        for call in itertools.count(self.first):
            start = call * self.share.total + self.share.offset
            yield list(range(start, start + self.share.size))


def _collate(samples: list[Any]) -> Batch | PoseTransferError:
    for sample in samples:
        if isinstance(sample, PoseTransferError):
            return sample
    return stacked(samples)


def stacked(samples: list[Batch]) -> Batch:
    """Samples as one batch."""
    return {name: torch.stack([x[name] for x in samples]) for name in samples[0]}
