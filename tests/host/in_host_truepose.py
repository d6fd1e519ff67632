# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: guided MODELs against the library's pair on a diffusers UNet.

Predictions are compared as v; the host hands out denoised latents
`x0 = x / (s^2 + 1) - v s / sqrt(s^2 + 1)`.
"""

from __future__ import annotations

import copy
from typing import Any

import comfy.samplers
import comfy.sd
import torch
from diffusers import UNet2DConditionModel
from pose_transfer_pack.nodes import fpdm as fpdm_nodes
from pose_transfer_pack.nodes import host, loading
from pose_transfer_pack.nodes import truepose as nodes
from pose_transfer_pack.pose_transfer.demo.models import load_base
from pose_transfer_pack.pose_transfer.mannequin import LABELS
from pose_transfer_pack.pose_transfer.truepose import DEFAULT_WEIGHTS, pooled_regions, region_maps
from pose_transfer_pack.pose_transfer.truepose.siamese import PairRegions, SiamesePair
from pose_transfer_pack.pose_transfer.types import Parsing
from torch import Tensor

Report = dict[str, Any]
T = 500


@torch.inference_mode()
def check(base_path: str, fpdm_path: str) -> Report:
    torch.set_num_threads(1)  # tiny tensors; threads only wait for each other
    torch.manual_seed(0)
    host.say = lambda _node_id, _text: None
    nodes.SourceFeaturesNode.hidden = type("Hidden", (), {"unique_id": None})()
    world = World(base_path, fpdm_path)
    return {
        **exactness(world), **others(world), **lora(world), **with_fpdm(world), **live(world),
        **range_of_steps(world), **record(world),
    }  # fmt: skip


class World:
    """One source and target with their parsings, the library's pair, the host's models."""

    def __init__(self, base_path: str, fpdm_path: str) -> None:
        base = load_base(base_path)
        self.unet = UNet2DConditionModel(**base.unet_config).eval()
        self.unet.load_state_dict(base.unet)
        self.demo = loading._load_demo(base_path, fpdm_path)
        self.source, self.pose_map = torch.rand(2, 1, 64, 48, 3)
        labels = torch.zeros(2, 64, 48, dtype=torch.uint8)
        labels[:, 8:40, 10:30], labels[:, 40:60, 12:40], labels[0, :8] = 3, 4, 1
        labels[1] = labels[1].roll(9, dims=1)
        self.parsing = Parsing(labels[:1].numpy(), LABELS)
        self.target = Parsing(labels[1:].numpy(), LABELS)
        self.x = torch.randn(1, self.unet.config["in_channels"], 8, 6)
        self.words = torch.randn(1, 7, 128)
        self.none = torch.randn(1, 7, 128)

    def features(self, mode: str = nodes.CLEAN, model: Any = None, told: Any = None) -> Any:
        given = model or self.demo.model, self.demo.vae, self.source, self.parsing, mode
        return nodes.SourceFeaturesNode.execute(*given, told or [[self.words, {}]]).result[0]

    def guided(self, features: Any, model: Any = None, **changed: Any) -> Any:
        settings = {
            "blocks": "all", "strength": 1.0, "start": 0.0, "end": 1.0, "correspondence": 1.5,
            "record": False, "target_parsing": self.target, **DEFAULT_WEIGHTS, **changed,
        }  # fmt: skip
        return nodes.GuideAttention.execute(model or self.demo.model, features, **settings).result

    def expected(self, unet: UNet2DConditionModel, context: Tensor) -> Tensor:
        """The library's own pair: context of SourceNet is always the words."""
        pair = SiamesePair(unet)
        latent = self.demo.vae.encode(self.source)
        look = pair.look(latent, self.words)
        maps = (region_maps(self.parsing), region_maps(self.target))
        regions = PairRegions(*maps, torch.ones(1), torch.full((1,), 1.5))
        return pair.predict(self.x, torch.tensor([T]), context, look, regions)[0]

    def call(self, model: Any, **options: Any) -> OneCall:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds([[self.words, {}]], [[self.none, {}]])
        guider.set_cfg(3.0)
        return OneCall(self.x, options).run(guider)

    def v(self, model: Any, positive: Any = None) -> Tensor:
        """The prediction under the positive conditioning alone."""
        guider = comfy.samplers.CFGGuider(model)
        given = positive or [[self.words, {}]]
        guider.set_conds(given, given)
        return OneCall(self.x, {}).run(guider).v


