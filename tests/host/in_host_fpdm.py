# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: its MODEL under FPDM against the library's own UNet path.

Predictions are compared as v; the host hands out denoised latents
`x0 = x / (s^2 + 1) - v s / sqrt(s^2 + 1)`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import comfy.samplers
import comfy.sd
import torch
from diffusers import UNet2DConditionModel
from pose_transfer_pack.nodes import fpdm as nodes
from pose_transfer_pack.nodes import loading
from pose_transfer_pack.pose_transfer.demo.models import load_base
from pose_transfer_pack.pose_transfer.fpdm import load_checkpoint
from pose_transfer_pack.pose_transfer.fpdm.unet import pose_added
from torch import Tensor

Report = dict[str, Any]
host_nodes: Any = import_module("nodes")  # a name that this pack has, too


@torch.inference_mode()
def check(base_path: str, fpdm_path: str) -> Report:
    torch.set_num_threads(1)  # tiny tensors; threads only wait for each other
    torch.manual_seed(0)
    world = World(base_path, fpdm_path)
    return {
        **guidance(world),
        **four_passes(world),
        **ranges(world),
        **strangers(world),
        **patches(world),
        **lora(world),
        **area(world),
        **pose_control(world),
    }


class World:
    """One source and pose, the library's model, and the host's with FPDM applied."""

    def __init__(self, base_path: str, fpdm_path: str) -> None:
        base = load_base(base_path)
        self.unet = UNet2DConditionModel(**base.unet_config, class_embed_type="identity").eval()
        self.unet.load_state_dict(base.unet)
        self.library = load_checkpoint(fpdm_path, base_unet=self.unet)
        self.demo = loading._load_demo(base_path, fpdm_path)

        self.source, self.pose_map = torch.rand(2, 1, 64, 48, 3)
        self.x = torch.randn(1, self.unet.config["in_channels"], 8, 6)
        self.tokens = self.library.source_tokens(self.library.source_hidden(self.source))
        self.pose = self.library.pose_features(self.pose_map.movedim(-1, 1))
        self.fusion = self.library.fuse(self.source, self.pose_map)
        self.model, self.positive, self.negative, self.latent = self.apply(self.demo.model)

    def apply(self, model: Any) -> Any:
        fpdm, pictures = self.demo.fpdm, (self.source, self.pose_map)
        (embedding,) = nodes.FusionEmbeddingNode.execute(fpdm, *pictures).result
        return nodes.ApplyFPDM.execute(model, fpdm, *pictures, embedding).result

    def guider(self, *weights: float, **more: Any) -> Any:
        conditions = self.positive, self.negative
        return nodes.FPDMGuiderNode.execute(self.model, *conditions, *weights, **more).result[0]

    def guided(self, t: int, *weights: float) -> Tensor:
        conditions = self.tokens, self.pose, self.fusion
        return self.library.predict_guided(self.x, t, *conditions, *weights)

    def full(self) -> Tensor:
        return self.library.predict_noise(self.x, 500, self.tokens, self.pose, self.fusion)

    def call(self, guider: Any, t: int = 500, **options: Any) -> OneCall:
        return OneCall(self.x, t, options).run(guider)


class OneCall:
    """A sampler of a single model call, which remembers batch sizes and the prediction as v."""

    def __init__(self, x: Tensor, t: int, options: dict[str, Any]) -> None:
        self.x, self.t, self.options = x, t, options
        self.batches: list[int] = []

    def sample(self, guider: Any, _sigmas: Any, extra: dict[str, Any], *_: Any) -> Tensor:
        options = {**extra["model_options"], **self.options}
        options["model_function_wrapper"] = self._count
        s = guider.inner_model.model_sampling.sigma(torch.tensor([float(self.t)]))
        noisy = self.x * (s**2 + 1) ** 0.5
        denoised = guider(noisy, s, model_options=options, seed=0)
        self.v = (noisy / (s**2 + 1) - denoised) * (s**2 + 1) ** 0.5 / s
        return noisy

    def _count(self, model: Any, call: dict[str, Any]) -> Tensor:
        self.batches.append(len(call["input"]))
        return model(call["input"], call["timestep"], **call["c"])

    def run(self, guider: Any) -> OneCall:
        empty = torch.zeros_like(self.x)
        guider.sample(empty, empty, self, torch.tensor([1.0, 0.0]))
        return self


