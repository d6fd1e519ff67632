# SPDX-License-Identifier: GPL-3.0-or-later
"""What guiding attention costs a whole sampling run, as a ratio to the same run without.

    python tests/bench/bench_truepose.py [--rounds N] [--json FILE]     # COMFYUI_PATH: ComfyUI

In the real host: one step with guidance (positive and negative), plain and guided, and the look at
the source, in turn, round after round, for the demo's UNet and for one of Stable Diffusion 1.5's
shape (on a CPU a fifth as wide, on a GPU whole). The ratio is (20 guided steps + source pass) / 20
plain steps, the median over the rounds, each against the plain step beside it. Exit status 1 where
a clean source costs more than 1.35.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench_fpdm import _load_pack, _OneStep, _wait

BUDGET = 1.35
STEPS = 20
CASES: dict[str, dict[str, Any]] = {
    "regions": {"mode": "clean, once", "correspondence": 0.0},
    "regions and correspondence": {"mode": "clean, once", "correspondence": 1.0},
    "live source": {"mode": "live, every step", "correspondence": 1.0},
}


def main() -> int:
    """Prints the ratios; the exit status: 0 where they are within the budget."""
    parser = argparse.ArgumentParser(description="The cost of TruePose's guided attention.")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is timed")
    parser.add_argument("--json", type=Path, help="where the numbers go as well")
    asked = parser.parse_args()
    numbers = measure(asked.rounds)
    for name, ratio in numbers["ratios"].items():
        print(f"TruePose, {name}: {ratio:.2f} x the run without")
    if asked.json:
        asked.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    over = [n for n, r in numbers["ratios"].items() if r > BUDGET and "live" not in n]
    if over:
        print(f"over the budget of {BUDGET} x: {', '.join(over)}")
    return bool(over)


def measure(rounds: int) -> dict[str, Any]:
    """Starts the host in this process and times the cases on both models."""
    pack = _load_pack()
    import torch

    # On a CPU the host would take a slower kernel than ours, which would hide what guiding costs.
    attention: Any = importlib.import_module("comfy.ldm.modules.attention")
    attention.optimized_attention = attention.attention_pytorch
    bench = _Bench(pack, rounds)
    with torch.inference_mode():
        demo = importlib.import_module(f"{pack}.nodes.loading").load_demo()
        ratios = bench.ratios("demo", demo.model, demo.vae, 128)
        ratios |= bench.ratios("Stable Diffusion 1.5's shape", *bench.stable_diffusion(), 768)
    return {"ratios": ratios, "rounds": rounds, "steps": STEPS}


class _Bench:
    def __init__(self, pack: str, rounds: int) -> None:
        self.pack = pack
        self.rounds = rounds
        self.nodes = importlib.import_module(f"{pack}.nodes.truepose")
        self.nodes.host.say = lambda *_: None
        self.nodes.SourceFeaturesNode.hidden = type("Hidden", (), {"unique_id": None})()

    def stable_diffusion(self) -> tuple[Any, Any]:
        """A MODEL of Stable Diffusion 1.5's shape with random weights, and a stand-in for a VAE."""
        import torch
        from diffusers import UNet2DConditionModel

        stock = importlib.import_module(f"{self.pack}.nodes.stock_models")
        width = 64 if not torch.cuda.is_available() else 320
        config = {
            "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
            "block_out_channels": [width, 2 * width, 4 * width, 4 * width],
            "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
            "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
            "cross_attention_dim": 768, "attention_head_dim": 2 if width == 64 else 8,
        }  # fmt: skip
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**config)
        model = stock.build_model(
            unet.state_dict(),
            config,
            prediction="epsilon",
            latent_format=stock.LatentFormat(0.18215, 4),
        )

        class Eighths:
            def encode(self, picture: Any) -> Any:
                small = torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), 8)
                return torch.cat([small, small[:, :1]], dim=1)

        return model, Eighths()

    def ratios(self, name: str, model: Any, vae: Any, context: int) -> dict[str, float]:
        import torch

        mannequin = importlib.import_module(f"{self.pack}.pose_transfer.mannequin")
        images = importlib.import_module(f"{self.pack}.pose_transfer.images")
        samplers = importlib.import_module("comfy.samplers")
        types = importlib.import_module(f"{self.pack}.pose_transfer.types")
        demo = name == "demo"
        size = (256, 192) if demo else (512, 384)
        source, target = (mannequin.render(19, pose, *size) for pose in (29, 9))
        picture = images.from_uint8(source.image)
        parsings = [types.Parsing(s.parsing[None], mannequin.LABELS) for s in (source, target)]
        words = [[torch.randn(1, 77, context), {}]]

        def features(mode: str) -> Any:
            given = model, vae, picture, parsings[0], mode, words
            return self.nodes.SourceFeaturesNode.execute(*given).result[0]

        def guider(guided: Any) -> Any:
            made = samplers.CFGGuider(guided)
            made.set_conds(words, words)
            made.set_cfg(4.0)
            return made

        def seconds(made: Any) -> float:
            channels = model.get_model_object("latent_format").latent_channels
            empty = torch.zeros(1, channels, size[0] // 8, size[1] // 8)
            timer = _OneStep()
            made.sample(torch.ones_like(empty), empty, timer, torch.tensor([2.0, 0.0]))
            return timer.seconds

        def looking() -> float:
            start = time.perf_counter()
            features("clean, once")
            _wait(model.load_device)
            return time.perf_counter() - start

        plain, cases = guider(model), {}
        for case, settings in CASES.items():
            inputs = {
                "blocks": "all", "strength": 1.0, "start": 0.0, "end": 1.0, "record": False,
                "correspondence": settings["correspondence"], "target_parsing": parsings[1],
                **self.nodes.DEFAULT_WEIGHTS,
            }  # fmt: skip
            made = self.nodes.GuideAttention.execute(model, features(settings["mode"]), **inputs)
            cases[case] = guider(made.result[0])
        for made in (plain, *cases.values()):
            seconds(made)  # the first call of each shape is slower
        found: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(self.rounds):
            for case, made in cases.items():
                before = seconds(plain)
                source_pass = 0.0 if "live" in case else looking()
                found[case].append((seconds(made) + source_pass / STEPS) / before)
        return {f"{name}, {case}": statistics.median(ratios) for case, ratios in found.items()}


if __name__ == "__main__":
    sys.exit(main())
