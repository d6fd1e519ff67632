# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: which weights tuning keeps by their previews, and stops."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import numpy as np
import torch
from pose_transfer_pack.nodes import likeness
from pose_transfer_pack.nodes.patches import tuning
from pose_transfer_pack.pose_transfer.detectors.base import Face
from pose_transfer_pack.pose_transfer.detectors.face_choice import ChosenFace, as_embedding
from pose_transfer_pack.pose_transfer.types import Box
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from in_host_tuning import Report, State, job, same, tiny

STEPS = 3


@torch.inference_mode()
def check() -> Report:
    torch.set_num_threads(1)  # tiny tensors; threads only wait for each other
    made = tiny["tiny_unet"]("sd15")
    return best(made) | face(made) | person(made) | several(made) | stops(made)


class Judge:
    """A CLIP Vision whose opinion of the previews is known beforehand: cosines with the photos."""

    def __init__(self, opinion: Sequence[float]) -> None:
        self.model = nn.Linear(1, 1)
        self.opinion = opinion
        self.photos: list[Tensor] = []

    def encode_image(self, pictures: Tensor) -> dict[str, Tensor]:
        if len(pictures) == 1 < len(self.opinion):
            self.photos.append(pictures)
            return {"image_embeds": torch.tensor([[1.0, 0.0]])}
        angles = torch.tensor(self.opinion).acos()
        return {"image_embeds": torch.stack([angles.cos(), angles.sin()], dim=1)}


def best(made: Any) -> Report:
    """Previews after each of three steps: kept is what a tuning of so many steps gives."""
    after = [tuning._tune(job(made, steps=steps))[0] for steps in (1, 2, 3)]

    def kept(*opinion: float) -> tuple[list[int], Any, str]:
        tuned, said = tuning._tune(
            job(made, steps=STEPS, preview_every=1, clip_vision=Judge(opinion))
        )
        steps = [n for n, one in enumerate(after, 1) if same(one.tensors, tuned.tensors)]
        return steps, tuned.about, said

    diverged, about, said = kept(math.nan, 0.2, 0.1)
    return {
        "likest": kept(0.1, 0.9, 0.5)[0],
        "diverged first": diverged,
        "about": [about["kept_step"], about["likeness"][0]],
        "said": said,
        "none": kept(math.nan, math.nan, math.nan)[0],
        "none said": kept(math.nan, math.nan, math.nan)[2],
    }


class Faces:
    """A face encoder: the likest face in each preview is at that cosine of the photo's, or none."""

    def __init__(self, cosines: Sequence[float | None]) -> None:
        self.cosines = list(cosines)

    def faces(self, picture: Any) -> list[Any]:
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        cosine = self.cosines.pop(0)
        if cosine is None:
            return []
        raw = np.zeros((2, 512), np.float32)
        raw[:, :2] = [-3, 0], [7 * cosine, 7 * math.sqrt(1 - cosine**2)]  # somebody else's first
        points = np.zeros((5, 2), np.float32)
        return [Face(Box(0, 0, 9, 9), points, one) for one in raw]


def face(made: Any) -> Report:
    """The same with a face encoder, alone and beside a CLIP Vision."""
    after = [tuning._tune(job(made, steps=steps))[0] for steps in (1, 2, 3)]

    def kept(
        cosines: Sequence[float | None], found: bool = True, opinion: Sequence[float] = ()
    ) -> tuple[list[int], Any, str]:
        one = as_embedding([ChosenFace(None, 0)], "an encoder")
        raw = one.raw.copy()
        raw[0, 0] = float(found)
        known = dataclasses.replace(one, raw=5 * raw, normalised=raw, found=np.array([found]))
        likeness.load_named = {"an encoder": Faces(cosines)}.__getitem__
        judge: dict[str, Any] = {"clip_vision": Judge(opinion)} if opinion else {}
        asked = job(made, steps=STEPS, preview_every=1, face=known, **judge)
        tuned, said = tuning._tune(asked)
        keys.add(asked.key())
        steps = [n for n, one in enumerate(after, 1) if same(one.tensors, tuned.tensors)]
        return steps, tuned.about.get("likeness"), said

    keys = {job(made, steps=STEPS, preview_every=1).key()}
    before = likeness.load_named
    try:
        return {
            "face": kept([0.5, 0.75, 0.25]),
            "without face": kept([None, -0.5, -0.75]),
            "no face": kept([None, None, None]),
            "no face in photo": kept([0.5, 0.75, 0.25], found=False),
            "face and picture": kept([0.5, 0.25, 0.25], opinion=(0.1, 0.2, 0.9)),
            "picture only": kept([None, None, None], opinion=(0.1, 0.9, 0.5)),
            "face keys": len(keys),
        }
    finally:
        likeness.load_named = before


def person(made: Any) -> Report:
    """What the judge is shown of the photo: the person in a grey square, whatever is around."""
    judge, other = Judge((0.1, 0.2, 0.3)), Judge((0.1, 0.2, 0.3))
    asked = job(made, steps=STEPS, preview_every=1, clip_vision=judge)
    tuning._tune(asked)
    elsewhere = asked.photos.clone()
    elsewhere[:, :10], elsewhere[:, 70:] = 0.0, 1.0
    tuning._tune(tuning.dataclasses.replace(asked, photos=elsewhere, clip_vision=other))
    (seen,), (again,) = judge.photos, other.photos
    whole = Judge((0.1, 0.2, 0.3))
    tuning._tune(tuning.dataclasses.replace(asked, mask=None, clip_vision=whole))
    return {
        "seen": list(seen.shape),
        "person": torch.equal(seen[:, :, 8:40], asked.photos[:, 16:64, 16:48]),
        "around": seen[:, :, :8].unique().tolist(),
        "background": torch.equal(seen, again),
        "without mask": torch.equal(whole.photos[0], asked.photos),
    }


def several(made: Any) -> Report:
    """Two photos of a person under one mask: each is encoded once and counts."""
    encoded: list[int] = []
    encode = made.vae.encode

    def counted(pixels: Tensor) -> Tensor:
        encoded.append(len(pixels))
        return encode(pixels)

    one = job(made, steps=STEPS, preview_every=1)
    two = dataclasses.replace(one, photos=torch.cat([one.photos, 1 - one.photos]))
    made.vae.encode = counted
    try:
        both, _ = tuning._tune(two)
    finally:
        del made.vae.encode
    alone, _ = tuning._tune(one)
    return {
        "encoded": encoded,
        "second photo matters": not same(both.tensors, alone.tensors),
        "photos have a key": one.key() != two.key(),
    }


def stops(made: Any) -> Report:
    """A stop within a preview; and memory that the driver says is gone in words of its own."""
    before = State(made.model)

    def at_call(number: int, act: Callable[[], None]) -> tuple[Any, list[int]]:
        sizes: list[int] = []

        def wrapper(apply: Any, call: dict[str, Any]) -> Tensor:
            sizes.append(len(call["input"]))
            if len(sizes) == number:
                act()
            return apply(call["input"], call["timestep"], **call["c"])

        model = made.model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return model, sizes

    model, sizes = at_call(3, mm.interrupt_current_processing)  # one of training, two of a preview
    try:
        tuning._tune(job(made, steps=2, preview_every=1, model=model))
        stopped = "never"
    except mm.InterruptProcessingException:
        stopped = len(sizes)

    def exhaust() -> None:
        raise torch.AcceleratorError("CUDA error: out of memory")

    model, sizes = at_call(2, exhaust)
    tuning._tune(job(made, model=model, settings={"batch": 4}))
    return {"stopped": stopped, "batches": sizes[:4], "unchanged": before.same(made.model)}
