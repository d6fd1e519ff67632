# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped demo weights as the state of a training run, to go on from them.

The files hold no optimiser and none of the heads that taught the towers. So the second stage starts
with a fresh optimiser near its schedule's end, and attention is not told where to look any more.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..demo.models import TOKEN_EMBEDDING, MannequinBase, load_base
from ..evaluation.models import load_demo_models
from ..fpdm import FPDM
from .autoencoder import TrainableAutoencoder
from .diffusion import VOCABULARY, DemoDiffusion
from .fpdm_stages import LATENT_SCALE, FPDMStages


def seed(training: FPDMStages) -> None:
    """Fill a new work folder with the shipped weights.

    Autoencoder, towers, places, fusion model and first block are then done; the second stage stands
    at `ablation_from` of its schedule, where the ablation's variants branch off. Raises
    CheckpointError where a file is missing, ValueError where the folder holds a run already.
    """
    taken = sorted(path.name for path in training.work.glob("*.pt"))
    if taken:
        raise ValueError(
            f"{training.work} holds a training run ({taken[0]}). Name an empty folder with --work "
            "to start from the shipped weights."
        )
    base, fpdm = load_base(), load_demo_models("cpu").fpdm
    settings = training.settings
    at = round(settings.ablation_from * settings.diffusion.steps)
    stages: list[tuple[str, int, Mapping[str, Tensor]]] = [
        ("autoencoder", settings.autoencoder.steps, _narrow(base).state_dict()),
        ("source_tower", settings.source_tower.steps, _within("tower", fpdm.source_tower)),
        ("image_tower", settings.image_tower.steps, _within("tower", fpdm.image_tower)),
        ("pose_tower", settings.pose_tower.steps, _within("encoder", fpdm.pose_encoder)),
        ("places", settings.places.steps, _within("", fpdm.transport)),
        ("fusion", settings.fusion.steps,
         _within("tower", fpdm.image_tower) | _within("combiner", fpdm.combiner)),
        ("first_block", settings.first_block.steps, {}),
    ]  # fmt: skip
    training.work.mkdir(parents=True, exist_ok=True)
    for name, step, average in stages:
        torch.save({"average": dict(average), "step": step}, training.work / f"{name}.pt")
    scale, shift = base.vae["vae_scale"], base.vae["vae_shift"]
    torch.save({"mean": -shift * scale, "std": scale}, training.work / LATENT_SCALE)
    module = _second_stage(base, fpdm)
    started = {
        "module": module.state_dict(),
        "optimizer": torch.optim.AdamW(module.parameters()).state_dict(),
        "average": {k: v for k, v in module.state_dict().items() if v.is_floating_point()},
        "step": at,
        "terms": {},
    }
    for name in ("diffusion", "diffusion-branch"):
        torch.save(started, training.work / f"{name}.pt")


def _within(name: str, module: nn.Module | None) -> dict[str, Tensor]:
    """A part's tensors by the names that they have in the module which trains it."""
    assert module is not None, "load_demo_models gives all parts"
    return {f"{name}.{key}".lstrip("."): value for key, value in module.state_dict().items()}


def _narrow(base: MannequinBase) -> TrainableAutoencoder:
    """The autoencoder without the empty channels and blocks that make it the host's TAESD."""
    module = TrainableAutoencoder()
    for name in ("encoder", "decoder"):
        part = module.get_submodule(name)
        shipped = {key: base.vae[f"taesd_{name}.{key}"] for key in part.state_dict()}
        part.load_state_dict(
            {
                key: shipped[key][tuple(slice(n) for n in value.shape)]
                for key, value in part.state_dict().items()
            }
        )
    return module


def _second_stage(base: MannequinBase, fpdm: FPDM) -> DemoDiffusion:
    """What the diffusion stage trains, with the shipped weights."""
    module = DemoDiffusion()
    parts = ("source_projection", "pose_encoder", "class_embedding", "unet", "transport")
    for name in parts:
        module.fpdm.get_submodule(name).load_state_dict(fpdm.get_submodule(name).state_dict())
    table = base.text_encoder[TOKEN_EMBEDDING]
    # One row of a word that no caption has stands for all others.
    spare = next(n for n in range(len(table)) if n not in VOCABULARY)
    text = {**base.text_encoder, TOKEN_EMBEDDING: table[[*VOCABULARY, spare]]}
    model = module.text.model
    model.load_state_dict(
        {key: text["text_model." + key.removeprefix("text_model.")] for key in model.state_dict()}
    )
    return module
