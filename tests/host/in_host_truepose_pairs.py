# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: trained pairs of both kinds of files, loaded and used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.samplers
import torch
from diffusers import UNet2DConditionModel
from pose_transfer_pack.nodes import host, truepose_pair
from pose_transfer_pack.nodes import truepose as nodes
from pose_transfer_pack.nodes import truepose_loading as loading
from pose_transfer_pack.pose_transfer.fpdm.unet import pose_added
from pose_transfer_pack.pose_transfer.mannequin import LABELS
from pose_transfer_pack.pose_transfer.truepose import (
    DEFAULT_WEIGHTS,
    context_regions,
    region_crops,
    region_maps,
)
from pose_transfer_pack.pose_transfer.truepose.checkpoint import load_pair
from pose_transfer_pack.pose_transfer.truepose.siamese import PairRegions, SiamesePair
from pose_transfer_pack.pose_transfer.types import Parsing
from safetensors.torch import load_file
from torch import Tensor

Report = dict[str, Any]
T = 700


@torch.inference_mode()
def check(leffa_path: str, demo_path: str, own_path: str) -> Report:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    host.say = lambda _node_id, _text: None
    nodes.SourceFeaturesNode.hidden = type("Hidden", (), {"unique_id": None})()
    return {
        **offered(Path(demo_path)), **leffa(Path(leffa_path)), **demo(Path(demo_path)),
        **own(Path(own_path)),
    }  # fmt: skip


