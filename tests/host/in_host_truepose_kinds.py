# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: Guide Attention on UNets of SD 1.5, 2.1, XL, and behind the VCM.

What is expected is the library's attention over all tokens, in the plainest patch that there is.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.controlnet
import comfy.hooks
import comfy.model_management as mm
import comfy.samplers
import torch
from pose_transfer_pack.nodes import host
from pose_transfer_pack.nodes import truepose as nodes
from pose_transfer_pack.nodes import vcm as vcm_nodes
from pose_transfer_pack.nodes.patches.unet_blocks import require_unet, transformer_blocks
from pose_transfer_pack.pose_transfer.errors import PoseTransferError
from pose_transfer_pack.pose_transfer.mannequin import LABELS
from pose_transfer_pack.pose_transfer.truepose import (
    DEFAULT_WEIGHTS,
    correspondence_logits,
    fusion_attention,
    pooled_regions,
    region_maps,
    source_gate,
)
from pose_transfer_pack.pose_transfer.types import Parsing
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from in_host_vcm_world import World, difference

Report = dict[str, Any]
BETA = 1.5
tiny = runpy.run_path(str(Path(__file__).with_name("in_host_tiny_models.py")))


@torch.inference_mode()
def check() -> Report:
    torch.set_num_threads(1)  # tiny tensors; threads only wait for each other
    torch.manual_seed(0)
    host.say = lambda _node_id, _text: None
    nodes.SourceFeaturesNode.hidden = SimpleNamespace(unique_id=None)
    vcm_nodes.ApplyVCM.hidden = SimpleNamespace(unique_id=None)
    report: Report = {}
    for kind in ("sd15", "sd21", "sdxl"):
        made = tiny["tiny_unet"](kind)
        report[kind] = guided_kind(made)
        if kind == "sd15":
            report |= kept(made) | batches(made) | controlled(made)
    return report | behind_vcm()


def parsing(count: int = 1, shift: int = 0) -> Parsing:
    labels = torch.zeros(count, 64, 64, dtype=torch.uint8)
    labels[:, 8:40, 10:30], labels[:, 40:60, 12:40], labels[:, :8] = 3, 4, 1
    return Parsing(labels.roll(shift, dims=2).numpy(), LABELS)


def look(model: Any, vae: Any, told: Any, mode: str = nodes.CLEAN) -> Any:
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    return nodes.SourceFeaturesNode.execute(model, vae, picture, parsing(), mode, told).result[0]


def guided(model: Any, features: Any, **changed: Any) -> Any:
    settings = {
        "blocks": "all", "strength": 1.0, "start": 0.0, "end": 1.0, "correspondence": BETA,
        "record": False, "target_parsing": parsing(shift=9), **DEFAULT_WEIGHTS, **changed,
    }  # fmt: skip
    return nodes.GuideAttention.execute(model, features, **settings).result[0]


class Steps:
    """A sampler that asks for a prediction at each of some timesteps; keeps what it was given.

    `parts` by step: the denoised latents under the positive and the negative conditioning.
    """

    def __init__(self, timesteps: Sequence[float], batch: int = 1) -> None:
        self.timesteps = timesteps
        self.x = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(4))
        self.parts: list[tuple[Tensor, Tensor]] = []

    def run(self, model: Any, positive: Any, negative: Any = None) -> list[tuple[Tensor, Tensor]]:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative or positive)
        guider.set_cfg(3.0)
        empty = torch.zeros_like(self.x)
        guider.sample(empty, empty, self, torch.tensor([1.0, 0.0]))
        return self.parts

    def sample(self, guider: Any, _sigmas: Any, extra: dict[str, Any], *_: Any) -> Tensor:
        options = {**extra["model_options"], "sampler_cfg_function": self._keep}
        for t in self.timesteps:
            sigma = guider.inner_model.model_sampling.sigma(torch.tensor([t]))
            noisy = self.x * (sigma**2 + 1) ** 0.5
            guider(noisy, sigma.expand(len(noisy)), model_options=options, seed=0)
        return self.x

    def _keep(self, given: dict[str, Any]) -> Tensor:
        self.parts.append((given["cond_denoised"], given["uncond_denoised"]))
        return given["cond"]


