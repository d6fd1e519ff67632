# SPDX-License-Identifier: GPL-3.0-or-later
"""One-shot tuning of the host's MODEL: encode once, train branches beside its weights, keep a file.

The MODEL is used as it comes, with its patches, and is left as it was: branches are forward hooks
that are taken away again, and weights are read only.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from pathlib import Path
from typing import Any, Protocol

import comfy.model_management as mm
import comfy.patcher_extension
import comfy.samplers
import comfy.sd
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn import functional as F

from ...pose_transfer.errors import PoseTransferError
from ...pose_transfer.images import resize_bicubic
from ...pose_transfer.oneposetrans import cache
from ...pose_transfer.oneposetrans.cache import TunedLoRA
from ...pose_transfer.oneposetrans.crops import Photos
from ...pose_transfer.oneposetrans.fingerprint import Fingerprint
from ...pose_transfer.oneposetrans.lora_blocks import is_chosen, require_chosen
from ...pose_transfer.oneposetrans.preview import likest
from ...pose_transfer.oneposetrans.settings import CODE_VERSION, TuningSettings
from ...pose_transfer.types import FaceEmbedding
from .. import host, likeness
from . import control
from .lora import Layer, attention_layers
from .tuning_sampler import Trained, TuningSampler, load_whole

_KEY = "pose_transfer_tuning"
# What a CONDITIONING may carry that says nothing of what is in the photos.
_LEFT_OUT = (
    "area", "strength", "mask", "mask_strength", "set_area_to_bounds", "start_percent",
    "end_percent", "gligen", "hooks",
)  # fmt: skip
# What speaks of whole pictures, not of crops of them.
_CONTROL = ("control", "control_apply_to_uncond")


class Caption(Protocol):
    """What the photos show, in a form that is encoded only when it must be."""

    text: str

    def describe(self, fingerprint: Fingerprint) -> None: ...

    def encode(self) -> dict[str, list[Any]]:
        """`positive`, and `negative` where the previews can be guided."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedCaption:
    """A CONDITIONING of one entry, with its ControlNets where `controlled`."""

    positive: list[Any]
    controlled: bool = False
    text: str = "(conditioning)"

    def describe(self, fingerprint: Fingerprint) -> None:
        ((tokens, settings),) = self.encode()["positive"]
        control.describe(fingerprint, settings.get("control"))
        words = {k: v for k, v in settings.items() if k not in _CONTROL}
        fingerprint.add("conditioning", [[tokens, words]])

    def encode(self) -> dict[str, list[Any]]:
        if len(self.positive) != 1:
            raise PoseTransferError(
                f"The CONDITIONING has {len(self.positive)} parts, expected the one caption of "
                "the photos. Connect CLIP Text Encode directly, without Combine."
            )
        ((tokens, settings),) = self.positive
        left_out = _LEFT_OUT if self.controlled else (*_LEFT_OUT, *_CONTROL)
        return {"positive": [[tokens, {k: v for k, v in settings.items() if k not in left_out}]]}