class OneCall:
    """A sampler of a single model call; keeps the predictions as v, and the sizes of batches."""

    def __init__(self, x: Tensor, options: dict[str, Any]) -> None:
        self.x, self.options = x, options
        self.batches: list[int] = []
        self.parts: dict[int, Tensor] = {}

    def sample(self, guider: Any, _sigmas: Any, extra: dict[str, Any], *_: Any) -> Tensor:
        options = {**extra["model_options"], **self.options}
        options["model_function_wrapper"] = self._watch
        self.s = guider.inner_model.model_sampling.sigma(torch.tensor([float(T)]))
        self.noisy = self.x * (self.s**2 + 1) ** 0.5
        self.v = self._as_v(guider(self.noisy, self.s, model_options=options, seed=0))
        return self.noisy

    def _as_v(self, denoised: Tensor) -> Tensor:
        return (self.noisy / (self.s**2 + 1) - denoised) * (self.s**2 + 1) ** 0.5 / self.s

    def _watch(self, model: Any, call: dict[str, Any]) -> Tensor:
        self.batches.append(len(call["input"]))
        out = model(call["input"], call["timestep"], **call["c"])
        kinds = call["cond_or_uncond"]
        for kind, part in zip(kinds, out.chunk(len(kinds)), strict=True):
            self.parts[kind] = self._as_v(part)
        return out

    def run(self, guider: Any) -> OneCall:
        empty = torch.zeros_like(self.x)
        guider.sample(empty, empty, self, torch.tensor([1.0, 0.0]))
        return self


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def exactness(world: World) -> Report:
    features = world.features()
    model, _ = world.guided(features)
    plain = world.call(world.demo.model)
    call = world.call(model)
    expected = world.expected(copy.deepcopy(world.unet), world.words)
    (shape,) = {features.shapes[name] for name in features.hidden if name == ("input", 1, 0)}
    half = world.guided(features, strength=0.5)[0]
    halves = world.guided(features, half, strength=0.5)[0]
    closed = world.guided(features, strength=0.0)[0]
    batches = {
        "one batch": call.batches,
        "kept shape": list(shape),
        "megabytes": features.megabytes,
    }
    return batches | {
        "guided": difference(call.parts[0], expected),
        "effect": difference(plain.parts[0], expected),
        "unconditional": difference(call.parts[1], plain.parts[1]),
        "two halves": difference(world.v(halves), expected),
        "switched off": difference(world.v(closed), plain.parts[0]),
        "original model": difference(world.v(world.demo.model), plain.parts[0]),
        "regions": difference(
            pooled_regions(features.regions, 8, 6), pooled_regions(region_maps(world.parsing), 8, 6)
        ),
    }  # fmt: skip


