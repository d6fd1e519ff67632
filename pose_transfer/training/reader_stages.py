# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages that read pictures: the benchmark's judge, the demo's detector, parser, face encoder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from ..demo.architecture import FACE_NET, PERSON_NET
from ..demo.network_files import FACE_FILE, PERSON_FILE, write_network
from ..demo.person_net import PersonNet, build_person_net
from ..evaluation.judge import save_judge, train_judge
from ..mannequin import LABELS, PATTERNS
from . import export
from .faces import FaceTask, face_loss, visible_faces
from .person import person_loss
from .settings import StageSettings
from .workspace import Workspace, channels_last


class ReaderStages(Workspace):
    """Each stage trains its network and writes its file."""

    def judge(self) -> None:
        """The benchmark's pattern classifier."""
        settings = self.settings
        data = self._batches("image", "parsing")
        generator = torch.Generator(self.device)

        def batches():
            for step in range(settings.judge_steps):
                generator.manual_seed(settings.seed * 7919 + step)
                index = data.draw(settings.judge_batch, generator)
                classes = data.labels.classes[data.identities(index)]
                yield (
                    data.rows("image", index), data.rows("parsing", index),
                    classes[:, 0], classes[:, 1],
                )  # fmt: skip

        judge = train_judge(
            batches(), self.device, settings.judge_steps, patterns=PATTERNS,
            upper=LABELS.index("upper"), lower=LABELS.index("lower"), seed=settings.seed,
        )  # fmt: skip
        path = self.out / "mannequin_judge.safetensors"
        save_judge(judge, path)
        export.write_provenance(
            path,
            {
                "command": f"python -m pose_transfer.training.demo --preset {self.preset}",
                "steps": settings.judge_steps,
                "batch": settings.judge_batch,
            },
        )

    def person(self) -> PersonNet:
        """The demo's detector and parser; writes its file."""
        stage = self.settings.person
        module = channels_last(build_person_net(PERSON_NET))
        if self._finished("person", stage.steps):
            self._load("person", module)
        else:
            data = self._batches("image", "parsing", "keypoints", everything=True)
            self._train(
                "person", module, lambda m, step, g: person_loss(m, data, stage.batch, g), stage
            )
        path = self.out / PERSON_FILE
        write_network(path, module, PERSON_NET)
        self._write_network_provenance(path, stage)
        return module

    def face(self) -> FaceTask:
        """The demo's face encoder; writes its file."""
        stage = self.settings.face
        module = channels_last(FaceTask(self.settings.identities))
        if self._finished("face", stage.steps):
            self._load("face", module)
        else:
            data = self._batches("image", "parsing", everything=True)
            faces = visible_faces(data.world, data.count, self.device)
            self._train(
                "face", module, lambda m, step, g: face_loss(m, data, faces, stage.batch, g), stage
            )
        path = self.out / FACE_FILE
        write_network(path, module.net, FACE_NET)
        self._write_network_provenance(path, stage)
        return module

    def _write_network_provenance(self, path: Path, stage: StageSettings) -> None:
        settings = self.settings
        export.write_provenance(
            path,
            {
                "command": f"python -m pose_transfer.training.demo --preset {self.preset}",
                "data": "mannequin world, split train, first "
                f"{settings.identities} identities, {settings.poses_per_identity} poses each",
                "settings": asdict(stage),
            },
        )
