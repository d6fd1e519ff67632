# SPDX-License-Identifier: GPL-3.0-or-later
"""What one-shot tuning costs, against the reference's schedule and the host's own Train LoRA.

    COMFYUI_PATH=... python tests/bench/bench_tuning.py [--width 160] [--resolution 256]

All three tune a UNet of Stable Diffusion 1.5's shape whose first level is `--width` channels wide,
with heads as wide as there and accordingly fewer, at the same batch (2), rank (32) and resolution,
in float32 on one thread of the CPU, each in a process of its own. What counts is CPU time, which
other programs on the machine disturb less:

- reference: OnePoseTrans's schedule written anew with diffusers and peft: LoRA on the attention
  projections, the photo cropped and encoded by the autoencoder (as much narrower) at every step;
- host: Train LoRA in its fastest setting: latents given, bypass mode, no checkpointing;
- ours: Tune LoRA with its encoding, and the last preview cut to one step, for the others make none.

A short and a longer run give the time of a step and of what comes before and after; the table shows
60 steps by that. Ends with status 1 where a budget of design.md section 8 is exceeded.
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
CONTENDERS = ("reference", "host", "ours")
STEPS, SHORT, LONG = 60, 1, 4
BATCH, RANK, CONTEXT = 2, 32, 768
ROOT = Path(__file__).resolve().parents[2]


def measure(contender: str, width: int, side: int) -> dict[str, float]:
    """Runs inside the host's process; seconds per step and for 60 of them, peak memory in MB."""
    import torch
    from autoencoders import build_autoencoder
    from diffusers import UNet2DConditionModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        cross_attention_dim=CONTEXT,
        attention_head_dim=width // 40,
    ).requires_grad_(False)
    # Stable Diffusion's is 128 wide, in multiples of what group normalisation needs.
    vae_width = max(round(128 * width / 320 / 32), 1) * 32
    vae_widths = (vae_width, 2 * vae_width, 4 * vae_width, 4 * vae_width)
    vae = build_autoencoder(*vae_widths, layers_per_block=2, latent_channels=4)
    vae.requires_grad_(False)
    photo, text = torch.rand(1, side * 5 // 4, side, 3), torch.randn(1, 77, CONTEXT)
    makers = {"reference": reference, "host": train_lora, "ours": tune_lora}
    run = makers[contender](unet, vae, photo, text, side)
    del unet, vae  # the host has copies of its own
    run(1)  # warm
    seconds = []
    for steps in (SHORT, LONG):
        start = time.process_time()
        run(steps)
        seconds.append(time.process_time() - start)
    step = (seconds[1] - seconds[0]) / (LONG - SHORT)
    return {
        "step": step,
        "total": seconds[0] + (STEPS - SHORT) * step,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def reference(unet: Any, vae: Any, photo: Any, text: Any, side: int) -> Callable[[int], None]:
    import torch
    from diffusers import DDPMScheduler
    from peft import LoraConfig

    unet.add_adapter(
        LoraConfig(
            r=RANK, lora_alpha=RANK, init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    trained = [weight for weight in unet.parameters() if weight.requires_grad]
    pixels = photo.movedim(-1, 1) * 2 - 1

    def run(steps: int) -> None:
        optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=1e-2)
        for _ in range(steps):
            top = int(torch.randint(pixels.shape[2] - side + 1, ()))
            crops = pixels[:, :, top : top + side].expand(BATCH, -1, -1, -1)
            latents = vae.encode(crops).latent_dist.sample() * 0.18215
            noise = torch.randn_like(latents)
            t: Any = torch.randint(0, 1000, (BATCH,))  # diffusers annotates IntTensor
            noisy = scheduler.add_noise(latents, noise, t)
            predicted = unet(noisy, t, text.expand(BATCH, -1, -1), return_dict=False)[0]
            torch.nn.functional.mse_loss(predicted, noise).backward()
            optimiser.step()
            optimiser.zero_grad()

    return run


def host_model(unet: Any) -> Any:
    import torch
    from pose_transfer_pack.nodes import stock_models

    return stock_models.build_model(
        unet.state_dict(), unet.config, prediction="epsilon",
        latent_format=stock_models.LatentFormat(0.18215, 4), dtypes=(torch.float32,),
    )  # fmt: skip


def train_lora(unet: Any, vae: Any, photo: Any, text: Any, side: int) -> Callable[[int], None]:
    import torch
    from comfy_extras.nodes_train import TrainLoraNode
    from pose_transfer_pack.nodes import stock_models

    model = host_model(unet)
    # The node loads the model anew, by what a loader node would have left here.
    model.cached_patcher_init = (
        stock_models._rebuild,
        (
            unet.state_dict(), unet.config, "epsilon", stock_models.LatentFormat(0.18215, 4),
            (torch.float32,),
        ),
    )  # fmt: skip
    latents = [{"samples": torch.randn(BATCH, 4, side // 8, side // 8)}]
    options = {
        "batch_size": BATCH, "grad_accumulation_steps": 1, "learning_rate": 1e-3, "rank": RANK,
        "optimizer": "AdamW", "loss_function": "MSE", "seed": 0, "training_dtype": "fp32",
        "lora_dtype": "fp32", "quantized_backward": False, "algorithm": "LoRA",
        "gradient_checkpointing": False, "checkpoint_depth": 1, "offloading": False,
        "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": True,
    }  # fmt: skip
    inputs = {name: [value] for name, value in options.items()}

    def run(steps: int) -> None:
        with torch.inference_mode():
            TrainLoraNode.execute(
                model=[model], latents=latents, positive=[[[text, {}]]], steps=[steps], **inputs
            )

    return run


def tune_lora(unet: Any, vae: Any, photo: Any, text: Any, side: int) -> Callable[[int], None]:
    import torch
    from pose_transfer_pack.nodes import stock_models
    from pose_transfer_pack.nodes.patches import tuning, tuning_sampler
    from pose_transfer_pack.pose_transfer.oneposetrans.settings import TuningSettings

    tuning_sampler.PREVIEW_STEPS = 1
    model, stock_vae = host_model(unet), stock_models.build_vae(vae.state_dict(), vae.config)

    def run(steps: int) -> None:
        settings = TuningSettings(steps=steps, rank=RANK, batch=BATCH, resolution=side)
        caption = tuning.EncodedCaption([[text, {}]])
        with torch.inference_mode():
            tuning._tune(tuning.Job(model, stock_vae, caption, photo, None, settings))

    return run


def in_host(options: argparse.Namespace, comfyui: str) -> None:
    base = ROOT / "build" / "bench"
    base.mkdir(parents=True, exist_ok=True)
    os.chdir(comfyui)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    start = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["IN_HOST"]
    exec(start.format(comfyui=comfyui, pack=str(ROOT), base=str(base)), {})
    print(json.dumps(measure(options.contender, options.width, options.resolution)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=160, help="channels; SD 1.5 has 320")
    parser.add_argument("--resolution", type=int, default=256, help="px; as published 512")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--contender", choices=CONTENDERS, help="one of them, in this process")
    options = parser.parse_args()
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
    sys.exit(exceeded)


if __name__ == "__main__":
    main()
