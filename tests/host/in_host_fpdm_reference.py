# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: its nodes against numbers made by the released FPDM code.

Load FPDM, Fusion Embedding, Apply FPDM, FPDM Guider, and the host's SamplerCustomAdvanced with its
`ddpm` and `ddim` samplers. What is given rather than computed, because the recording has it so:

- the towers' input pixels (the recording begins behind the preprocessing, which has numbers and
  tests of its own, tests/unit/test_fpdm_preprocess.py);
- the start: the released pipeline starts from noise of variance 1, the host from noise of variance
  sigma^2 / (sigma^2 + 1) (99.2 % at 20 steps, less at the 3 recorded ones);
- the noise of each DDPM step, drawn by another generator;
- for DDIM the last sigma: diffusers ends at the first of its 1000 levels (`set_alpha_to_one`
  false), the host's schedules at zero.

The schedule itself is the host's `ddim_uniform`, whose steps are those of the checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import comfy.samplers
import folder_paths
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler, SamplerCustomAdvanced
from pose_transfer_pack.nodes import fpdm as nodes
from pose_transfer_pack.nodes.patches import fpdm as patches
from pose_transfer_pack.pose_transfer.fpdm import FPDMPreprocess, load_checkpoint, save_checkpoint
from safetensors.torch import load_file
from torch import Tensor

Report = dict[str, Any]
STEPS = 3


@torch.inference_mode()
def check(tiny_path: str, io_path: str, heads: dict[str, dict[str, int]]) -> Report:
    torch.set_num_threads(1)  # tiny tensors; threads only wait for each other
    # The tiny model's heads are not 64 wide, which its shapes do not tell: a file of ours does.
    fpdm = load_checkpoint(tiny_path, config=heads)
    target = Path(folder_paths.models_dir, "pose_transfer", "fpdm", "tiny.safetensors")
    save_checkpoint(fpdm, target)
    recorded = {k: x if "timesteps" in k else x.float() for k, x in load_file(io_path).items()}
    world = World(recorded)
    return {
        **conditions(world),
        **predictions(world),
        **trajectory(world, "ddpm"),
        **trajectory(world, "ddim"),
    }


@dataclass(frozen=True)
class Recorded(FPDMPreprocess):
    """Gives the towers the recorded pixels, whatever the pictures; one or both of the pictures."""

    io: dict[str, Tensor] | None = None

    def _recorded(self, name: str, pictures: Tensor) -> Tensor:
        assert self.io is not None
        return self.io[name][: len(pictures)]

    def source_pixels(self, photo_bhwc: Tensor) -> Tensor:
        return self._recorded("in.src_processed_source_image", photo_bhwc)

    def embed_pixels(self, photo_bhwc: Tensor) -> Tensor:
        return self._recorded("in.fusion_processed_source_image", photo_bhwc)

    def embed_pose_pixels(self, pose_map_bhwc: Tensor) -> Tensor:
        return self._recorded("in.fusion_processed_target_pose", pose_map_bhwc)


class World:
    """The recorded pair of pictures through the nodes: both as a batch, or the first alone."""

    def __init__(self, recorded: dict[str, Tensor]) -> None:
        self.io = recorded
        self.loaded, self.fpdm, _ = nodes.LoadFPDM.execute("tiny.safetensors").result
        module = self.fpdm.fpdm
        module.preprocess = Recorded(**asdict(module.preprocess), io=recorded)
        self.pose_map = (recorded["in.target_pose_u8"] / 255).movedim(1, -1)
        self.source = torch.zeros(2, 8, 8, 3)

    def apply(self, pictures: int) -> tuple[Tensor, Any, Any, Any, dict[str, Tensor]]:
        pair = self.source[:pictures], self.pose_map[:pictures]
        (fusion,) = nodes.FusionEmbeddingNode.execute(self.fpdm, *pair).result
        return fusion.embeds, *nodes.ApplyFPDM.execute(self.loaded, self.fpdm, *pair, fusion).result


def guider_of(model: Any, positive: Any, negative: Any, weight: float = 2.0) -> Any:
    return nodes.FPDMGuiderNode.execute(model, positive, negative, weight, weight).result[0]


def stock_guider(model: Any, conditioning: Any) -> Any:
    made = comfy.samplers.CFGGuider(model)
    made.set_conds(conditioning, conditioning)
    return made


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    return (a - b).abs().max().item()