def once(model: Any, told: Any) -> tuple[Tensor, Tensor]:
    return Steps([500.0]).run(model, told)[0]


def guided_kind(made: Any) -> Report:
    model, told = made.model, made.conditioning
    features = look(model, made.vae, told)
    plain, got = once(model, told), once(guided(model, features), told)
    closed = once(guided(model, features, strength=0.0), told)
    return {
        "blocks": len(features.hidden),
        "guided": difference(got[0], once(by_hand(model, features), told)[0]),
        "effect": difference(got[0], plain[0]),
        "unconditional": difference(got[1], plain[1]),
        "switched off": difference(closed[0], plain[0]),
        "original model": difference(once(model, told)[0], plain[0]),
    }


def by_hand(model: Any, features: Any) -> Any:
    """Every self-attention attends to all tokens of the source, whatever is predicted."""
    patched = model.clone()
    maps = region_maps(parsing(shift=9))
    for name, block in transformer_blocks(require_unet(model)):

        def attend(
            q: Tensor, k: Tensor, v: Tensor, options: Any, name: Any = name, block: Any = block
        ) -> Tensor:
            source = pooled_regions(features.regions, *features.shapes[name])
            target = pooled_regions(maps, *options["activations_shape"][-2:])
            hidden = features.hidden[name].expand(len(q), -1, -1)
            return fusion_attention(
                q, k, v, block.attn1.to_k(hidden), block.attn1.to_v(hidden),
                source_gate(source, DEFAULT_WEIGHTS),
                correspondence_logits(target, source, BETA), options["n_heads"],
            )  # fmt: skip

        patched.set_model_attn1_replace(attend, *name)
    return patched


def kept(made: Any) -> Report:
    """Projections of a clean source are made once a run; and every step's numbers stay the same."""
    model, told = made.model, made.conditioning
    clean, live = (look(model, made.vae, told, mode) for mode in (nodes.CLEAN, nodes.LIVE))
    steps = [900.0, 500.0, 100.0]
    blocks = [block for _, block in transformer_blocks(require_unet(model))]
    calls: list[int] = []
    handles = [
        block.attn1.to_k.register_forward_hook(lambda *_: calls.append(1)) for block in blocks
    ]

    def calls_of(attended: Any, words: Any = told) -> float:
        """How often a block projects keys in three steps; without a source three times."""
        calls.clear()
        Steps(steps).run(attended, words)
        return len(calls) / len(blocks)

    def steadiness(attended: Any, words: Any = told) -> float:
        together = Steps(steps).run(attended, words)
        alone = [Steps([step]).run(attended, words)[0] for step in steps]
        return max(difference(a[0], b[0]) for a, b in zip(together, alone, strict=True))

    model_clean, model_live = guided(model, clean), guided(model, live)
    scheduled = hooked(told, blocks[0].attn1.to_k.weight)
    late = [Steps([100.0]).run(model_clean, words)[0][0] for words in (told, scheduled)]
    early = [Steps([900.0]).run(model_clean, words)[0][0] for words in (told, scheduled)]
    report = {
        "plain calls": calls_of(model),
        "clean calls": calls_of(model_clean),
        "live calls": calls_of(model_live),
        "scheduled calls": calls_of(model_clean, scheduled),
        "clean steady": steadiness(model_clean),
        "two sources steady": steadiness(guided(model_clean, live, strength=0.5)),
        "scheduled steady": steadiness(model_clean, scheduled),
        "scheduled late": difference(*late),
        "scheduled early": difference(*early),
    }
    was_training, mm.in_training = mm.in_training, True
    try:
        report["trained calls"] = calls_of(model_clean)
    finally:
        mm.in_training = was_training
        for handle in handles:
            handle.remove()
    return report


