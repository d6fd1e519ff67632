# SPDX-License-Identifier: GPL-3.0-or-later
"""One person through the poses of a film, by FPDM and the host's sampling."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management as mm
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor

from ...pose_transfer.fpdm.guidance import Guidance
from ...pose_transfer.images import bhwc_to_bchw, from_uint8, to_uint8
from ...pose_transfer.pose import draw
from ...pose_transfer.types import Pose
from .. import host
from ..finished import FILMS, Film, digest
from ..fpdm import LATENT_FACTOR, crop_to_latents
from ..sockets import FPDMCondition, FPDMModel
from . import fpdm as patches

MOST_AT_ONCE = 16
"""Frames in one call of the model. More are hardly faster, and a stop loses those under way."""
_CAUTION = 1.5  # the host's own factor on what it thinks a call needs


@dataclass(frozen=True, eq=False)
class Scene:
    """What all frames share. `at_once` frames are made in one call, 0 means what fits."""

    model: ModelPatcher
    fpdm: FPDMModel
    vae: Any
    source: Tensor  # (1, H, W, 3)
    size: tuple[int, int]  # height and width of the pictures, px
    guidance: Guidance
    sampler: Any
    sigmas: Tensor
    seed: int
    at_once: int

    def film(self) -> Film:
        """The frames that were finished before."""
        return FILMS.film(
            (self.model, self.fpdm, self.vae, self.sampler),
            digest(self.source, self.size, self.guidance, self.sigmas, self.seed),
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame to be made: its pose and its noise (1, C, h, w)."""

    pose: Pose
    noise: Tensor

    @property
    def name(self) -> str:
        """What makes it another than its neighbours."""
        pose = self.pose
        return digest(pose.width, pose.height, *(p.body for p in pose.people), self.noise)

    def pose_map(self, size: tuple[int, int]) -> Tensor:
        """(1, H, W, 3); drawn when it is needed, for those of a film are large together."""
        return crop_to_latents(from_uint8(draw(self.pose, *size, "fpdm")))


