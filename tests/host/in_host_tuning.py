# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: tuning of tiny models, and what it leaves behind."""

from __future__ import annotations

import logging
import runpy
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import comfy.model_management as mm
import comfy.sd
import comfy.utils
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from pose_transfer_pack.nodes.oneposetrans import ApplyLoRA
from pose_transfer_pack.nodes.patches import control, lora, tuning
from pose_transfer_pack.nodes.patches.tuning_sampler import HostSampling
from pose_transfer_pack.pose_transfer import cpu_linear
from pose_transfer_pack.pose_transfer.errors import PoseTransferError
from pose_transfer_pack.pose_transfer.oneposetrans import cache
from pose_transfer_pack.pose_transfer.oneposetrans.settings import TuningSettings
from safetensors.torch import save_file
from torch import Tensor

Report = dict[str, Any]
host_nodes: Any = import_module("nodes")  # a name that this pack has, too
tiny = runpy.run_path(str(Path(__file__).with_name("in_host_tiny_models.py")))


@torch.inference_mode()
def check(folder: str) -> Report:
    torch.set_num_threads(1)  # tiny tensors; threads only wait for each other
    report: Report = {}
    for kind in ("sd15", "sd21", "sdxl", "sd3"):
        made = tiny["tiny_sd3"]() if kind == "sd3" else tiny["tiny_unet"](kind)
        report[kind] = kinds(made, Path(folder, kind))
        if kind == "sd15":
            report |= ends(made) | cached(made) | controlled(made) | refused(made)
    return report


def job(made: Any, steps: int = 3, seed: int = 0, **options: Any) -> Any:
    photo = torch.rand(1, 80, 64, 3, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 80, 64)
    mask[:, 16:64, 16:48] = 1.0
    values = {"steps": steps, "rank": 4, "alpha": 4.0, "resolution": 64, "seed": seed}
    values |= options.pop("settings", {})
    settings = TuningSettings(**values)
    caption = options.pop("caption", tuning.EncodedCaption(made.conditioning))
    model = options.pop("model", made.model)
    return tuning.Job(model, made.vae, caption, photo, mask, settings, **options)


def kinds(made: Any, folder: Path) -> Report:
    """One kind of model: what is learnt is read by the host's loader, by ours, by diffusers."""
    before, random = State(made.model), torch.get_rng_state()
    tuned, _ = tuning._tune(job(made))
    unchanged = before.same(made.model)
    untouched = torch.equal(random, torch.get_rng_state())
    again, _ = tuning._tune(job(made))
    onednn = mock.Mock(side_effect=cpu_linear._find_product() or by_pytorch)
    with mock.patch.multiple(cpu_linear, _find_product=lambda: onednn, WORTH=1):
        other, _ = tuning._tune(job(made, seed=1))

    channels = tuned_channels(made)
    x = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([700.0, 20.0])

    def predict(model: Any) -> Tensor:
        return tiny["predict"](model, x, t, twice(made.conditioning))

    plain = predict(made.model)
    ours = predict(lora.apply_lora(made.model, tuned.tensors, "uniform", "", 1.0))
    stock, _ = comfy.sd.load_lora_for_models(made.model, None, dict(tuned.tensors), 1.0, 0.0)
    path = cache.save(folder, "tuned", tuned)
    from_file, _ = comfy.sd.load_lora_for_models(
        made.model, None, comfy.utils.load_torch_file(str(path)), 1.0, 0.0
    )
    report: Report = {
        "unchanged": unchanged,
        "random numbers untouched": untouched,
        "same seed": same(tuned.tensors, again.tensors),
        "products by oneDNN": onednn.call_count,
        "same loss": tuned.loss == again.loss,
        "other seed": same(tuned.tensors, other.tensors),
        "losses": list(tuned.loss),
        "previews": list(tuned.previews.shape),
        "learnt": difference(ours, plain),
        "stock loader": difference(predict(stock), ours),
        "stock loader from file": difference(predict(from_file), ours),
        "layers": len(tuned.tensors) // 3,
        "attentions": sorted({name.rsplit(".", 2)[0][-5:] for name in tuned.tensors}),
        "gain": gain(made.model),
        "first block": min(layer.block for layer in lora.attention_layers(made.model).values()),
    }
    if made.twin is not None:
        report |= diffusers_twin(made, path, plain, ours, x, t)
    else:
        try:
            lora.apply_lora(made.model, tuned.tensors, "style injection", "", 1.0)
        except PoseTransferError as error:
            report["no injection"] = str(error)
    return report