@dataclasses.dataclass(frozen=True, eq=False)
class WrittenCaption:
    """A CLIP and what it shall encode."""

    clip: comfy.sd.CLIP
    text: str

    def describe(self, fingerprint: Fingerprint) -> None:
        fingerprint.add("tokens", self.clip.tokenize(self.text))
        fingerprint.add("layer", self.clip.layer_idx)
        _describe_patcher(fingerprint, self.clip.patcher)

    def encode(self) -> dict[str, list[Any]]:
        return {
            name: self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
            for name, text in (("positive", self.text), ("negative", ""))
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One tuning. `photos` (N, H, W, 3) in [0, 1]; `mask` (1 or N, H, W), 1 where the person is."""

    model: ModelPatcher
    vae: comfy.sd.VAE
    caption: Caption
    photos: Tensor
    mask: Tensor | None
    settings: TuningSettings
    preview_every: int = 0
    clip_vision: Any = None
    face: FaceEmbedding | None = None

    @property
    def is_judged(self) -> bool:
        """Whether the likest preview's weights are kept, not the last ones."""
        return self.clip_vision is not None or self.face is not None

    def key(self) -> str:
        """The name of the LoRA's file: see `Fingerprint`. Takes no encoding."""
        fingerprint = Fingerprint()
        fingerprint.add("version", CODE_VERSION)
        fingerprint.add("settings", dataclasses.asdict(self.settings))
        # Previews decide which weights are kept where they are judged.
        fingerprint.add("previews", self.preview_every)
        fingerprint.add("photos", self.photos)
        fingerprint.add("mask", self.mask)
        self.caption.describe(fingerprint)
        _describe_patcher(fingerprint, self.model)
        fingerprint.add_weights("vae", self.vae.first_stage_model.state_dict())
        if self.clip_vision is not None:
            fingerprint.add_weights("clip vision", self.clip_vision.model.state_dict())
        if self.face is not None:
            fingerprint.add("face", [self.face.encoder, self.face.normalised, self.face.found])
        if fingerprint.unsure:
            logging.warning(
                "Tune LoRA: nothing tells objects of %s apart, which patches on the MODEL or the "
                "caption hold; so the LoRA will not be found again and will be tuned anew.",
                ", ".join(sorted(fingerprint.unsure)),
            )
        return fingerprint.key


def cache_folder() -> Path:
    return Path(folder_paths.get_output_directory(), "pose_transfer", "loras")


def tune_or_load(job: Job) -> tuple[TunedLoRA, str]:
    """The LoRA of a job, from the cache or newly tuned, and a line that says which."""
    folder, key = cache_folder(), job.key()
    found = cache.load(folder, key)
    if found is not None:
        return found, f"found {key}.safetensors, tuned earlier"
    start = time.monotonic()
    tuned, report = _tune(job)
    report = f"{report} in {time.monotonic() - start:.0f} s"
    try:
        cache.save(folder, key, tuned)
    except OSError as error:
        logging.warning("Tune LoRA: the LoRA could not be kept in %s: %s", folder, error)
        return tuned, f"{report}; not kept: {error.strerror}"
    # What comes out is what the file says, now and later.
    return cache.load(folder, key) or tuned, report


def _tune(job: Job) -> tuple[TunedLoRA, str]:
    model = job.model.clone(disable_dynamic=True)
    layers = _chosen(attention_layers(model), job.settings)
    photos, crop = _encode_photos(job)
    sampler = TuningSampler(layers, photos, crop, job.settings, job.preview_every)
    sampler.keep_all = job.is_judged
    model.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, _KEY, load_whole
    )
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds(job.caption.encode())
    empty = torch.zeros(1, *photos.latents.shape[1:-2], *crop)
    try:
        guider.sample(empty, empty, sampler, torch.tensor([1.0, 0.0]), seed=job.settings.seed)
    except RuntimeError as error:
        if "nference tensors cannot be saved" not in str(error):
            raise
        raise PoseTransferError(
            "A patch on the MODEL computes in a way that nothing can be learnt through. Connect "
            "the MODEL to Tune LoRA before that patch is applied, and apply the patch to the "
            "tuned MODEL."
        ) from error
    assert sampler.trained is not None
    return _finish(job, sampler.trained, {name: layer.label for name, layer in layers.items()})


def _chosen(layers: dict[str, Layer], settings: TuningSettings) -> dict[str, Layer]:
    blocks = {layer.block for layer in layers.values()}
    require_chosen(settings.blocks, blocks)
    return {
        name: layer for name, layer in layers.items() if is_chosen(layer.block, settings.blocks)
    }


