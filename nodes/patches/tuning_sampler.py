# SPDX-License-Identifier: GPL-3.0-or-later
"""Tuning inside of the host's sampling, which loads the model, encodes conditions and cleans up."""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management as mm
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from PIL import Image
from torch import Tensor

from ...pose_transfer.cpu_linear import onednn_linear
from ...pose_transfer.errors import PoseTransferError
from ...pose_transfer.oneposetrans.crops import Photos
from ...pose_transfer.oneposetrans.low_rank import LowRankBranches
from ...pose_transfer.oneposetrans.preview import draw_loss, euler, noise_for_preview
from ...pose_transfer.oneposetrans.settings import TuningSettings
from ...pose_transfer.oneposetrans.tuning import Course, tune
from .. import host
from .lora import Layer
from .plain_weights import plain, plain_weights

PREVIEW_STEPS = 8
PREVIEW_GUIDANCE = 5.0  # that of the released code
_PREVIEW_SIDE = 256  # pixels of the live picture
# What is kept for the way back, in terms of what the host reckons a prediction to need.
_TRAINING_MEMORY = 8


class HostSampling:
    """The host's sampling object as `objective.Sampling`: EPS, v, flow, whatever it is."""

    def __init__(self, model_sampling: Any) -> None:
        self._sampling = model_sampling

    @property
    def sigmas(self) -> Tensor:
        return self._sampling.sigmas

    def noisy(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return self._sampling.noise_scaling(sigma, noise, clean)

    def gain(self, sigma: Tensor) -> Tensor:
        zero, one = torch.zeros_like(sigma), torch.ones_like(sigma)
        return self._sampling.calculate_denoised(sigma, one, zero)

    def snr(self, sigma: Tensor) -> Tensor:
        zero, one = torch.zeros_like(sigma), torch.ones_like(sigma)
        return (self.noisy(one, zero, sigma) / self.noisy(zero, one, sigma)).square()


@dataclass(frozen=True, eq=False)
class Trained:
    """The branches as they ended, and each preview: its step and latents (1, C, ...).

    `snapshots` are the weights at each preview on the CPU, where they were asked for.
    """

    branches: LowRankBranches
    course: Course
    steps: list[int]
    previews: list[Tensor]
    snapshots: list[list[Tensor]]


def load_whole(executor: Any, model: Any, noise_shape: Any, *rest: Any, **options: Any) -> Any:
    """Wraps the host's loading: weights all on the device, with room for gradients.

    Weights that stream in and out cannot be kept for the way back.
    """
    shape = [noise_shape[0] * _TRAINING_MEMORY, *noise_shape[1:]]
    return executor(model, shape, *rest, **{**options, "force_full_load": True})


class TuningSampler(comfy.samplers.Sampler):
    """Trains where a sampler would sample; leaves the result in `trained`."""

    def __init__(
        self,
        layers: dict[str, Layer],
        photos: Photos,
        crop: tuple[int, int],
        settings: TuningSettings,
        preview_every: int,
    ) -> None:
        self.layers, self.photos, self.crop = layers, photos, crop
        self.settings, self.preview_every = settings, preview_every
        self.keep_all = False
        self.trained: Trained | None = None

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict[str, Any], callback: Any,
        noise: Tensor, latent_image: Tensor | None = None, *_: Any, **__: Any,
    ) -> Tensor:  # fmt: skip
        model = model_wrap.inner_model
        with torch.inference_mode(False), torch.enable_grad(), plain_weights(model):
            was_training, mm.in_training = mm.in_training, True
            try:
                with onednn_linear(noise.device):
                    self.trained = self._train_with_retry(model_wrap, extra_args, noise)
            finally:
                mm.in_training = was_training
        return torch.zeros_like(noise)

    def _train_with_retry(self, guider: Any, extra_args: dict[str, Any], noise: Tensor) -> Trained:
        options = _with_plain_attention(extra_args["model_options"])
        run = _Run(self, plain(guider.conds), guider.inner_model, options, noise)
        try:
            return run.train(parts=1)
        except Exception as error:
            if not host.ran_out_of_memory(error):
                raise
        # The error must be gone before the memory can be: it holds what it was computing.
        logging.warning(
            "Tune LoRA: out of memory. The cache is emptied and tuning starts again with half the "
            "batch at a time, gradients added up."
        )
        _free_memory(guider)
        try:
            return run.train(parts=2)
        except Exception as error:
            if not host.ran_out_of_memory(error):
                raise
            raise PoseTransferError(
                f"Out of memory, even with half the batch at a time (batch "
                f"{self.settings.batch}, {self.settings.resolution} px). Lower the resolution or "
                "the batch, or choose fewer blocks."
            ) from error