def stock_guider(model: Any, conditioning: Any) -> Any:
    made = comfy.samplers.CFGGuider(model)
    made.set_conds(conditioning, conditioning)
    return made


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def guidance(world: World) -> Report:
    report: Report = {"latent": list(world.latent["samples"].shape)}
    for t in (999, 500, 20):
        call = world.call(world.guider(1.7, 2.6), t)
        report[f"guided at {t}"] = difference(call.v, world.guided(t, 1.7, 2.6))
        report["batches"] = call.batches
    report["two weights are not one"] = difference(call.v, world.guided(20, 1.7, 1.7))

    expected = world.guided(500, 2.0, 2.0)
    equal = world.call(world.guider(2.0, 2.0))
    report |= {"equal weights": difference(equal.v, expected), "equal batches": equal.batches}
    forced = world.call(world.guider(2.0, 2.0), disable_cfg1_optimization=True)
    report |= {"switched off": difference(forced.v, expected), "forced batches": forced.batches}

    with memory_is_short(world):
        split = world.call(world.guider(1.7, 2.6))
    expected = world.guided(500, 1.7, 2.6)
    return report | {"split": difference(split.v, expected), "split batches": split.batches}


@contextmanager
def memory_is_short(world: World) -> Iterator[None]:
    world.model.model.memory_required = lambda *_, **__: 1e20
    yield
    del world.model.model.memory_required


def four_passes(world: World) -> Report:
    """The pose guided by a weight of its own; and the rescaling, against the same in plain v."""
    off = torch.zeros_like
    conditions = [
        (off(world.tokens), off(world.pose), off(world.fusion)),
        (off(world.tokens), world.pose, off(world.fusion)),
        (world.tokens, world.pose, off(world.fusion)),
        (world.tokens, world.pose, world.fusion),
    ]
    e = [world.library.predict_noise(world.x, 500, *given) for given in conditions]
    expected = e[0] + 3.1 * (e[1] - e[0]) + 1.7 * (e[2] - e[1]) + 2.6 * (e[3] - e[2])
    own = {"separate_pose": True, "pose_weight": 3.1}

    four = world.call(world.guider(1.7, 2.6, **own))
    with memory_is_short(world):
        split = world.call(world.guider(1.7, 2.6, **own))
    equal = world.call(world.guider(1.7, 2.6, **own | {"pose_weight": 1.7}))
    rescaled = world.call(world.guider(1.7, 2.6, **own, rescale=0.6))
    size = e[3].std() / expected.std()
    return {
        "four passes": difference(four.v, expected),
        "four batches": four.batches,
        "four split": difference(split.v, four.v),
        "four split batches": split.batches,
        "pose with the source": difference(equal.v, world.guided(500, 1.7, 2.6)),
        "pose with the source's batches": equal.batches,
        "rescaled": difference(rescaled.v, expected * (0.6 * size + 0.4)),
        "rescaling's effect": difference(rescaled.v, expected),
    }


def ranges(world: World) -> Report:
    """Timestep 500 is half of sampling: outside of its range a term's weight is 1."""
    late = world.call(world.guider(1.7, 2.6, fusion_start=0.6))
    early = world.call(world.guider(1.7, 2.6, fusion_end=0.6))
    never = world.call(world.guider(1.7, 2.6, fusion_start=0.6, source_end=0.4))
    return {
        "fusion not yet": difference(late.v, world.guided(500, 1.7, 1.0)),
        "fusion still": difference(early.v, world.guided(500, 1.7, 2.6)),
        "nothing guided": difference(never.v, world.full()),
        "nothing guided's batches": never.batches,
    }