def plan_frames(scene: Scene, poses: Sequence[Pose], noise: Any, shared: bool) -> list[Frame]:
    """Gives each pose its noise: the same to all, or to each what its number says."""
    height, width = (side // LATENT_FACTOR for side in scene.size)
    channels = scene.model.get_model_object("latent_format").latent_channels
    count = 1 if shared else len(poses)
    # By `batch_index` the host draws the noise of one latent after the other.
    empty = {
        "samples": torch.zeros(count, channels, height, width),
        "batch_index": list(range(count)),
    }
    made = noise.generate_noise(empty)
    noises = made.expand(len(poses), -1, -1, -1).split(1)
    return [Frame(pose, own) for pose, own in zip(poses, noises, strict=True)]


def make_frames(scene: Scene, frames: Sequence[Frame], say: Callable[[str], None]) -> Tensor:
    """The pictures (N, H, W, 3) of all frames; those that were finished before are not made again.

    Every picture is kept as soon as it is finished, so that nothing of it is lost when the artist
    stops the rest, which happens within one step of the sampler.
    """
    film, names = scene.film(), [frame.name for frame in frames]
    by_name = dict(zip(names, frames, strict=True))  # frames alike are made once
    pictures = {name: picture for name in by_name if (picture := film.get(name)) is not None}
    pending = [name for name in by_name if name not in pictures]
    progress = _Progress(scene, len(by_name), len(pictures), say)
    maker = _Maker(scene) if pending else None
    size = scene.at_once
    while maker is not None and pending:
        size = size or maker.frames_that_fit(frames[0].noise)
        chunk, rest = pending[:size], pending[size:]
        try:
            latents = maker.sample([by_name[name] for name in chunk], progress)
        except Exception as error:
            if not host.ran_out_of_memory(error) or len(chunk) == 1:
                raise
            size = len(chunk) // 2
            mm.soft_empty_cache()
            continue
        for name, latent in zip(chunk, latents.split(1), strict=True):
            pictures[name] = scene.vae.decode(latent)
            film.put(name, pictures[name])
            progress.finished(pictures[name])
        pending = rest
    return torch.cat([pictures[name] for name in names])


class _Maker:
    """FPDM on the model; the source is looked at once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        module, device = scene.fpdm.fpdm, host.on_device(scene.fpdm.patcher, torch.float32)
        self.source = scene.source.to(device)
        self.hidden = module.source_hidden(self.source)
        self.tokens = host.keep(module.source_tokens(self.hidden))
        self.source_embeds = host.keep(module.embed_image(self.source))
        width = self.source_embeds.shape[-1]
        self.without = host.keep(module.time_offset(torch.zeros(1, width, device=device)))
        nothing = FPDMCondition(None, self.without, self.without)
        self.model = patches.apply_fpdm(scene.model, self.tokens, nothing, scene.fpdm.name)
        self.negative = patches.conditioning(torch.zeros_like(self.tokens), nothing)

    def frames_that_fit(self, noise: Tensor) -> int:
        """How many frames the host would run in one call, all their predictions together."""
        model = self.model
        if mm.is_device_cpu(model.load_device):
            return 1  # a processor gains nothing from more, and a stop would lose more
        passes = self.scene.guidance.most_passes
        one = model.model.memory_required([passes, *noise.shape[1:]]) * _CAUTION
        mm.load_models_gpu([model], memory_required=one)
        return max(1, min(MOST_AT_ONCE, int(model.get_free_memory(model.load_device) / one)))

    def sample(self, frames: Sequence[Frame], progress: _Progress) -> Tensor:
        """Latents (n, C, h, w) of n frames, by one run of the sampler."""
        scene = self.scene
        guider = patches.FPDMGuider(self.model, scene.guidance)
        guider.set_conds(self._positive(frames), self.negative)
        noise = torch.cat([frame.noise for frame in frames])
        return guider.sample(
            noise,
            torch.zeros_like(noise),
            scene.sampler,
            scene.sigmas,
            callback=progress.steps(len(frames)),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=scene.seed,
        ).to(mm.intermediate_device())

    def _positive(self, frames: Sequence[Frame]) -> patches.Conditioning:
        fpdm = self.scene.fpdm
        module, device = fpdm.fpdm, host.on_device(fpdm.patcher, torch.float32)
        pose_maps = torch.cat([frame.pose_map(self.scene.size) for frame in frames]).to(device)
        embeds = self.source_embeds.to(device).expand(len(frames), -1)
        fusion = module.combine(embeds, module.embed_pose(pose_maps))
        drawn = bhwc_to_bchw(pose_maps)
        carried = module.carried_features(self.source, self.hidden, drawn)
        condition = FPDMCondition(
            host.keep(module.pose_features(drawn)),
            host.keep(module.time_offset(fusion)),
            self.without,
            None if carried is None else host.keep(carried),
        )
        return patches.conditioning(self.tokens.expand(len(frames), -1, -1), condition)


class _Progress:
    """The node's bar, preview and text. A frame counts its steps, and one for its decoding."""

    def __init__(
        self, scene: Scene, frames: int, there_already: int, say: Callable[[str], None]
    ) -> None:
        self.frames = frames
        self.there_already = self.done = there_already
        self.say = say
        self.per_frame = len(scene.sigmas)
        self.bar = comfy.utils.ProgressBar(frames * self.per_frame)
        self.previewer = latent_preview.get_previewer(
            scene.model.load_device, scene.model.model.latent_format
        )
        self.value = there_already * self.per_frame
        self.started = time.monotonic()
        self._tell()

    def steps(self, frames: int) -> Callable[[int, Tensor, Tensor, int], None]:
        """The sampler's callback while it makes that many frames."""
        before = self.done * self.per_frame

        def callback(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
            mm.throw_exception_if_processing_interrupted()
            preview = self.previewer and self.previewer.decode_latent_to_preview_image("JPEG", x0)
            share = min(1.0, (step + 1) / total_steps)  # adaptive samplers may take more
            self.value = before + round(frames * share * (self.per_frame - 1))
            self.bar.update_absolute(self.value, preview=preview)

        return callback

    def finished(self, picture: Tensor) -> None:
        self.done += 1
        self.value += 1
        preview = Image.fromarray(to_uint8(picture[0]))
        self.bar.update_absolute(
            self.value, preview=("JPEG", preview, latent_preview.MAX_PREVIEW_RESOLUTION)
        )
        self._tell()

    def _tell(self) -> None:
        made = self.done - self.there_already
        text = f"frame {self.done} of {self.frames}"
        if made:
            text += f", {(time.monotonic() - self.started) / made:.1f} s each"
        if self.there_already:
            text += f"; {self.there_already} finished before"
        self.say(text)