def _encode_photos(job: Job) -> tuple[Photos, tuple[int, int]]:
    """Latents as the model sees them, the mask at their size, and the crop in latent cells."""
    settings, factor = job.settings, int(job.vae.spacial_compression_encode())
    height, width = job.photos.shape[1:3]
    scale = settings.resolution / min(height, width)
    size = [max(round(side * scale / factor), 1) * factor for side in (height, width)]
    pixels = resize_bicubic(job.photos, *size)
    # The autoencoder draws from its distribution with everyone's random numbers: lend it some.
    device = mm.get_torch_device()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        latents = torch.cat([job.vae.encode(pixels[i : i + 1]) for i in range(len(pixels))])
    latent_format = job.model.get_model_object("latent_format")
    if latents.shape[1] != latent_format.latent_channels:
        raise PoseTransferError(
            f"The VAE makes latents of {latents.shape[1]} channels, the MODEL needs "
            f"{latent_format.latent_channels}. Connect the VAE that belongs to the MODEL."
        )
    cells = latents.shape[-2:]
    side = max(settings.resolution // factor, 1)
    crop = tuple(cells) if settings.whole_photo else tuple(min(side, cell) for cell in cells)
    mask = torch.ones(len(pixels), *job.photos.shape[1:3]) if job.mask is None else job.mask
    mask = F.interpolate(mask[:, None].float(), size=cells, mode="area").cpu()
    mask = mask.reshape(len(mask), *[1] * (latents.ndim - 3), *cells)
    mask = mask.expand(len(latents), *mask.shape[1:])
    return Photos(latent_format.process_in(latents).float(), mask), (crop[0], crop[1])


def _finish(job: Job, trained: Trained, labels: dict[str, str]) -> tuple[TunedLoRA, str]:
    """Decodes the previews and chooses the weights to keep: the last, or the likest."""
    latent_format = job.model.get_model_object("latent_format")
    device = mm.get_torch_device()
    latents = host.each(trained.previews, len(trained.previews))
    frames = [job.vae.decode(latent_format.process_out(x).to(device)) for x in latents]
    # A video's autoencoder gives (1, 1, H, W, 3).
    previews = torch.cat([frame.reshape(-1, *frame.shape[-3:])[:1] for frame in frames]).cpu()
    shown = previews.float().nan_to_num().clamp(0, 1)
    course, settings = trained.course, job.settings
    about: dict[str, object] = {
        "caption": job.caption.text,
        "model": type(job.model.model).__name__,
        "settings": dataclasses.asdict(settings),
        "broke_down": course.broke_down,
    }
    report = f"{len(course.loss)} steps"
    if job.is_judged:
        scores = _likeness(job, previews)
        about["likeness"] = [score if math.isfinite(score) else None for score in scores]
        best = likest(scores)
        if best is None:  # the branches are as the last good step left them
            report += ", kept the last step: no preview could be compared with the photos"
        else:
            trained.branches.restore(trained.snapshots[best])
            about["kept_step"] = trained.steps[best]
            report += f", kept step {trained.steps[best]} (likeness {scores[best]:.3f})"
    if course.broke_down:
        report += f", stopped early of {settings.steps}: the loss was no number any more"
        logging.warning("Tune LoRA: %s; the last good weights are kept.", report)
    tensors = trained.branches.tensors(labels)
    return TunedLoRA(tensors, course.loss, shown, about), report


def _likeness(job: Job, previews: Tensor) -> list[float]:
    """What the encoders that are connected say of each preview."""
    judged = []
    if job.face is not None:
        judged.append(likeness.face_likeness(job.face, previews))
    if job.clip_vision is not None:
        judged.append(likeness.picture_likeness(job.clip_vision, job.photos, job.mask, previews))
    return likeness.together(judged)


def _describe_patcher(fingerprint: Fingerprint, patcher: ModelPatcher) -> None:
    """Weights as they were loaded, and every patch on them and on how they are used."""
    weights = dict(patcher.model.state_dict())
    weights |= {key: kept.weight for key, kept in patcher.backup.items()}
    fingerprint.add("kind", type(patcher.model).__name__)
    fingerprint.add_weights("weights", weights)
    fingerprint.know("parts", patcher.model)
    fingerprint.add("weight patches", patcher.patches)
    fingerprint.add("weight wrappers", patcher.weight_wrapper_patches)
    fingerprint.add("objects", patcher.object_patches)
    fingerprint.add("options", patcher.model_options)
    fingerprint.add("wrappers", patcher.wrappers)
    fingerprint.add("injections", patcher.injections)