def offered(demo_path: Path) -> Report:
    """What the loader lists, with the demo's pair and without, with a file and without."""
    node: Any = truepose_pair.LoadTruePose
    report: Report = {}
    for name, weights in {"with": demo_path, "without": demo_path.with_name("nowhere")}.items():
        truepose_pair.TRUEPOSE_WEIGHTS = weights
        report[f"{name} demo"] = node.define_schema().inputs[0].options
        report[f"{name} demo said"] = node.validate_inputs(truepose_pair.DEMO)
    report["no pair said"] = node.validate_inputs(truepose_pair.NO_PAIR)
    (folder, *_) = host.model_folders(host.TRUEPOSE_FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.safetensors").touch()
    schema = node.define_schema().inputs[0]
    report["a file"] = [schema.options, schema.default, node.validate_inputs("mine.safetensors")]
    return report


def one_call(model: Any, positive: Any, negative: Any, x: Tensor) -> dict[int, Tensor]:
    """The UNet's outputs in one call: by the host's number of the prediction."""
    outputs: dict[int, Tensor] = {}

    class Once:
        def sample(self, guider: Any, _sigmas: Any, extra: dict[str, Any], *_: Any) -> Tensor:
            sampling = guider.inner_model.model_sampling
            s = sampling.sigma(torch.tensor([float(T)]))
            noisy = x * (s**2 + 1) ** 0.5

            def watch(apply: Any, call: dict[str, Any]) -> Tensor:
                out = apply(call["input"], call["timestep"], **call["c"])
                kinds = call["cond_or_uncond"]
                for kind, part in zip(kinds, out.chunk(len(kinds)), strict=True):
                    outputs[kind] = (noisy - part) / s  # the noise, in epsilon models
                return out

            options = {**extra["model_options"], "model_function_wrapper": watch}
            guider(noisy, s, model_options=options, seed=0)
            return x

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(3.0)
    guider.sample(torch.zeros_like(x), torch.zeros_like(x), Once(), torch.tensor([1.0, 0.0]))
    return outputs


def person() -> tuple[Tensor, Parsing]:
    labels = torch.zeros(1, 128, 128, dtype=torch.uint8)
    labels[:, 16:80, 20:60] = 3
    return torch.rand(1, 128, 128, 3), Parsing(labels.numpy(), LABELS)


def guided(model: Any, features: Any, **weights: Any) -> Any:
    settings = {
        "blocks": "all", "strength": 1.0, "start": 0.0, "end": 1.0, "correspondence": 0.0,
        "record": False, **DEFAULT_WEIGHTS, **weights,
    }  # fmt: skip
    return nodes.GuideAttention.execute(model, features, **settings).result[0]


def diffusers_net(tensors: dict[str, Tensor], prefix: str, channels: int) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        in_channels=channels, block_out_channels=(32, 64, 64, 64), layers_per_block=2,
        cross_attention_dim=8, attention_head_dim=8,
    ).eval()  # fmt: skip
    for module in unet.modules():
        if hasattr(module, "attn2"):
            module.register_module("attn2", None)
            module.register_module("norm2", None)
    named = {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
    unet.load_state_dict(named)
    return unet


def leffa(path: Path) -> Report:
    tensors = load_file(path)
    pair = loading.load(path)
    source, parsing = person()
    densepose, x = torch.rand(1, 128, 128, 3), torch.randn(1, 4, 16, 16)
    model, positive, negative, told, latent = truepose_pair.ApplyTruePose.execute(
        pair.target, pair.networks, source, densepose
    ).result
    features = nodes.SourceFeaturesNode.execute(
        pair.source, pair.vae, source, parsing, nodes.CLEAN, told
    ).result[0]

    reference = diffusers_net(tensors, "unet_encoder.", 4)
    seen: dict[str, Tensor] = {}
    for name, module in reference.named_modules():
        if name.endswith("attn1"):
            module.register_forward_pre_hook(
                lambda _m, args, kwargs, name=name: seen.update({name: args[0]}), with_kwargs=True
            )
    clean = pair.source.model.process_latent_in(pair.vae.encode(source))
    reference(clean, torch.tensor(500), None)
    first = seen["down_blocks.0.attentions.0.transformer_blocks.0.attn1"]
    middle = seen["mid_block.attentions.0.transformer_blocks.0.attn1"]

    generative = diffusers_net(tensors, "unet.", 12)
    concat = positive[0][1]["noise_concat"]
    plain = generative(torch.cat([x, concat], 1), torch.tensor(T), None, return_dict=False)[0]
    without = one_call(model, positive, negative, x)
    both = one_call(guided(model, features, background=1.0), positive, negative, x)
    return {
        "leffa loaded once": loading.load(path) is pair,
        "leffa latent": list(latent["samples"].shape),
        "leffa extra channels": list(concat.shape),
        "leffa mask": [float(concat[:, 0].min()), float(concat[:, 0].max())],
        "leffa first block": difference(features.hidden["input", 1, 0], first),
        "leffa middle block": difference(features.hidden["middle", 0, 0], middle),
        "leffa blocks": [len(features.hidden), len(features.empty), len(seen)],
        "leffa plain": difference(without[0], plain),
        "leffa guided": difference(both[0], without[0]),
        "leffa unconditional": difference(both[1], without[1]),
        "leffa branches differ": difference(both[0], both[1]),
    }


def demo(path: Path) -> Report:
    pair = loading._load_demo(path)
    source, parsing = person()
    pose_map = torch.rand(1, 128, 128, 3)
    model, positive, negative, told, latent = truepose_pair.ApplyTruePose.execute(
        pair.target, pair.networks, source, pose_map
    ).result
    features = nodes.SourceFeaturesNode.execute(
        pair.source, pair.vae, source, parsing, nodes.CLEAN, told
    ).result[0]
    x = torch.randn(latent["samples"].shape)
    out = one_call(guided(model, features), positive, negative, x)
    alone = one_call(model, positive, negative, x)
    other = truepose_pair.ApplyTruePose.execute(
        pair.target, pair.networks, source, pose_map.flip(2)
    ).result
    posed = truepose_pair.ApplyTruePose.execute(
        pair.target, pair.networks, source, pose_map, None, pose_map.flip(1)
    ).result
    look = nodes.SourceFeaturesNode.execute(
        pair.source, pair.vae, source, parsing, nodes.CLEAN, posed[3]
    ).result[0]
    return {
        "demo source posed": difference(look.hidden["input", 1, 0], features.hidden["input", 1, 0]),
        "demo target untouched": difference(one_call(posed[0], posed[1], posed[2], x)[0], alone[0]),
        "demo shared": pair.source.model is pair.target.model,
        "demo tokens": list(positive[0][0].shape),
        "demo zeros": float(negative[0][0].abs().max()),
        "demo told": difference(told[0][0], positive[0][0]),
        "demo latent": list(latent["samples"].shape),
        "demo guided": difference(out[0], alone[0]),
        "demo unconditional": difference(out[1], alone[1]),
        "demo pose": difference(one_call(other[0], other[1], other[2], x)[0], alone[0]),
        "clip refused": refused(pair, source, pose_map),
    }


class Clip:
    """A CLIP Vision that knows a picture by its colours, 16 numbers."""

    def encode_image(self, pictures: Tensor, crop: bool) -> Any:
        assert not crop, "training stretches"
        flat = pictures.flatten(1, 2)
        seen = torch.cat([flat.mean(1), flat.std(1), flat.amax(1), flat.amin(1)], dim=1)
        return type("Output", (), {"image_embeds": torch.cat([seen, seen[:, :4]], dim=1)})()


def own(path: Path) -> Report:
    """A pair that a user trained, with a SourceNet of its own, told by CLIP and by region."""
    pair, file, clip = loading.load(path), load_pair(path), Clip()
    source, parsing = person()
    pose_map, source_pose_map = torch.rand(2, 1, 128, 128, 3)
    x = torch.randn(1, 4, 16, 16)
    seen = clip.encode_image(source, crop=False)

    def told(by_region: bool) -> Any:
        more = (parsing, clip) if by_region else ()
        given = pair.target, pair.networks, source, pose_map, seen, source_pose_map, *more
        return truepose_pair.ApplyTruePose.execute(*given).result

    def drawn(model: Any, positive: Any, negative: Any, look: Any) -> dict[int, Tensor]:
        return one_call(
            guided(model, look, correspondence=1.0, target_parsing=parsing), positive, negative, x
        )

    def looked(conditioning: Any, **more: Any) -> Any:
        given = pair.source, pair.vae, source, parsing, nodes.CLEAN, conditioning
        return nodes.SourceFeaturesNode.execute(*given, **more).result[0]

    report: Report = {"own vae": list(pair.vae.encode(source).shape)}
    nets = [UNet2DConditionModel(**file.config["unet"]).eval() for _ in range(2)]
    for net, tensors in zip(nets, (file.target, file.source), strict=True):
        net.load_state_dict(tensors)
    library = SiamesePair(*nets)
    networks = pair.networks.patcher.model
    features = [networks.pose_encoder(m.movedim(-1, 1)) for m in (pose_map, source_pose_map)]
    clean = pair.source.model.process_latent_in(pair.vae.encode(source))
    maps, one = region_maps(parsing), torch.ones(1)
    predictions = []
    for by_region in (False, True):
        pictures = [source, *(region_crops(source, maps[0]) if by_region else ())]
        embeds = [clip.encode_image(p, crop=False).image_embeds for p in pictures]
        tokens = torch.cat([networks.image_tokens(e) for e in embeds], dim=1)
        owners = context_regions(networks.image_tokens.tokens) if by_region else None
        regions = PairRegions(maps, maps, one, one, context=owners)
        with pose_added(nets[1], features[1]):
            look = library.look(clean, tokens, regions)
        with pose_added(nets[0], features[0]):
            wanted, _ = library.predict(x, torch.tensor([T]), tokens, look, regions)
        model, positive, negative, conditioning, _ = told(by_region)
        seen_by_host = looked(conditioning)
        out = drawn(model, positive, negative, seen_by_host)
        name = "own, by region" if by_region else "own"
        report[name] = difference(out[0], wanted)
        report[f"{name}: look"] = difference(seen_by_host.hidden["input", 1, 0], look.hidden[0])
        last = list(seen_by_host.hidden)[-1]
        # diffusers counts its middle block behind the last of the second half
        report[f"{name}: last look"] = difference(seen_by_host.hidden[last], look.hidden[2])
        report[f"{name}: tokens"] = positive[0][0].shape[1]
        report[f"{name}: unconditional"] = difference(
            out[1], one_call(model, positive, negative, x)[1]
        )
        report[f"{name}: prediction"] = out[0].abs().mean().item()
        predictions.append(out[0])
    report["regions matter"] = difference(*predictions)
    _, _, _, conditioning, _ = told(False)
    wrong = [[torch.zeros_like(conditioning[0][0]), conditioning[0][1]]]
    by_clip, by_tokens, by_nothing = (
        looked(wrong, clip_vision_output=seen), looked(conditioning), looked(wrong)
    )  # fmt: skip
    block = list(by_clip.hidden)[-1]
    report["clip in source features"] = difference(by_clip.hidden[block], by_tokens.hidden[block])
    report["clip matters"] = difference(by_nothing.hidden[block], by_tokens.hidden[block])
    for name, call in {
        "no projection": lambda: nodes.SourceFeaturesNode.execute(
            pair.target, pair.vae, source, parsing, nodes.CLEAN, None, seen
        ),
        "no clip": lambda: truepose_pair.ApplyTruePose.execute(
            pair.target, pair.networks, source, pose_map, None, None, parsing
        ),
    }.items():
        try:
            call()
        except ValueError as error:
            report[name] = str(error)
    return report


def refused(pair: Any, source: Tensor, pose_map: Tensor) -> str:
    wide = type("Output", (), {"image_embeds": torch.rand(1, 1024)})()
    try:
        truepose_pair.ApplyTruePose.execute(pair.target, pair.networks, source, pose_map, wide)
    except ValueError as error:
        return str(error)
    return ""


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()
