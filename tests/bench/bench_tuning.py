# SPDX-License-Identifier: GPL-3.0-or-later
"""What one-shot tuning costs, against the reference's schedule and the host's own Train LoRA.

    COMFYUI_PATH=... python tests/bench/bench_tuning.py [--width 160] [--resolution 256]
    COMFYUI_PATH=... python tests/bench/bench_tuning.py --sdxl --gpu

All three tune a UNet of Stable Diffusion 1.5's shape whose first level is `--width` channels wide,
with heads as wide as there and accordingly fewer, at the same batch (2), rank (32) and resolution,
in float32 on one thread of the CPU, each in a process of its own. What counts is CPU time, which
other programs on the machine disturb less. With `--sdxl` the shape is Stable Diffusion XL's, with
`--gpu` the work is done there in bfloat16, at full width and 512 px if nothing else is said; then
the clock counts, and the memory is the GPU's.

- reference: OnePoseTrans's schedule written anew with diffusers and peft: LoRA on the attention
  projections, the photo cropped and encoded by the autoencoder (as much narrower) at every step;
- host: Train LoRA in its fastest setting: latents given, bypass mode, no checkpointing;
- ours: Tune LoRA with its encoding, and the last preview cut to one step, for the others make none.

A short and a longer run give the time of a step and of what comes before and after; the table shows
60 steps by that. Ends with status 1 where a budget of design.md section 8 is exceeded; that in
seconds is for an H200.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUDGETS = {"reference": 0.6, "host": 0.8}
SDXL_GPU_BUDGET = 6.0  # seconds for 60 steps
CONTENDERS = ("reference", "host", "ours")
STEPS, SHORT = 60, 1
LONG, LONG_ON_GPU = 4, 31
BATCH, RANK = 2, 32
CONTEXT = {"sd15": 768, "sdxl": 2048}
POOLED, ADDED = 1280, 2816  # of Stable Diffusion XL: the pooled caption, with the sizes beside it
ROOT = Path(__file__).resolve().parents[2]


def unet_config(kind: str, width: int) -> dict[str, Any]:
    """diffusers' settings of Stable Diffusion 1.5's or XL's UNet; both are 320 wide."""
    if kind == "sd15":
        return {
            "block_out_channels": (width, 2 * width, 4 * width, 4 * width),
            "cross_attention_dim": CONTEXT[kind], "attention_head_dim": max(width // 40, 1),
        }  # fmt: skip
    return {
        "block_out_channels": (width, 2 * width, 4 * width),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": tuple(max(width // 64, 1) * level for level in (1, 2, 4)),
        "transformer_layers_per_block": (1, 2, 10), "cross_attention_dim": CONTEXT[kind],
        "use_linear_projection": True, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": ADDED,
    }  # fmt: skip


def measure(contender: str, kind: str, width: int, side: int, gpu: bool) -> dict[str, float]:
    """Runs inside the host's process; seconds per step and for 60 of them, peak memory in MB."""
    import torch
    from autoencoders import build_autoencoder
    from diffusers import UNet2DConditionModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**unet_config(kind, width)).requires_grad_(False)
    # Stable Diffusion's is 128 wide, in multiples of what group normalisation needs.
    vae_width = max(round(128 * width / 320 / 32), 1) * 32
    vae_widths = (vae_width, 2 * vae_width, 4 * vae_width, 4 * vae_width)
    vae = build_autoencoder(*vae_widths, layers_per_block=2, latent_channels=4)
    vae.requires_grad_(False)
    if gpu:
        unet, vae = unet.bfloat16(), vae.bfloat16()
    photo, text = torch.rand(1, side * 5 // 4, side, 3), torch.randn(1, 77, CONTEXT[kind])

    def clock() -> float:
        if not gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    makers = {"reference": reference, "host": train_lora, "ours": tune_lora}
    run = makers[contender](unet, vae, photo, text, side)
    del unet, vae  # the host has copies of its own
    run(1)  # warm
    seconds = []
    long = LONG_ON_GPU if gpu else LONG
    for steps in (SHORT, long):
        start = clock()
        run(steps)
        seconds.append(clock() - start)
    step = (seconds[1] - seconds[0]) / (long - SHORT)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if gpu:
        memory = torch.cuda.max_memory_allocated() / 2**20
    return {"step": step, "total": seconds[0] + (STEPS - SHORT) * step, "memory": memory}


def reference(unet: Any, vae: Any, photo: Any, text: Any, side: int) -> Callable[[int], None]:
    import comfy.model_management as mm
    import torch
    from diffusers import DDPMScheduler
    from peft import LoraConfig

    device, dtype = mm.get_torch_device(), unet.dtype
    unet.add_adapter(
        LoraConfig(
            r=RANK, lora_alpha=RANK, init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )  # fmt: skip
    unet.to(device)
    vae.to(device)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    trained = [weight for weight in unet.parameters() if weight.requires_grad]
    for weight in trained:
        weight.data = weight.data.float()
    pixels = (photo.movedim(-1, 1) * 2 - 1).to(device, dtype)
    caption = text.expand(BATCH, -1, -1).to(device, dtype)
    added = None
    if unet.config.addition_embed_type is not None:
        sizes = torch.tensor([[side, side, 0, 0, side, side]] * BATCH, device=device)
        pooled = torch.randn(BATCH, POOLED).to(device, dtype)
        added = {"text_embeds": pooled, "time_ids": sizes.to(dtype)}

    def run(steps: int) -> None:
        optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=1e-2)
        for _ in range(steps):
            top = int(torch.randint(pixels.shape[2] - side + 1, ()))
            crops = pixels[:, :, top : top + side].expand(BATCH, -1, -1, -1)
            latents = vae.encode(crops).latent_dist.sample() * 0.18215
            noise = torch.randn_like(latents)
            t: Any = torch.randint(0, 1000, (BATCH,), device=device)  # diffusers: IntTensor
            noisy = scheduler.add_noise(latents, noise, t)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                predicted = unet(noisy, t, caption, added_cond_kwargs=added, return_dict=False)[0]
            torch.nn.functional.mse_loss(predicted.float(), noise.float()).backward()
            optimiser.step()
            optimiser.zero_grad()

    return run


def build_host_model(state: Any, config: Any, disable_dynamic: bool = False) -> Any:
    """The host's MODEL of a diffusers UNet, in the precision that its tensors have."""
    import comfy.model_management as mm
    import comfy.model_patcher
    import comfy.supported_models
    from in_host_unets import build_host_unet
    from pose_transfer_pack.nodes import stock_models

    dtype = next(iter(state.values())).dtype
    if config.addition_embed_type is None:
        return stock_models.build_model(
            state, config, prediction="epsilon", dtypes=(dtype,), disable_dynamic=disable_dynamic,
            latent_format=stock_models.LatentFormat(0.18215, 4),
        )  # fmt: skip
    model = build_host_unet(comfy.supported_models.SDXL, state, config, dtype)
    return comfy.model_patcher.ModelPatcher(
        model, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
    )


def conditioning(text: Any) -> list[Any]:
    import torch

    return [[text, {"pooled_output": torch.randn(1, POOLED)}]]


def train_lora(unet: Any, vae: Any, photo: Any, text: Any, side: int) -> Callable[[int], None]:
    import torch
    from comfy_extras.nodes_train import TrainLoraNode

    dtype = "fp32" if unet.dtype == torch.float32 else "bf16"
    model = build_host_model(unet.state_dict(), unet.config)
    # The node loads the model anew, by what a loader node would have left here.
    model.cached_patcher_init = (build_host_model, (unet.state_dict(), unet.config))
    latents = [{"samples": torch.randn(BATCH, 4, side // 8, side // 8)}]
    options = {
        "batch_size": BATCH, "grad_accumulation_steps": 1, "learning_rate": 1e-3, "rank": RANK,
        "optimizer": "AdamW", "loss_function": "MSE", "seed": 0, "training_dtype": dtype,
        "lora_dtype": "fp32", "quantized_backward": False, "algorithm": "LoRA",
        "gradient_checkpointing": False, "checkpoint_depth": 1, "offloading": False,
        "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": True,
    }  # fmt: skip
    inputs = {name: [value] for name, value in options.items()}

    def run(steps: int) -> None:
        with torch.inference_mode():
            TrainLoraNode.execute(
                model=[model], latents=latents, positive=[conditioning(text)], steps=[steps],
                **inputs,
            )  # fmt: skip

    return run


def tune_lora(unet: Any, vae: Any, photo: Any, text: Any, side: int) -> Callable[[int], None]:
    import torch
    from pose_transfer_pack.nodes import stock_models
    from pose_transfer_pack.nodes.patches import tuning, tuning_sampler
    from pose_transfer_pack.pose_transfer.oneposetrans.settings import TuningSettings

    tuning_sampler.PREVIEW_STEPS = 1
    model = build_host_model(unet.state_dict(), unet.config)
    stock_vae = stock_models.build_vae(vae.state_dict(), vae.config)

    def run(steps: int) -> None:
        settings = TuningSettings(steps=steps, rank=RANK, batch=BATCH, resolution=side)
        caption = tuning.EncodedCaption(conditioning(text))
        with torch.inference_mode():
            tuning._tune(tuning.Job(model, stock_vae, caption, photo, None, settings))

    return run


def in_host(options: argparse.Namespace, comfyui: str) -> None:
    base = ROOT / "build" / "bench"
    base.mkdir(parents=True, exist_ok=True)
    os.chdir(comfyui)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "host")]
    start = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["IN_HOST"]
    start = start.format(comfyui=comfyui, pack=str(ROOT), base=str(base))
    exec(start.replace('"--cpu", ', "") if options.gpu else start, {})
    kind = "sdxl" if options.sdxl else "sd15"
    print(
        json.dumps(measure(options.contender, kind, options.width, options.resolution, options.gpu))
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, help="channels: 320 as published, 160 on a CPU")
    parser.add_argument("--resolution", type=int, help="px: 512 as published, 256 on a CPU")
    parser.add_argument("--sdxl", action="store_true", help="Stable Diffusion XL's shape")
    parser.add_argument("--gpu", action="store_true", help="on the GPU, in bfloat16")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--contender", choices=CONTENDERS, help="one of them, in this process")
    options = parser.parse_args()
    options.width = options.width or (320 if options.gpu else 160)
    options.resolution = options.resolution or (512 if options.gpu else 256)
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        parser.error("COMFYUI_PATH is not set: run it by `make bench`")
    if options.contender:
        in_host(options, comfyui)
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.repeat):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--contender", name]
            command += ["--width", str(options.width), "--resolution", str(options.resolution)]
            command += [f"--{name}" for name in ("sdxl", "gpu") if getattr(options, name)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    median = {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for name, found in runs.items()
    }
    print(f"{'':10} {'s/step':>8} {'s for 60':>9} {'peak MB':>8} {'ours is':>8} {'budget':>7}")
    exceeded = False
    for name, found in median.items():
        ratio = median["ours"]["total"] / found["total"]
        budget = BUDGETS.get(name)
        exceeded |= budget is not None and ratio > budget
        print(
            f"{name:10} {found['step']:8.3f} {found['total']:9.1f} {found['memory']:8.0f} "
            f"{ratio:8.2f} {budget or '':>7}"
        )
    if options.sdxl and options.gpu:
        took = median["ours"]["total"]
        print(f"60 steps in {took:.1f} s, budget on an H200 {SDXL_GPU_BUDGET} s")
        exceeded |= took > SDXL_GPU_BUDGET
    sys.exit(exceeded)


if __name__ == "__main__":
    main()
