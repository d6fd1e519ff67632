# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that opens ONNX files: which hardware runs them, and saying so.

onnxruntime quietly runs a network on the CPU when the graphics card's provider does not start (a
CUDA library of another version, say). Here that is part of the provider's name, which every node
shows.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, MissingDependencyError, PoseTransferError

# In order of preference; only those that the installed onnxruntime was built with are offered.
PROVIDERS = (
    "CUDAExecutionProvider",
    "DmlExecutionProvider",
    "CoreMLExecutionProvider",
    "CPUExecutionProvider",
)
CPU = PROVIDERS[-1]

Array = NDArray[np.float32]


class OnnxModel:
    """A network with one input, ready to run.

    `provider` is what runs it, read back after the network was opened; for the CPU it says why.
    `input_shape` has a number for every fixed size and None for a free one.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises MissingDependencyError without onnxruntime, CheckpointError for a bad file."""
        runtime = _import_onnxruntime()
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(
                f"There is no network file {self.path}. Put it there, or choose one that exists."
            )
        offered = offered_providers(runtime)
        try:
            self._session: Any = runtime.InferenceSession(str(self.path), providers=offered)
        except Exception as error:  # onnxruntime's exceptions share no other base class
            raise CheckpointError(
                f"onnxruntime cannot open {self.path}: {error} Download the file again; if that "
                "does not help, update onnxruntime."
            ) from error
        self.provider = describe_provider(offered, self._session.get_providers())
        (network_input, *further) = self._session.get_inputs()
        if further:
            raise CheckpointError(
                f"{self.path} has {1 + len(further)} inputs, expected one picture. It is another "
                "kind of network."
            )
        self._input_name: str = network_input.name
        self.input_shape = tuple(s if isinstance(s, int) else None for s in network_input.shape)
        self.output_names: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of the RGB picture (1, 3, height, width) that the network takes.

        Raises CheckpointError for another kind of network.
        """
        if len(self.input_shape) == 4 and self.input_shape[1] == 3:
            height, width = self.input_shape[2:]
            if height and width:
                return height, width
        raise CheckpointError(
            f"{self.path} takes an input of shape {self.input_shape}, expected (1, 3, height, "
            "width) of fixed height and width. It is another kind of network."
        )

    def run(self, batch: Array) -> list[Array]:
        """All outputs, in the order of `output_names`. Raises PoseTransferError."""
        try:
            return self._session.run(None, {self._input_name: batch})
        except Exception as error:  # as above
            raise PoseTransferError(
                f"The network {self.path.name} stopped on {self.provider}: {error} If the graphics "
                "card is out of memory, free some; else download the file again."
            ) from error


def offered_providers(runtime: ModuleType) -> list[str]:
    """Of `PROVIDERS` those that the installed onnxruntime has, the preferred one first."""
    return [p for p in PROVIDERS if p in runtime.get_available_providers()]


def describe_provider(offered: list[str], used: list[str]) -> str:
    """The provider that a session uses; for the CPU with the reason.

    `offered` are the providers that it was opened with, `used` those that it reports, both with
    the preferred one first.
    """
    if used[0] != CPU:
        return used[0]
    if offered[0] != CPU:
        return f"{CPU} ({offered[0]} is installed but did not start; the console says why)"
    return f"{CPU} (the installed onnxruntime has no provider for a graphics card)"


def _import_onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"This network needs the package onnxruntime, which cannot be imported ({error}). "
            "Install it into ComfyUI's Python: 'pip install onnxruntime-gpu' with an NVIDIA card, "
            "'pip install onnxruntime-directml' with another card on Windows, "
            "'pip install onnxruntime' otherwise. Then restart ComfyUI."
        ) from error
    return onnxruntime
