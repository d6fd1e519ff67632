# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: Apply VCM against the released code's numbers and the library's.

The library's are those of diffusers' UNet whose attention processors call it.

Predictions are compared as noise; the host hands out denoised latents `x0 = x - s e`.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.clip_vision
import comfy.controlnet
import comfy.samplers
import comfy.sd
import torch
from pose_transfer_pack.nodes import host, stock_models
from pose_transfer_pack.nodes import vcm as nodes
from pose_transfer_pack.nodes.sockets import VCMModel
from pose_transfer_pack.pose_transfer.errors import PoseTransferError
from pose_transfer_pack.pose_transfer.oneposetrans import (
    VCM,
    ImageProjection,
    Resampler,
    TokenAdapter,
)
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from in_host_vcm_world import (
    CONTEXT,
    EMBED,
    LONG,
    Report,
    World,
    difference,
    embedding,
    library_predicts,
    raw_face,
)


@torch.inference_mode()
def check(data: str) -> Report:
    torch.set_num_threads(1)  # tiny tensors; threads only wait for each other
    torch.manual_seed(0)
    nodes.ApplyVCM.hidden = SimpleNamespace(unique_id="7")
    said: list[str] = []
    host.say = lambda _node, text: said.append(text)  # there is no server here
    world = World()
    return {
        **reference(world, Path(data)),
        **whole_unet(world),
        **settings(world),
        **strangers(world),
        **words(world),
        **encoders(world),
        **mistakes(world),
        "said": sorted({text.partition("\n")[0] for text in said}),
    }


