# SPDX-License-Identifier: GPL-3.0-or-later
"""What the visual consistency module costs: sampling with it as a multiple of plain sampling.

    COMFYUI_PATH=... python tests/bench/bench_vcm.py [--steps 2] [--width 64] [--repeat 3]

Both run in one process of the host, alternating, on its own sampler with CFG (two conditions in a
batch), on a UNet of Stable Diffusion 1.5's shape whose first level is `--width` channels wide. The
module is the dearest of the usual kind: an IP-Adapter in all blocks and a face. Prints JSON; ends
with status 1 where the budget of design.md section 8 is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BUDGET = 1.15
CONTEXT, EMBED = 768, 1024
ROOT = Path(__file__).resolve().parents[2]


def measure(steps: int, width: int, repeat: int) -> dict[str, Any]:
    """Runs inside the host's process."""
    import comfy.clip_vision
    import comfy.sample
    import numpy as np
    import torch
    from diffusers import UNet2DConditionModel
    from pose_transfer_pack.nodes import host, stock_models
    from pose_transfer_pack.nodes import vcm as nodes
    from pose_transfer_pack.nodes.sockets import VCMModel
    from pose_transfer_pack.pose_transfer.oneposetrans import (
        VCM,
        ImageProjection,
        Resampler,
        TokenAdapter,
    )
    from pose_transfer_pack.pose_transfer.types import FaceEmbedding

    torch.manual_seed(0)
    nodes.ApplyVCM.hidden = SimpleNamespace(unique_id=None)
    host.say = lambda *_: None  # there is no server here
    unet = UNet2DConditionModel(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        cross_attention_dim=CONTEXT,
        attention_head_dim=8,
    )
    model = stock_models.build_model(
        unet.state_dict(), unet.config, prediction="epsilon",
        latent_format=stock_models.LatentFormat(0.18215, 4), dtypes=(torch.float32,),
    )  # fmt: skip
    widths = [
        unet.get_parameter(name.removesuffix("processor") + "to_q.weight").shape[0]
        for name in unet.attn_processors
        if ".attn2." in name
    ]

    def adapter(projection: Any) -> TokenAdapter:
        to_k, to_v = ([torch.randn(c, CONTEXT) / 30 for c in widths] for _ in range(2))
        return TokenAdapter(projection, to_v, to_k)

    vcm = VCM(
        adapter(ImageProjection(CONTEXT, EMBED, 4)),
        adapter(Resampler(256, 2, 64, 4, 16, 512, CONTEXT)),
    )
    raw = np.random.default_rng(0).standard_normal((1, 512), np.float32)
    zeros = np.zeros((1, 5, 2), np.float32)
    face = FaceEmbedding(
        raw, raw, np.zeros((1, 4), np.float32), zeros, np.array([True]), "antelopev2"
    )
    seen = comfy.clip_vision.Output()
    seen["image_embeds"] = torch.randn(1, EMBED)
    clip = SimpleNamespace(
        tokenize=lambda text, return_word_ids=False: {"l": [[(word, 1.0, 1) for word in [7] * 77]]},
        encode_from_tokens_scheduled=lambda tokens: [[torch.randn(1, 77, CONTEXT), {}]],
    )
    weights = VCMModel("bench", host.managed(vcm), None)
    with torch.inference_mode():
        applied, positive, negative = nodes.ApplyVCM.execute(
            model, clip, weights, "face", "", "face", "uniform", 1.0, "", 0.0, 0.0, 1.0, "none",
            clip_vision_output=seen, face_embedding=face,
        ).result  # fmt: skip
        plain = [[[text, {}] for text, _ in one] for one in (positive, negative)]
        latent = torch.zeros(1, 4, 64, 64)

        def seconds(patcher: Any, conditions: Any) -> float:
            noise = comfy.sample.prepare_noise(latent, 0)
            start = time.perf_counter()
            comfy.sample.sample(
                patcher, noise, steps, 5.0, "euler", "normal", *conditions, latent, seed=0
            )
            return time.perf_counter() - start

        seconds(model, plain)  # warm
        runs = [
            (seconds(model, plain), seconds(applied, (positive, negative))) for _ in range(repeat)
        ]
    ratio = statistics.median(with_vcm / without for without, with_vcm in runs)
    return {
        "plain_s": round(statistics.median(run[0] for run in runs), 3),
        "vcm_s": round(statistics.median(run[1] for run in runs), 3),
        "ratio": round(ratio, 3),
        "budget": BUDGET,
        "steps": steps,
        "width": width,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--width", type=int, default=64, help="channels; SD 1.5 has 320")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        parser.error("COMFYUI_PATH is not set: run it by `make bench`")
    base = ROOT / "build" / "bench"
    base.mkdir(parents=True, exist_ok=True)
    os.chdir(comfyui)
    sys.path.insert(0, str(ROOT))  # the next line needs it, and takes it off again
    start = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["IN_HOST"]
    exec(start.format(comfyui=comfyui, pack=str(ROOT), base=str(base)), {})
    result = measure(options.steps, options.width, options.repeat)
    print(json.dumps(result))
    sys.exit(result["ratio"] > BUDGET)


if __name__ == "__main__":
    main()