def by_pytorch(x: Tensor, weight: Tensor, bias: Tensor | None, *_: Any) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)  # where PyTorch has no oneDNN


def diffusers_twin(
    made: Any, path: Path, plain: Tensor, ours: Tensor, x: Tensor, t: Tensor
) -> Report:
    """diffusers with the same file; and a file that diffusers wrote, through our node."""
    sdxl = made.twin.config.addition_embed_type is not None
    pipeline = StableDiffusionXLPipeline if sdxl else StableDiffusionPipeline
    ((tokens, settings),) = twice(made.conditioning)
    added = {}
    if sdxl:
        ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
        added = {"added_cond_kwargs": {"text_embeds": settings["pooled_output"], "time_ids": ids}}

    def predict() -> Tensor:
        with torch.no_grad():
            return made.twin(x, t, tokens, return_dict=False, **added)[0]

    report = {"twin": difference(predict(), plain)}
    extra = {"unet_config": made.twin.config} if sdxl else {}
    with torch.inference_mode(False):
        state, alphas = pipeline.lora_state_dict(str(path.parent), weight_name=path.name, **extra)[
            :2
        ]
        pipeline.load_lora_into_unet(state, alphas, made.twin)
    report["diffusers"] = difference(predict(), ours)

    name = "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_v"
    name = name if sdxl else name.replace("up_blocks.0", "up_blocks.1")
    width_out, width_in = made.twin.get_submodule(name).weight.shape
    generator = torch.Generator().manual_seed(5)
    written = {
        f"unet.{name}.lora.down.weight": torch.randn(4, width_in, generator=generator),
        f"unet.{name}.lora.up.weight": torch.randn(width_out, 4, generator=generator),
    }
    theirs = path.with_name("diffusers.safetensors")
    save_file(written, theirs)
    read = comfy.utils.load_torch_file(str(theirs))
    (model,) = ApplyLoRA.execute(
        made.model, "(from the input 'lora')", "uniform", 0.5, "", read
    ).result
    got = tiny["predict"](model, x, t, twice(made.conditioning))
    made.twin.unload_lora()
    weight = made.twin.get_submodule(name).weight
    up, down = (written[f"unet.{name}.lora.{side}.weight"] for side in ("up", "down"))
    weight.add_(0.5 * up @ down)
    return report | {
        "diffusers' file": difference(got, predict()),
        "its effect": difference(got, plain),
    }


def ends(made: Any) -> Report:
    """However tuning ends, the model is as it was; memory that runs out is asked for less."""
    report: Report = {}
    before = State(made.model)

    def calls_until(step: int, error: Callable[[], None]) -> tuple[Any, list[int]]:
        sizes: list[int] = []

        def wrapper(apply: Any, call: dict[str, Any]) -> Tensor:
            sizes.append(len(call["input"]))
            if len(sizes) == step:
                error()
            return apply(call["input"], call["timestep"], **call["c"])

        model = made.model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return model, sizes

    model, sizes = calls_until(2, mm.interrupt_current_processing)
    try:
        tuning._tune(job(made, steps=50, model=model))
        report["cancelled"] = "never"
    except mm.InterruptProcessingException:
        report["cancelled"] = len(sizes)
    report["unchanged after cancel"] = before.same(made.model)

    def fail() -> None:
        raise ValueError("a patch fails")

    model, _ = calls_until(2, fail)
    try:
        tuning._tune(job(made, model=model))
    except ValueError as error:
        report["error"] = str(error)
    report["unchanged after error"] = before.same(made.model)

    def exhaust() -> None:
        raise torch.OutOfMemoryError("no memory")

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    model, sizes = calls_until(2, exhaust)
    retried, _ = tuning._tune(job(made, model=model, settings={"batch": 4}))
    logging.getLogger().removeHandler(handler)
    plain, _ = tuning._tune(job(made, settings={"batch": 4}))
    report["batches"] = sizes[:8]
    report["said"] = any("out of memory" in line for line in lines)
    report["retried"] = max(
        difference(retried.tensors[name].float(), plain.tensors[name].float())
        for name in plain.tensors
    )
    report["unchanged after memory"] = before.same(made.model)
    return report