def reference(world: World, data: Path) -> Report:
    """The released attention's inputs pushed into one block of the host, its output read there."""
    io = {k: x.float() for k, x in load_file(data / "attention.safetensors").items()}
    text, ip, face = io["in.encoder_hidden_states"].split((77, 4, 16), dim=1)  # (uncond, cond)

    class Given(ImageProjection):
        def __init__(self, tokens: Tensor) -> None:
            super().__init__(CONTEXT, EMBED, tokens.shape[1])
            self.given = tokens

        def forward(self, embeds: Tensor) -> Tensor:
            return self.given[1:] if embeds.any() else self.given[:1]

    count, width = len(world.order), len(io["attn.to_q.weight"])
    widths = [p.shape[0] for p in world.vcm.image.to_v]

    def everywhere(weight: Tensor) -> list[Tensor]:
        return [weight if c == width else torch.zeros(c, CONTEXT) for c in widths]

    image_part = TokenAdapter(
        Given(ip), everywhere(io["processor.to_v_ip.weight"]),
        everywhere(io["processor.to_k_ip.weight"]),
    )  # fmt: skip
    face_part = TokenAdapter(Given(face), everywhere(io["processor.to_face_v_ip.weight"]), None)
    weights = VCMModel("reference", host.managed(VCM(image_part, face_part)), None)
    unet = copy.deepcopy(world.unet)
    block = unet.get_submodule("up_blocks.1.attentions.1.transformer_blocks.1.attn2")
    for name in ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"):
        block.get_parameter(name).copy_(io[f"attn.{name}"])
    model = stock_models.build_model(
        unet.state_dict(), unet.config, prediction="epsilon",
        latent_format=stock_models.LatentFormat(1.0, 4), dtypes=(torch.float32,),
    )  # fmt: skip
    here = (("output", 4), 1)  # the second half-size level: 10 x 8 latents are 5 x 4 there
    outputs: list[Tensor] = []

    def give(n: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> Any:
        if (options["block"], options["block_index"]) != here:
            return n, context, value
        order = [0, 1] if options["cond_or_uncond"] == [0, 1] else [1, 0]
        return io["in.hidden_states"][order], text[order], text[order]

    def take(n: Tensor, options: dict[str, Any]) -> Tensor:
        if (options["block"], options["block_index"]) == here:
            outputs.append(n if options["cond_or_uncond"] == [0, 1] else n.flip(0))
        return n

    model.set_model_attn2_patch(give)
    model.set_model_attn2_output_patch(take)
    report: Report = {"reference blocks": count}
    for name in sorted(key for key in io if key.startswith("out.")):
        kind, ip_scale, *face_scale = name.removeprefix("out.").split("_")
        applied, positive, negative = world.apply(
            model=model, vcm=weights, image_scale=float(ip_scale.removeprefix("ip")),
            face_scale=float(face_scale[0].removeprefix("face")) if face_scale else 0.0,
            face_embedding=world.face if kind == "face" else None,
        )  # fmt: skip
        world.predict(applied, negative, positive, x=torch.randn(1, 4, 10, 8))
        report[name] = difference(outputs.pop(), io[name])
    return report


def whole_unet(world: World) -> Report:
    """All blocks in the right order, cond and uncond in one batch or one after the other."""
    model, positive, negative = world.apply(face_scale=0.3)
    face = raw_face(world.face)
    expected = (
        world.expected(positive[0][0], 4, world.seen, face, scale_face=0.3),
        world.expected(negative[0][0], 4, 0 * world.seen, 0 * face, scale_face=0.3),
    )
    batched = world.predict(model, positive, negative)
    model.model.memory_required = lambda *_, **__: 1e20  # memory is short
    split = world.predict(model, positive, negative)
    del model.model.memory_required

    def paper(name: str) -> float:
        return {"up_blocks.1.attentions.0": 0.4, "up_blocks.1.attentions.1": 1.0}.get(
            name.partition(".transformer")[0], 0.0
        )

    styled, style_positive, _ = world.apply(blocks="style injection", image_scale=2.0)
    style = world.expected(
        positive[0][0], 4, world.seen, face, scale_ip=lambda name: 2 * paper(name)
    )
    seen = torch.randn(2, EMBED)
    several, several_positive, several_negative = world.apply(seen=seen)
    tokens = world.vcm.image.tokens
    world.vcm.image.tokens = lambda e: tokens(e).flatten(0, 1)[None]
    two = world.expected(positive[0][0], 4, seen, face)
    del world.vcm.image.tokens
    plain = world.predict(world.model, positive)[0]
    got_several = world.predict(several, several_positive, several_negative)
    return {
        "positive": difference(batched[0], expected[0]),
        "negative": difference(batched[1], expected[1]),
        "split": max(difference(a, b) for a, b in zip(split, batched, strict=True)),
        "style": difference(world.predict(styled, style_positive)[0], style),
        "several pictures": difference(got_several[0], two),
        "several pictures' negative": difference(
            got_several[1], world.expected(negative[0][0], 4, 0 * world.seen, 0 * face)
        ),
        "effect": difference(batched[0], plain),
        "original model": difference(
            plain, world.unet(world.x, 500, positive[0][0], return_dict=False)[0]
        ),
    }


def settings(world: World) -> Report:
    """Range, region, no face, other packs' patches, LoRAs."""
    face = raw_face(world.face)
    plain_model, positive, _ = world.apply()
    text = positive[0][0]
    full = world.predict(plain_model, positive)[0]

    ranged, ranged_positive, _ = world.apply(start=0.3, end=0.6)
    at = {t: world.predict(ranged, ranged_positive, t=t)[0] for t in (900, 500, 100)}
    outside = [
        difference(at[t], world.unet(world.x, t, text, return_dict=False)[0]) for t in (900, 100)
    ]

    black, black_positive, _ = world.apply(region=torch.zeros(1, 30, 40))
    face_alone = world.expected(text, 4, world.seen, face, scale_ip=0.0)
    white, white_positive, _ = world.apply(region=torch.ones(1, 30, 40), face_scale=0.3)
    half = torch.zeros(1, 16, 16)
    half[..., :8] = 1
    left, left_positive, _ = world.apply(region=half, face_embedding=None)
    cropped = {**left_positive[0][1], "area": (8, 4, 0, 4), "strength": 1.0}
    right = world.predict(left, [[text, cropped]])[0]

    faceless, faceless_positive, _ = world.apply(face_embedding=None, prompt="a shirt")
    lost, lost_positive, _ = world.apply(face_embedding=embedding(world.face.raw, False))
    no_face = world.expected(text, 4, world.seen, None)

    calls: list[str] = []

    def spy(name: str) -> Any:
        def replace(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
            calls.append(name)
            return comfy.ldm.modules.attention.optimized_attention(q, k, v, options["n_heads"])

        return replace

    other = world.model.clone()
    other.set_model_attn2_replace(spy("block before"), "input", 1)
    other.set_model_attn2_replace(spy("before"), "output", 8, 0)
    chained, chained_positive, _ = world.apply(model=other)
    chained.set_model_attn2_replace(spy("after"), "middle", 0)
    chained.set_model_attn2_patch(lambda n, c, v, o: (calls.append("patch"), (n, c, v))[1])
    through = world.predict(chained, chained_positive)[0]

    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
    merged = copy.deepcopy(world.unet)
    weight = merged.get_parameter(f"{name}.weight")
    up, down = torch.randn(weight.shape[0], 4) * 0.1, torch.randn(4, weight.shape[1]) * 0.1
    weight.add_(0.8 * up @ down)
    key = "lora_unet_" + name.replace(".", "_")
    lora = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    tuned, _ = comfy.sd.load_lora_for_models(world.model, None, lora, 0.8, 0.0)
    before, lora_positive, _ = world.apply(model=tuned)
    after, _ = comfy.sd.load_lora_for_models(plain_model, None, lora, 0.8, 0.0)
    with_lora = library_predicts(merged, world, text, 4, world.seen, face)
    return {
        "outside of range": max(outside),
        "within range": difference(
            at[500], world.expected(text, 4, world.seen, face)
        ),
        "black region": difference(world.predict(black, black_positive)[0], face_alone),
        "white region": difference(
            world.predict(white, white_positive)[0],
            world.expected(text, 4, world.seen, face, scale_face=0.3),
        ),
        "left region": difference(
            world.predict(left, left_positive)[0],
            world.expected(text, 4, world.seen, None, region=half),
        ),
        "window's right half": difference(
            right[..., 4:], world.unet(world.x[..., 4:], 500, text, return_dict=False)[0]
        ),
        "no face": difference(world.predict(faceless, faceless_positive)[0], world.expected(
            faceless_positive[0][0], 4, world.seen, None)),
        "face not found": difference(world.predict(lost, lost_positive)[0], no_face),
        "face's effect": difference(full, no_face),
        "patches called": sorted(set(calls)),
        "through patches": difference(through, full),
        "lora before": difference(world.predict(before, lora_positive)[0], with_lora),
        "lora after": difference(world.predict(after, lora_positive)[0], with_lora),
        "lora's effect": difference(with_lora, full),
    }  # fmt: skip


def nodes_key() -> str:
    from pose_transfer_pack.nodes.patches.vcm import VCM_KEY

    return VCM_KEY


class Control(comfy.controlnet.ControlBase):
    """Stands where a ControlNet does, and remembers what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.options: list[dict[str, Any]] = []

    def get_control(self, _x: Any, _t: Any, cond: Any, _n: int, options: Any) -> None:
        self.seen.append(tuple(cond["c_crossattn"].shape))
        self.options.append(options)


def strangers(world: World) -> Report:
    model, positive, _ = world.apply()
    control = Control()
    controlled = [[text, {**more, "control": control}] for text, more in positive]
    world.predict(model, controlled)
    words = [[torch.randn(1, 77, CONTEXT), {}]]
    both = world.predict(model, words, positive)
    return {
        "control sees": sorted(set(control.seen)),
        "control's attentions": [
            len(o.get("patches_replace", {}).get("attn2", {})) for o in control.options
        ],
        "stranger": difference(
            both[0], world.unet(world.x, 500, words[0][0], return_dict=False)[0]
        ),
        "beside a stranger": difference(both[1], world.predict(model, positive)[0]),
    }


def words(world: World) -> Report:
    """The face word in a second chunk, weighted, beside a negative prompt of one chunk."""
    face = raw_face(world.face)
    model, positive, negative = world.apply(prompt=LONG)
    (index,) = positive[0][1][nodes_key()].face_tokens
    got = world.predict(model, positive, negative)
    text, empty = positive[0][0], negative[0][0]
    return {
        "long prompt": [text.shape[1], empty.shape[1], index],
        "long positive": difference(got[0], world.expected(text, index, world.seen, face)),
        "long negative": difference(
            got[1], world.expected(empty, index % 77, 0 * world.seen, 0 * face)
        ),
        "token": world.clip.tokenize(LONG)["l"][1][index - 77][0],
        "several words": world.apply(
            prompt="her Face, the FACE and a surface of a hat", face_word="face, hat"
        )[1][0][1][nodes_key()].face_tokens,
        "phrase": world.apply(prompt="a pale face. face", face_word="pale face")[1][0][1][
            nodes_key()
        ].face_tokens,
    }


def encoders(world: World) -> Report:
    """CLIP Vision itself instead of its output; plus adapters read all of its states."""
    encoder = comfy.clip_vision.ClipVisionModel(
        {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "num_channels": 3,
            "projection_dim": EMBED, "hidden_act": "gelu", "model_type": "clip_vision_model",
        }
    )  # fmt: skip
    for parameter in encoder.model.parameters():
        parameter.normal_(std=0.2)
    picture = torch.rand(1, 60, 40, 3)
    seen = encoder.encode_image(picture)
    inputs: dict[str, Any] = {"clip_vision_output": None, "source": picture, "clip_vision": encoder}

    def values(side: int, **more: Any) -> Tensor:
        return world.apply(**more)[side][0][1][nodes_key()].values

    plus = TokenAdapter(
        Resampler(32, 1, 8, 4, 6, 32, CONTEXT, 2),
        list(world.vcm.image.to_v),
        list(world.vcm.image.to_k or ()),
    )
    weights = VCMModel("plus", host.managed(VCM(plus, world.vcm.face)), None)
    grey = torch.tensor([0.48145466, 0.4578275, 0.40821073]).expand(1, 28, 28, 3)
    states = [encoder.encode_image(x).penultimate_hidden_states for x in (picture, grey)]
    shown, empty = (plus.key(plus.tokens(x), 0).flatten() for x in states)
    nothing = plus.key(plus.tokens(0 * states[0]), 0).flatten()

    def first_key(packed: Tensor) -> Tensor:
        width = plus.widths[0]  # the face's value comes first
        return packed[0, width : width + len(shown)]

    given = {"vcm": weights, **inputs}
    from_output = {**given, "clip_vision_output": seen, "clip_vision": None, "source": None}
    return {
        "clip vision": difference(values(1, **inputs), values(1, seen=seen.image_embeds)),
        "clip vision, plus": difference(first_key(values(1, **given)), shown),
        "clip vision, plus, negative": difference(first_key(values(2, **given)), empty),
        "plus from an output": difference(first_key(values(2, **from_output)), nothing),
        "crop": difference(values(1, **inputs), values(1, **inputs, crop="none")),
    }


def mistakes(world: World) -> Report:
    """What an artist may plug in by mistake."""
    alone = VCMModel("no face", host.managed(VCM(world.vcm.image)), None)
    small = copy.deepcopy(world.vcm.image)
    small.to_v = small.to_v[:5]
    applied, _, _ = world.apply()
    _, other, _ = world.apply(face_embedding=None, prompt="a shirt")
    tries: dict[str, Any] = {
        "missing word": {"prompt": "a man with a surface"},
        "empty word": {"face_word": " , "},
        "no picture": {"clip_vision_output": None},
        "no encoder": {"clip_vision_output": None, "source": torch.rand(1, 8, 8, 3)},
        "wrong encoder": {"seen": torch.randn(1, EMBED + 1)},
        "no face part": {"vcm": alone},
        "demo's face": {"face_embedding": embedding(world.face.raw, True, "mannequin (demo)")},
        "another UNet": {"vcm": VCMModel("small", host.managed(VCM(small)), None)},
        "applied twice": {"model": applied},
        "empty range": {"start": 0.5, "end": 0.5},
        "bad table": {"blocks": "table", "block_table": "# all\nup_blocks.7 = 1"},
    }
    report: Report = {}
    for name, inputs in tries.items():
        try:
            world.apply(**inputs)
            report[name] = "nothing was said"
        except PoseTransferError as error:
            report[name] = str(error)
    try:
        world.predict(applied, other)
    except PoseTransferError as error:
        report["another's conditioning"] = str(error)
    return report
