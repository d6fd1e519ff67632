# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM's first stage on a user's pictures: image tower and Combiner under InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ...errors import PoseTransferError
from ...fpdm import FPDM, FPDMPreprocess, info_nce, load_checkpoint, retrieval_ranks
from ...fpdm import save_checkpoint as save_fpdm
from ...fpdm.modules import Combiner
from ...fpdm.preprocess import RELEASED
from ..fusion import FusionModel
from .feed import Batch, stacked
from .figures import panel
from .layouts import Pair
from .parts import clip_tower, embed_size, set_dropout, write_fusion
from .settings import MAY_CHANGE, DataSettings, TrainingSettings, require_shares
from .task import Rows
from .views import View

_BATCH = 16
_NEAREST = 3


@dataclass(frozen=True, kw_only=True)
class IPFTraining(TrainingSettings):
    """The released code's values (the paper's text has a learning rate of 1e-4)."""

    epochs: float = field(default=5.0, metadata=MAY_CHANGE)
    batch: int = 48
    learning_rate: float = 1e-5
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class IPFModel:
    """Where the tower comes from, and the loss (papers' A3; A2 without `source_enhanced`)."""

    tower: Path | None = None
    """A transformers folder with a CLIP that has a projection, such as CLIP ViT-L/14."""
    fpdm: Path | None = None
    """An FPDM file of ours or a released one, whose tower and Combiner are trained further."""
    source_enhanced: bool = True
    temperature: float = 0.07
    lambda_l1: float = 1e-4
    dropout: float = 0.5
    """In the Combiner."""

    def __post_init__(self) -> None:
        if (self.tower is None) == (self.fpdm is None):
            raise ValueError("give either 'tower' or 'fpdm', where the image tower comes from.")
        require_shares(dropout=self.dropout)


@dataclass(frozen=True)
class IPFSettings:
    data: DataSettings
    training: IPFTraining
    model: IPFModel


@dataclass(frozen=True)
class IPFInputs:
    """Source, pose and target for the image tower, (3, S, S) each."""

    preprocess: FPDMPreprocess

    def __call__(self, view: View) -> Batch:
        return {
            "source": self.preprocess.embed_pixels(view.source)[0],
            "pose": self.preprocess.embed_pose_pixels(view.pose_map)[0],
            "target": self.preprocess.embed_pixels(view.target())[0],
        }


class IPFTask:
    """The fusion model in training."""

    columns: tuple[str, ...] = (
        "source",
        "pose",
        "target",
        *(f"{i + 1}. nearest" for i in range(_NEAREST)),
    )

    def __init__(
        self, settings: IPFSettings, accelerator: Accelerator, pairs: Sequence[Pair]
    ) -> None:
        self.settings = settings
        self.accelerator = accelerator
        model = settings.model
        self.fpdm: FPDM | None = None
        if model.tower is not None:
            tower = clip_tower(model.tower)
            width = tower.config.projection_dim
            combiner = Combiner(width, width, width)
            preprocess = replace(RELEASED, embed_size=embed_size(tower))
        else:
            assert model.fpdm is not None, "the settings ask for one of both"
            self.fpdm = load_checkpoint(model.fpdm)
            tower, combiner = self.fpdm.image_tower, self.fpdm.combiner
            preprocess = self.fpdm.preprocess
            if tower is None or combiner is None:
                raise PoseTransferError(
                    f"model.fpdm: {model.fpdm} holds no fusion model. Give a file that has one, or "
                    "'tower' instead."
                )
        set_dropout(combiner, model.dropout)
        if settings.training.gradient_checkpointing:
            _checkpoint(tower)
        self.module = FusionModel(tower, combiner).requires_grad_(True)
        self.inputs = IPFInputs(preprocess)

    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE over the batch of all processes together."""
        model = self.settings.model
        embeds = module(batch["source"], batch["pose"], batch["target"])
        target, source, fused = (self._of_all_processes(x.float()) for x in embeds)
        value = info_nce(
            target, source, fused, model.temperature, model.lambda_l1, model.source_enhanced
        )
        # Every process has the gradient of its own samples only, and the mean over the processes
        # is taken: times their number it is the gradient of the whole.
        others = self.accelerator.num_processes - 1
        loss = value + others * (value - value.detach())
        with torch.no_grad():
            ranks = retrieval_ranks(fused, torch.cat([target, source]))
        return loss, {"recall_at_1": (ranks <= 1).float().mean()}

    def check(
        self, module: nn.Module, views: Sequence[View], shown: int
    ) -> tuple[dict[str, float], Rows]:
        """Retrieval of each pair's target among all targets and sources, as the paper measures."""
        parts = []
        for start in range(0, len(views), _BATCH):
            batch = stacked([self.inputs(view) for view in views[start : start + _BATCH]])
            batch = {name: x.to(self.accelerator.device) for name, x in batch.items()}
            parts.append(module(batch["source"], batch["pose"], batch["target"]))
        target, source, fused = (torch.cat(x).float() for x in zip(*parts, strict=True))
        ranks = retrieval_ranks(fused, torch.cat([target, source])).float()
        figures = {
            "recall_at_1": (ranks <= 1).float().mean().item(),
            "recall_at_3": (ranks <= 3).float().mean().item(),
            "mean_rank": ranks.mean().item(),
        }
        gallery = nn.functional.normalize(torch.cat([target, source]), dim=-1)
        nearest = (nn.functional.normalize(fused, dim=-1) @ gallery.T).argsort(1, descending=True)
        rows = []
        for number, view in enumerate(views[:shown]):
            pictures = [view.source, view.pose_map, view.target()]
            for index in nearest[number, :_NEAREST].tolist():
                found = views[index % len(views)]
                pictures.append(found.target() if index < len(views) else found.source)
            data = self.settings.data
            rows.append([panel(x, data.height, data.width) for x in pictures])
        return figures, rows

    def save(self, path: Path) -> None:
        """A stage 1 file, or the whole FPDM where the training began with one."""
        if self.fpdm is None:
            write_fusion(path, self.module.combiner, self.module.tower)  # type: ignore[arg-type]
        else:
            save_fpdm(self.fpdm, path)

    def _of_all_processes(self, x: Tensor) -> Tensor:
        """All processes' rows, in their order; gradients flow through this process's own."""
        if self.accelerator.num_processes == 1:
            return x
        rows = list(self.accelerator.gather(x.detach()).split(len(x)))  # type: ignore[union-attr]
        rows[self.accelerator.process_index] = x
        return torch.cat(rows)


def _checkpoint(tower: nn.Module) -> None:
    if not hasattr(tower, "gradient_checkpointing_enable"):
        raise PoseTransferError(
            "training.gradient_checkpointing: this file's small convolutional tower has none. Set "
            "it to false."
        )
    tower.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
