# SPDX-License-Identifier: GPL-3.0-or-later
"""Untrained demo weights for tests that need no picture, and code that runs in the host."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def untrained_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of the demo's base and FPDM as the trainer writes them, with random weights."""
    from pose_transfer.demo.architecture import IMAGE_TOWER, SOURCE_TOWER
    from pose_transfer.fpdm.conv_towers import build_image_tower, build_source_tower
    from pose_transfer.training import export
    from pose_transfer.training.autoencoder import TrainableAutoencoder
    from pose_transfer.training.diffusion import DemoDiffusion
    from pose_transfer.training.fusion import FusionModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained_demo")
    diffusion = DemoDiffusion()
    # A fresh encoder is silent; these tests want to hear it.
    nn.init.normal_(diffusion.fpdm.pose_encoder.conv_out.weight, std=0.5)
    fusion = FusionModel(build_image_tower(IMAGE_TOWER))
    fpdm = export.assemble_fpdm(diffusion, fusion, build_source_tower(SOURCE_TOWER))
    base = export.write_base(folder, diffusion, TrainableAutoencoder(), 0.1, 0.9)
    return base, export.write_fpdm(folder, fpdm)


@pytest.fixture
def run_in_host(in_host: Callable[[str], str]) -> Callable[..., dict[str, Any]]:
    """`run_in_host(script, **values)`: calls `check(**values)` of a file beside this one.

    It runs in a process of the host; what it returns comes back as JSON.
    """

    def run(script: str, **values: Any) -> dict[str, Any]:
        code = (
            "import json, runpy\n"
            f"script = runpy.run_path({str(HERE / script)!r})\n"
            f"print(json.dumps(script['check'](**{values!r})))"
        )
        return json.loads(in_host(code).splitlines()[-1])

    return run