def velocity(noisy: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """What the UNet predicted, from the host's `x0 = x / (s^2 + 1) - v s / sqrt(s^2 + 1)`."""
    s = sigma.view(-1, 1, 1, 1)
    return (noisy / (s**2 + 1) - denoised) * (s**2 + 1) ** 0.5 / s


def conditions(world: World) -> Report:
    embeds, _, positive, _, latent = world.apply(2)
    (tokens, settings), *_ = positive
    condition = settings[patches.FPDM_KEY]
    io = world.io
    return {
        "fusion embedding": difference(embeds, io["combiner.out"]),
        "source tokens": difference(tokens, io["srcimage_proj_model.out"]),
        "pose features": difference(condition.pose_features, io["pose_t_proj.out"]),
        "time offset": difference(condition.time_offset, io["unet.class_embedding.out"]),
        "latent": difference(latent["samples"], torch.zeros_like(io["in.noisy_latents"])),
    }


class OneCall:
    """A sampler of a single model call at the recorded latents and their two timesteps."""

    def __init__(self, x: Tensor, t: Tensor, options: dict[str, Any] | None = None) -> None:
        self.x, self.t, self.options = x, t, options or {}

    def sample(self, guider: Any, _sigmas: Any, extra: dict[str, Any], *_: Any) -> Tensor:
        sigma = guider.inner_model.model_sampling.sigma(self.t.float())
        noisy = self.x * (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5
        options = {**extra["model_options"], **self.options}
        denoised = guider(noisy, sigma, model_options=options, seed=0)
        self.v = velocity(noisy, denoised, sigma)
        return noisy

    def run(self, guider: Any) -> Tensor:
        empty = torch.zeros_like(self.x)
        guider.sample(empty, empty, self, torch.tensor([1.0, 0.0]))
        return self.v


def predictions(world: World) -> Report:
    """Each recorded combination of conditions, at two timesteps in one batch."""
    _, model, positive, negative, _ = world.apply(2)
    (tokens, settings), *_ = positive
    full = settings[patches.FPDM_KEY]
    no_fusion = replace(full, time_offset=full.time_offset_without_fusion)
    no_pose = replace(no_fusion, pose_features=None)
    x, t = world.io["in.noisy_latents"], world.io["in.timesteps"]
    cases = {
        "unet.out": positive,
        "unet.out_uncond": negative,
        "unet.out_src": patches.conditioning(tokens, no_fusion),
        "unet.out_pose_only": patches.conditioning(torch.zeros_like(tokens), no_fusion),
        "unet.out_tokens_only": patches.conditioning(tokens, no_pose),
    }
    report = {
        name: difference(OneCall(x, t).run(stock_guider(model, case)), world.io[name])
        for name, case in cases.items()
    }
    for name, options in (
        ("guided", {}),
        ("guided, all three passes", {"disable_cfg1_optimization": True}),
    ):
        guided = OneCall(x, t, options).run(guider_of(model, positive, negative))
        report[name] = difference(guided, world.io["guided.w2"])
    return report


class StartFrom:
    """NOISE for SamplerCustomAdvanced that makes it start from given latents of variance 1."""

    seed = 0

    def __init__(self, latents: Tensor, sigma: Tensor) -> None:
        self.noise = latents * (sigma**2 + 1) ** 0.5 / sigma

    def generate_noise(self, _latent: dict[str, Tensor]) -> Tensor:
        return self.noise


class Watched:
    """The guider as a model, its calls remembered: latents before each step, the prediction."""

    def __init__(self, guider: Any) -> None:
        self.guider, self.latents, self.guided = guider, [], []
        self._predict = guider.predict_noise
        guider.predict_noise = self.predict_noise

    def predict_noise(self, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        denoised = self._predict(x, timestep, *args, **kwargs)
        self.latents.append(x / (timestep.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5)
        self.guided.append(velocity(x, denoised, timestep))
        return denoised


def trajectory(world: World, name: str) -> Report:
    """The released pipeline's three steps, by the host's sampler of that name."""
    io = {k.removeprefix(f"traj.{name}."): x for k, x in world.io.items()}
    _, model, positive, negative, latent = world.apply(1)
    sampling = model.get_model_object("model_sampling")
    (sigmas,) = BasicScheduler.execute(model, "ddim_uniform", STEPS, 1.0).result
    timesteps = [round(sampling.timestep(s).item()) for s in sigmas[:-1]]
    options = {}
    if name == "ddpm":
        noises = iter(io["step_noise"])
        options["noise_sampler"] = lambda *_: next(noises)[None]
    else:
        sigmas = torch.cat([sigmas[:-1], sampling.sigmas[:1]])
    sampler = comfy.samplers.sampler_object(name)
    sampler.extra_options = options

    watched = Watched(guider_of(model, positive, negative))
    start = StartFrom(io["init_latents"], sigmas[0])
    output = SamplerCustomAdvanced.execute(start, watched.guider, sampler, sigmas, latent)
    scale = model.get_model_object("latent_format").scale_factor
    last = output.result[0]["samples"] * scale / (sigmas[-1] ** 2 + 1) ** 0.5
    after = torch.cat([*watched.latents[1:], last])
    return {
        f"{name} timesteps": timesteps == io["timesteps"].tolist(),
        f"{name} guided": difference(torch.cat(watched.guided), io["guided"]),
        f"{name} latents": difference(after, io["latents"]),
        f"{name} moves": difference(after[0], io["init_latents"][0]),
    }