def cached(made: Any) -> Report:
    """The second time nothing is computed; a change of anything is another LoRA."""
    first, said = tuning.tune_or_load(job(made))
    calls: list[int] = []
    model = made.model
    previous = model.model.apply_model
    model.model.apply_model = lambda *a, **k: [calls.append(1), previous(*a, **k)][1]
    second, found = tuning.tune_or_load(job(made))
    del model.model.apply_model
    patched = model.clone()
    patched.add_patches({"diffusion_model.out.2.weight": (torch.ones(4, 64, 3, 3),)}, 0.5)
    wrapped = model.clone()
    wrapped.set_model_attn1_patch(lambda n, context, value, options: (n, context, value))
    keys = [
        job(made).key(), job(made, steps=4).key(), job(made, seed=1).key(),
        job(made, model=patched).key(), job(made, model=wrapped).key(),
        job(made, settings={"blocks": ("up_blocks",)}).key(),
    ]  # fmt: skip
    return {
        "report": said,
        "found": found,
        "cached calls": len(calls),
        "cached same": same(first.tensors, second.tensors) and first.loss == second.loss,
        "keys": len(set(keys)),
        "key again": job(made).key() == keys[0] == job(made, model=model.clone()).key(),
        "patched": patched_key_stays(model, lambda other: job(made, model=other).key()),
    }


def patched_key_stays(model: Any, key_of: Callable[[Any], str]) -> list[bool]:
    """What a patch holds of the MODEL is no other thing when the MODEL is loaded, or cloned."""
    found = []
    for number in (1.0, 2.0):
        patched = model.clone()
        patched.add_object_patch("extra_conds", Scaled(patched.model.extra_conds, number))
        mm.free_memory(1e30, model.load_device)
        key = key_of(patched)
        mm.load_models_gpu([patched])
        found += [key_of(patched) == key, key_of(patched.clone()) == key]
    mm.free_memory(1e30, model.load_device)
    return [*found, key != key_of(model)]


class Scaled:
    """A patch that wraps a method of the MODEL."""

    def __init__(self, previous: Callable[..., Any], factor: float) -> None:
        self.previous, self.factor = previous, factor

    def __call__(self, **kwargs: Any) -> Any:
        return self.previous(**kwargs)


def controlled(made: Any) -> Report:
    """A ControlNet in the caption acts in every step and in previews, where it is asked for."""
    torch.manual_seed(5)
    encoder = torch.nn.Conv2d(3, made.model.model.model_config.unet_config["model_channels"], 8, 8)
    calls: list[int] = []
    encoder.register_forward_hook(lambda _m, inputs, _y: calls.append(len(inputs[0])))
    net = control.pose_control(encoder)

    def caption(hint: float, keep: bool = True) -> tuning.EncodedCaption:
        pose_map = torch.full((1, 80, 64, 3), hint)
        positive, _ = host_nodes.ControlNetApplyAdvanced().apply_controlnet(
            made.conditioning, made.conditioning, net, pose_map, 1.0, 0.0, 1.0
        )
        return tuning.EncodedCaption(positive, keep)

    whole = {"whole_photo": True}
    plain = job(made, settings=whole)
    told = job(made, settings=whole, caption=caption(0.5), preview_every=2)
    key, before = told.key(), State(made.model)
    tuned, _ = tuning._tune(told)
    encoded = len(calls)
    ignored, _ = tuning._tune(job(made, settings=whole, caption=caption(0.5, keep=False)))
    return {
        "control encoded": encoded,
        "control matters": difference_of(tuned.tensors, tuning._tune(plain)[0].tensors),
        "control ignored": same(ignored.tensors, tuning._tune(plain)[0].tensors),
        "control keys": len(
            {
                plain.key(),
                key,
                job(made, settings=whole, caption=caption(0.4), preview_every=2).key(),
            }
        ),
        "control key again": told.key() == key,
        "control leaves": before.same(made.model),
    }