def others(world: World) -> Report:
    """Attention patches of other packs, before and behind ours."""
    features = world.features()
    wanted = world.v(world.guided(features)[0])
    seen: list[str] = []

    def patch(name: str) -> Any:
        def spy(n: Tensor, context: Tensor, value: Tensor, _options: Any) -> Any:
            seen.append(name)
            return n, context, value

        return spy

    def plain(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        seen.append("replace")
        assert len(k) == len(q) and k.shape == q.shape  # what that pack expects
        q, k, v = (x.unflatten(-1, (options["n_heads"], -1)).transpose(1, 2) for x in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).flatten(2)

    before = world.demo.model.clone()
    before.set_model_attn1_patch(patch("before"))
    for side, number in (("input", 1), ("middle", 0), ("output", 2)):
        before.set_model_attn1_replace(plain, side, number)
    model = world.guided(features, before)[0]
    model.set_model_attn1_patch(patch("behind"))
    model.set_model_attn1_output_patch(lambda n, _options: [seen.append("output"), n][1])
    model.set_model_attn1_replace(plain, "output", 3, 0)
    together = world.v(model)

    perturbed = model.clone()
    perturbed.set_model_attn1_replace(lambda q, k, v, options: v, "middle", 0)
    slots = model.model_options["transformer_options"]["patches_replace"]["attn1"]
    return {
        "with others": difference(together, wanted),
        "others seen": sorted(set(seen)),
        "perturbed": difference(world.v(perturbed), wanted),
        "left in place": len(slots),
    }  # fmt: skip


def lora(world: World) -> Report:
    """Source tokens go through the projections that a LoRA has changed."""
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
    merged = copy.deepcopy(world.unet)
    weight = merged.get_parameter(f"{name}.weight")
    up, down = torch.randn(weight.shape[0], 4) * 0.1, torch.randn(4, weight.shape[1]) * 0.1
    weight.add_(0.8 * up @ down)
    key = "lora_unet_" + name.replace(".", "_")
    tensors = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    tuned, _ = comfy.sd.load_lora_for_models(world.demo.model, None, tensors, 0.8, 0.0)
    got = world.v(world.guided(world.features(model=tuned), tuned)[0])
    return {"lora": difference(got, world.expected(merged, world.words))}


def with_fpdm(world: World) -> Report:
    """Both methods on one MODEL, in either order, and in FPDM's own guider."""
    fpdm, pictures = world.demo.fpdm, (world.source, world.pose_map)
    (fused,) = fpdm_nodes.FusionEmbeddingNode.execute(fpdm, *pictures).result

    def applied(model: Any) -> Any:
        return fpdm_nodes.ApplyFPDM.execute(model, fpdm, *pictures, fused).result

    model, positive, negative, _ = applied(world.demo.model)
    features = world.features(model=model, told=positive)
    behind = world.v(world.guided(features, model)[0], positive)
    in_front = world.v(applied(world.guided(features)[0])[0], positive)
    guider = fpdm_nodes.FPDMGuiderNode.execute(
        world.guided(features, model)[0], positive, negative, 2.0, 3.0
    ).result[0]
    call = OneCall(world.x, {}).run(guider)
    return {
        "either order": difference(behind, in_front),
        "fpdm alone": difference(behind, world.v(model, positive)),
        "in its guider": difference(call.parts[0], behind),
    }


def live(world: World) -> Report:
    features = world.features(nodes.LIVE)
    call = world.call(world.guided(features)[0])
    again = world.call(world.guided(features)[0])
    plain = world.call(world.demo.model)
    return {
        "live passes": call.batches,
        "live effect": difference(call.parts[0], plain.parts[0]),
        "live unconditional": difference(call.parts[1], plain.parts[1]),
        "live again": difference(call.v, again.v),
        "live kept": len(features.hidden),
    }


def range_of_steps(world: World) -> Report:
    features = world.features()
    plain = world.v(world.demo.model)
    late = world.v(world.guided(features, start=0.9)[0])
    early = world.v(world.guided(features, end=0.1)[0])
    half = world.v(world.guided(features, blocks="second half (output)")[0])
    return {
        "before its start": difference(late, plain),
        "behind its end": difference(early, plain),
        "half of the blocks": difference(half, plain),
        "half is not all": difference(half, world.v(world.guided(features)[0])),
    }


def record(world: World) -> Report:
    features = world.features()
    model, kept = world.guided(features, record=True)
    empty = kept.maps() is None
    for _ in range(2):  # each run begins anew
        world.call(model)
    maps = kept.maps()
    latent = {"samples": world.x}
    sheet, text, passed = nodes.AttentionMaps.execute(kept, latent).result
    return {
        "nothing yet": empty,
        "maps": list(maps.shape),
        "largest": float(maps.sum(1).max()),
        "smallest": float(maps.min()),
        "background": float(maps[:, 8].max()),
        "upper": float(maps[:, 2].mean()),
        "sheet": list(sheet.shape),
        "text": text,
        "passed on": passed is latent,
    }