def strangers(world: World) -> Report:
    """FPDM's conditioning in the stock guider, another conditioning in FPDM's model."""
    words = torch.randn(1, 77, world.tokens.shape[-1])
    no_pose, no_fusion = torch.zeros_like(world.pose), torch.zeros_like(world.fusion)
    nothing = world.library.predict_noise(world.x, 500, words, no_pose, no_fusion)
    stranger = world.call(stock_guider(world.model, [[words, {}]]))
    original = world.call(stock_guider(world.demo.model, [[words, {}]]))
    no_offset = torch.zeros(1, world.unet.time_embedding.linear_2.out_features)
    untouched = world.unet(world.x, 500, words, class_labels=no_offset, return_dict=False)[0]
    return {
        "stock guider": difference(
            world.call(stock_guider(world.model, world.positive)).v, world.full()
        ),
        "stranger's conditioning": difference(stranger.v, nothing),
        "original model": difference(original.v, untouched),
    }


def patches(world: World) -> Report:
    """Patches of other packs stay, whoever comes first; applying twice adds nothing twice."""
    seen: list[str] = []

    def spy(name: str) -> Any:
        def patch(h: Tensor, _options: dict[str, Any]) -> Tensor:
            seen.append(name)
            return h

        return patch

    other = world.demo.model.clone()
    other.set_model_input_block_patch(spy("before"))
    previous = other.get_model_object("extra_conds")
    other.add_object_patch("extra_conds", lambda **kw: [seen.append("conds"), previous(**kw)][1])
    applied = world.apply(other)[0]
    applied.set_model_input_block_patch(spy("after"))
    twice = world.call(stock_guider(world.apply(applied)[0], world.positive))
    return {
        "patches seen": sorted(set(seen)),
        "applied twice": difference(twice.v, world.full()),
    }


def lora(world: World) -> Report:
    """A LoRA by Stable Diffusion's names, on the model before FPDM is applied."""
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    merged = copy.deepcopy(world.library).requires_grad_(False)
    weight = merged.unet.get_submodule(name).weight
    up, down = torch.randn(weight.shape[0], 4) * 0.1, torch.randn(4, weight.shape[1]) * 0.1
    weight.add_(0.8 * up @ down)
    expected = merged.predict_noise(world.x, 500, world.tokens, world.pose, world.fusion)

    key = "lora_unet_" + name.replace(".", "_")
    tensors = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    tuned, _ = comfy.sd.load_lora_for_models(world.demo.model, None, tensors, 0.8, 0.0)
    got = world.call(stock_guider(world.apply(tuned)[0], world.positive))
    return {
        "lora": difference(got.v, expected),
        "lora's effect": difference(world.full(), expected),
    }


def area(world: World) -> Report:
    """A conditioning for the left half: the host crops the pose features with the latents."""
    (tokens, settings), *_ = world.positive
    half = [[tokens, {**settings, "area": (8, 3, 0, 0), "strength": 1.0}]]
    left = world.call(stock_guider(world.model, half)).v[..., :3]
    x, pose = world.x[..., :3], world.pose[..., :3]
    expected = world.library.predict_noise(x, 500, world.tokens, pose, world.fusion)
    return {"half": difference(left, expected)}


def pose_control(world: World) -> Report:
    """The pose encoder alone, through the host's Apply ControlNet at strength 0.7."""
    words = torch.randn(1, 77, world.tokens.shape[-1])
    caption = [[words, {}]]
    controlled, _ = host_nodes.ControlNetApplyAdvanced().apply_controlnet(
        caption, caption, world.demo.control_net, world.pose_map, 0.7, 0.0, 1.0
    )
    got = world.call(stock_guider(world.demo.model, controlled))
    no_offset = torch.zeros(1, world.unet.time_embedding.linear_2.out_features)
    with pose_added(world.unet, 0.7 * world.pose):
        expected = world.unet(world.x, 500, words, class_labels=no_offset, return_dict=False)[0]
    plain = world.call(stock_guider(world.demo.model, caption))
    two = world.demo.control_net.copy().set_cond_hint(torch.rand(2, 3, 64, 48))
    batches = [
        two.get_control(world.x.expand(n, -1, -1, -1), torch.zeros(n), {}, n // 2, {})["input"][0]
        for n in (4, 2)
    ]
    return {
        "pose control's batches": [len(batch) for batch in batches],
        "pose control": difference(got.v, expected),
        "pose control's effect": difference(plain.v, expected),
    }