def refused(made: Any) -> Report:
    """What cannot work is said before anything is computed."""
    said: Report = {}
    tuned, _ = tuning.tune_or_load(job(made))
    only, _ = tuning._tune(job(made, settings={"blocks": ("up_blocks.1",)}))
    said["only"] = sorted({name.split("_attentions")[0] for name in only.tensors})
    twisted = {name: torch.ones(9, 9) for name in tuned.tensors if not name.endswith("alpha")}
    for name, attempt in {
        "unknown block": lambda: tuning._tune(job(made, settings={"blocks": ("sideways",)})),
        "wrong vae": lambda: tuning._tune(
            tuning.dataclasses.replace(job(made), vae=tiny["tiny_vae"](8))
        ),
        "two captions": lambda: tuning.EncodedCaption(made.conditioning * 2).encode(),
        "strange lora": lambda: lora.apply_lora(made.model, {"x": torch.ones(1)}, "uniform", "", 1),
        "wrong lora": lambda: lora.apply_lora(made.model, twisted, "uniform", "", 1),
        "no lora": lambda: ApplyLoRA.execute(
            made.model, "(from the input 'lora')", "uniform", 1.0, ""
        ),
    }.items():
        try:
            attempt()
            said[name] = "accepted"
        except PoseTransferError as error:
            said[name] = str(error)
    weights = {
        patch[0]
        for patches in lora.apply_lora(
            made.model, tuned.tensors, "style injection", "", 2.0
        ).patches.values()
        for patch in patches
    }
    return said | {"injection": sorted(weights)}


class State:
    """All that tuning could change about a MODEL: the very tensors, hooks, patches."""

    def __init__(self, patcher: Any) -> None:
        self.tensors = dict(patcher.model.named_parameters()) | dict(patcher.model.named_buffers())
        self.copies = {name: tensor.clone() for name, tensor in self.tensors.items()}
        self.flags = {name: tensor.requires_grad for name, tensor in self.tensors.items()}
        self.rest = self._rest(patcher)

    def _rest(self, patcher: Any) -> list[Any]:
        return [
            dict(patcher.patches), dict(patcher.object_patches), repr(patcher.model_options),
            repr(patcher.wrappers), repr(patcher.injections), dict(patcher.attachments),
            sum(len(m._forward_hooks) for m in patcher.model.modules()),
            [m.training for m in patcher.model.modules()],
            patcher.model.current_weight_patches_uuid in (None, patcher.patches_uuid),
            mm.in_training,
        ]  # fmt: skip

    def same(self, patcher: Any) -> bool:
        now = dict(patcher.model.named_parameters()) | dict(patcher.model.named_buffers())
        return (
            now.keys() == self.tensors.keys()
            and all(now[name] is tensor for name, tensor in self.tensors.items())
            and all(torch.equal(now[name], copy) for name, copy in self.copies.items())
            and all(now[name].requires_grad == flag for name, flag in self.flags.items())
            and self._rest(patcher) == self.rest
        )


def gain(model: Any) -> float:
    """The host's sampling object against the formula of its kind, largest difference."""
    sampling = model.get_model_object("model_sampling")
    sigma = sampling.sigmas[torch.tensor([10, 500, 990])]
    velocity = model.model.model_type.name == "V_PREDICTION"
    expected = -sigma / (sigma**2 + 1) ** 0.5 if velocity else -sigma
    return difference(HostSampling(sampling).gain(sigma), expected)


def tuned_channels(made: Any) -> int:
    return made.model.get_model_object("latent_format").latent_channels


def twice(conditioning: list[Any]) -> list[Any]:
    ((tokens, settings),) = conditioning
    return [[tokens.repeat(2, 1, 1), {"pooled_output": settings["pooled_output"].repeat(2, 1)}]]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def difference_of(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(difference(one[name], other[name]) for name in one)


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()