class _Run:
    """One model, ready to be asked: conditions, options, and where previews go."""

    def __init__(
        self,
        task: TuningSampler,
        conds: dict[str, Any],
        model: Any,
        options: dict[str, Any],
        noise: Tensor,
    ) -> None:
        self.task, self.conds, self.model, self.options = task, conds, model, options
        self.device, self.shape = noise.device, tuple(noise.shape)

    def train(self, parts: int) -> Trained:
        task, settings = self.task, self.task.settings
        modules = {name: layer.module for name, layer in task.layers.items()}
        branches = LowRankBranches(
            modules, settings.rank, settings.alpha, settings.seed, self.device
        )
        photos = Photos(task.photos.latents.clone(), task.photos.mask.clone())
        bar = comfy.utils.ProgressBar(settings.steps)
        steps, previews, losses, snapshots = [], [], [], []

        def after_step(step: int, loss: float) -> None:
            mm.throw_exception_if_processing_interrupted()
            losses.append(loss)
            due = task.preview_every and step % task.preview_every == 0
            if due or step == settings.steps:
                steps.append(step)
                previews.append(self._preview())
                if task.keep_all:
                    snapshots.append(branches.stored())
                picture = self._picture(previews[-1], losses)
                bar.update_absolute(step, preview=("JPEG", picture, max(picture.size)))
            else:
                bar.update_absolute(step)

        with branches.attached():
            course = tune(
                branches,
                photos,
                task.crop,
                self._denoise,
                HostSampling(self.model.model_sampling),
                settings,
                parts=parts,
                half_precision=self.model.get_dtype_inference() == torch.float16,
                after_step=after_step,
            )
            if course.broke_down:  # the weights that are kept were not shown yet
                steps.append(len(course.loss))
                previews.append(self._preview())
                snapshots += [branches.stored()] if task.keep_all else []
        return Trained(branches, course, steps, previews, snapshots)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return comfy.samplers.calc_cond_batch(
            self.model, [self.conds["positive"]], x, sigma, self.options
        )[0]

    @torch.no_grad()
    def _preview(self) -> Tensor:
        """Latents (1, C, ...) on the CPU from always the same noise."""
        sampling = self.model.model_sampling
        sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", PREVIEW_STEPS).to(self.device)
        noise = noise_for_preview(self.shape, self.task.settings.seed).to(self.device)
        x = sampling.noise_scaling(sigmas[:1], noise, torch.zeros_like(noise), max_denoise=True)
        guided = partial(
            comfy.samplers.sampling_function,
            self.model,
            uncond=self.conds.get("negative"),
            cond=self.conds["positive"],
            cond_scale=PREVIEW_GUIDANCE if "negative" in self.conds else 1.0,
            model_options=self.options,
            seed=self.task.settings.seed,
        )

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            mm.throw_exception_if_processing_interrupted()
            return guided(x, sigma)

        return euler(denoise, x, sigmas).cpu()

    def _picture(self, latents: Tensor, losses: list[float]) -> Image.Image:
        """The live picture: a rough colouring of the latents over the curve of the loss."""
        curve = draw_loss(losses, self.task.settings.steps, _PREVIEW_SIDE, _PREVIEW_SIDE // 4)
        factors = getattr(self.model.latent_format, "latent_rgb_factors", None)
        if factors is None:
            return curve
        rough = latent_preview.Latent2RGBPreviewer(
            factors,
            getattr(self.model.latent_format, "latent_rgb_factors_bias", None),
            getattr(self.model.latent_format, "latent_rgb_factors_reshape", None),
        ).decode_latent_to_preview(latents)
        height = round(_PREVIEW_SIDE * rough.height / rough.width)
        picture = Image.new("RGB", (_PREVIEW_SIDE, height + curve.height))
        picture.paste(rough.resize((_PREVIEW_SIDE, height)))
        picture.paste(curve, (0, height))
        return picture


def _with_plain_attention(options: dict[str, Any]) -> dict[str, Any]:
    """PyTorch's attention whatever the host is set to: others have no gradient, or a slow one."""
    transformer = {
        **options.get("transformer_options", {}),
        "optimized_attention_override": _plain_attention,
    }
    return {**options, "transformer_options": transformer}


def _plain_attention(_chosen: Any, *inputs: Any, **options: Any) -> Tensor:
    return comfy.ldm.modules.attention.attention_pytorch(*inputs, **options)


def _free_memory(guider: Any) -> None:
    """Other models leave the device; what PyTorch keeps for later is given back."""
    gc.collect()
    device = guider.model_patcher.load_device
    kept = guider.model_patcher
    ours = [x for x in mm.current_loaded_models if x.model and kept.is_clone(x.model)]
    mm.free_memory(1e30, device, keep_loaded=ours)
    mm.soft_empty_cache()
