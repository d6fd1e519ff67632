# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guided step of FPDM costs, in passes of the same model without FPDM.

    python tests/bench/bench_fpdm.py [--rounds N] [--json FILE]     # COMFYUI_PATH: ComfyUI's folder

Runs the demo's UNet in the real host at the demo's size: one plain prediction by the stock guider,
and FPDM's guider with two, three and four predictions in a step, in turn, round after round. The
ratio is the median over the rounds, each against the plain prediction beside it, so that whatever
else the machine does hits both. Prints one line each; exit status 1 where a step of three costs
more than 3.1 plain ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]
BUDGET = 3.1
CASES: dict[str, dict[str, Any]] = {
    "2 passes": {"source_weight": 2.0, "fusion_weight": 2.0},
    "3 passes": {"source_weight": 2.0, "fusion_weight": 3.0},
    "3 passes, rescaled": {"source_weight": 2.0, "fusion_weight": 3.0, "rescale": 0.7},
    "4 passes": {
        "source_weight": 2.0,
        "fusion_weight": 3.0,
        "separate_pose": True,
        "pose_weight": 4.0,
    },
}


def main() -> int:
    """Prints the ratios; the exit status: 0 where they are within the budget."""
    parser = argparse.ArgumentParser(description="The cost of FPDM's guidance.")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed")
    parser.add_argument("--json", type=Path, help="where the numbers go as well")
    asked = parser.parse_args()
    numbers = measure(asked.rounds)
    for name, ratio in numbers["ratios"].items():
        print(f"FPDM step of {name}: {ratio:.2f} x a plain pass")
    print(f"a plain pass: {1000 * numbers['plain pass, s']:.1f} ms on {numbers['device']}")
    if asked.json:
        asked.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    if numbers["ratios"]["3 passes"] > BUDGET:
        print(f"over the budget of {BUDGET} x")
        return 1
    return 0


def measure(rounds: int) -> dict[str, Any]:
    """Starts the host in this process and times the cases."""
    pack = _load_pack()
    import comfy.model_management as mm
    import comfy.samplers
    import torch

    images = importlib.import_module(f"{pack}.pose_transfer.images")
    mannequin = importlib.import_module(f"{pack}.pose_transfer.mannequin")
    poses = importlib.import_module(f"{pack}.pose_transfer.pose")
    nodes = importlib.import_module(f"{pack}.nodes.fpdm")
    demo = importlib.import_module(f"{pack}.nodes.loading").load_demo()

    with torch.inference_mode():
        source, target = mannequin.render(19, 29), mannequin.render(19, 9)
        pictures = (
            images.from_uint8(source.image),
            images.from_uint8(poses.draw(target.pose, 256, 192, "fpdm")),
        )
        (embedding,) = nodes.FusionEmbeddingNode.execute(demo.fpdm, *pictures).result
        applied, positive, negative, latent = nodes.ApplyFPDM.execute(
            demo.model, demo.fpdm, *pictures, embedding
        ).result
        plain = comfy.samplers.CFGGuider(demo.model)
        plain.set_conds([[positive[0][0], {}]], [[positive[0][0], {}]])
        guiders = {
            name: nodes.FPDMGuiderNode.execute(applied, positive, negative, **inputs).result[0]
            for name, inputs in CASES.items()
        }
        empty = latent["samples"]

        def seconds(guider: Any) -> float:
            timer = _OneStep()
            guider.sample(torch.ones_like(empty), empty, timer, torch.tensor([2.0, 0.0]))
            return timer.seconds

        for guider in (plain, *guiders.values()):
            seconds(guider)  # the first call of each shape is slower
        plains: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in guiders}
        for _ in range(rounds):
            for name, guider in guiders.items():
                plains.append(seconds(plain))
                ratios[name].append(seconds(guider) / plains[-1])
    return {
        "ratios": {name: statistics.median(found) for name, found in ratios.items()},
        "plain pass, s": statistics.median(plains),
        "device": str(mm.get_torch_device()),
        "rounds": rounds,
    }


class _OneStep:
    """A sampler of one model call, which takes its time."""

    def sample(self, guider: Any, sigmas: Any, extra: dict[str, Any], *more: Any) -> Any:
        import torch

        noise = more[1]
        sigma = sigmas[:1]
        _wait(noise.device)
        start = time.perf_counter()
        denoised = guider(noise, sigma, **extra)
        _wait(noise.device)
        self.seconds = time.perf_counter() - start
        if not torch.isfinite(denoised).all():
            raise RuntimeError("the prediction is not finite")
        return denoised


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _load_pack() -> str:
    """Makes this process one of the host with the pack in it; returns the pack's name."""
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        raise SystemExit("COMFYUI_PATH is not set: run this by `make bench`.")
    import torch

    rounds_and_json, sys.argv = sys.argv, ["main.py"]
    if not torch.cuda.is_available():
        sys.argv.append("--cpu")
    # Our `nodes` must not stand for the host's `nodes.py`.
    sys.path[:] = [comfyui, *(p for p in sys.path if Path(p or ".").resolve() != PACK)]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args

    sys.argv = rounds_and_json
    name = "pose_transfer_pack"
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py")
    assert spec is not None and spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    sys.modules[name] = pack
    spec.loader.exec_module(pack)
    return name


if __name__ == "__main__":
    sys.exit(main())