def hooked(told: Any, weight: Tensor) -> Any:
    """The CONDITIONING with a LoRA on a projection that is switched off in mid-run."""
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k"
    lora = {
        f"{name}.lora_up.weight": torch.randn(weight.shape[0], 4),
        f"{name}.lora_down.weight": torch.randn(4, weight.shape[1]),
    }
    frames = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.0, 0.4)):
        frames.add(comfy.hooks.HookKeyframe(strength, start, guarantee_steps=0))
    hooks = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
    hooks.set_keyframes_on_hooks(frames)
    return [[tokens, {**settings, "hooks": hooks}] for tokens, settings in told]


class Control(comfy.controlnet.ControlBase):
    """Stands where a ControlNet does: pushes the UNet's middle, counts how it is treated."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.asked = self.cleaned = 0

    def get_control(self, x: Tensor, *_: Any) -> dict[str, list[Tensor]]:
        self.asked += 1
        assert self.timestep_range is not None, "it was made ready for this run"
        assert any(m.model is self.network.model for m in mm.loaded_models()), "it is loaded"
        return {"input": [], "middle": [x.new_full((1, 1, 1, 1), 0.7)], "output": []}

    def get_models(self) -> list[Any]:
        return [self.network]

    def cleanup(self) -> None:
        self.cleaned += 1
        super().cleanup()


def controlled(made: Any) -> Report:
    """A ControlNet in the source's CONDITIONING is for the source, looked at once or live."""
    model, told = made.model, made.conditioning
    report: Report = {}
    for name, mode in (("clean", nodes.CLEAN), ("live", nodes.LIVE)):
        control = Control(host.managed(torch.nn.Linear(2, 2)))
        posed = [[tokens, {**settings, "control": control}] for tokens, settings in told]
        attended = guided(model, look(model, made.vae, posed, mode))
        if mode == nodes.LIVE:
            mm.unload_all_models()
        got = once(attended, told)
        plain = once(guided(model, look(model, made.vae, told, mode)), told)
        report[f"{name} control"] = {
            "asked": control.asked,
            "cleaned": control.cleaned,
            "matters": difference(got[0], plain[0]),
            "unconditional": difference(got[1], plain[1]),
        }
    return report


def batches(made: Any) -> Report:
    """As many targets as pictures, or one; others are refused in words."""
    model, told = made.model, made.conditioning
    features = look(model, made.vae, told)

    def said(targets: int, pictures: int) -> str:
        attended = guided(model, features, target_parsing=parsing(targets))
        try:
            Steps([500.0], pictures).run(attended, told)
        except PoseTransferError as error:
            return str(error)
        return "fine"

    frames = [{"people": [], "canvas_width": 64, "canvas_height": side} for side in (64, 48)]
    try:
        guided(model, features, target_parsing=None, target_pose=frames)
        canvases = "accepted"
    except PoseTransferError as error:
        canvases = str(error)
    return {
        "one target": said(1, 2), "two targets": said(2, 2), "three targets": said(3, 2),
        "more targets than pictures": said(2, 1), "canvases": canvases,
    }  # fmt: skip


def behind_vcm() -> Report:
    """Both methods on one MODEL: one in its cross-attentions, the other in its self-attentions."""
    world = World()
    vae = tiny["tiny_vae"](4)
    told, positive, negative = world.apply(face_scale=0.7)
    features = look(world.model, vae, positive)
    behind = Steps([500.0]).run(guided(told, features), positive, negative)[0]
    front, *_ = world.apply(model=guided(world.model, features), face_scale=0.7)
    in_front = Steps([500.0]).run(front, positive, negative)[0]
    alone = Steps([500.0]).run(told, positive, negative)[0]
    closed = Steps([500.0]).run(guided(told, features, strength=0.0), positive, negative)[0]
    hand = Steps([500.0]).run(by_hand(told, features), positive, negative)[0]
    without = Steps([500.0]).run(guided(world.model, features), positive, negative)[0]
    return {
        "vcm, by hand": difference(behind[0], hand[0]),
        "vcm, either order": difference(behind[0], in_front[0]),
        "vcm, guide matters": difference(behind[0], alone[0]),
        "vcm, vcm matters": difference(behind[0], without[0]),
        "vcm, unconditional": difference(behind[1], alone[1]),
        "vcm, switched off": difference(closed[0], alone[0]),
    }
