# SPDX-License-Identifier: GPL-3.0-or-later
"""Does an FPDM checkpoint of the official size load and sample, in time and in memory?

Builds a random checkpoint of the exact shapes of the released one (Stable Diffusion 2.1's UNet and
autoencoder, CLIP ViT-L/14, DINOv2-large, FPDM's own networks; Lightning's layout with its doubled
names), loads it in the real host through Load FPDM, samples one step at 512x352 with the three-pass
guidance, converts it and loads the converted file. The picture is noise; that it is finite, of the
right size, in time and in memory is what is checked.

    make check-full-size ARGS="--folder /path/with/8/GB"

It runs on the CPU; `--gpu` runs it on the GPU, and adds the time of twenty steps there.

Each step runs in a process of its own, so that its peak memory is its own. The peak counts the
pages of the mapped files as well, which the system may drop at any time. Seconds are by the clock:
on a busy machine they say little, and the CPU seconds beside them (of all threads) more.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]
CHECKPOINT, CONVERTED = "full_size.ckpt", "full_size.safetensors"
LOAD_SECONDS, MEMORY_GB = 10.0, 24.0
HEIGHT, WIDTH = 512, 352
UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024, "use_linear_projection": True, "class_embed_type": "identity",
}  # fmt: skip
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
IMAGE_TOWER = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "image_size": 224,
    "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
SOURCE_TOWER = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "mlp_ratio": 4,
    "image_size": 518, "patch_size": 14, "use_mask_token": True,
}  # fmt: skip
DOUBLES = {"sd_model.unet.": "unet.", "fusion_model.img_encoder.": "fusion_model.pose_encoder."}


def main() -> int:
    """Runs the steps and prints what each took; the exit status: 0 if all is within bounds."""
    asked = _parser().parse_args()
    if asked.step is not None:
        print(json.dumps({**STEPS[asked.step](asked), "peak GB": _peak_gb()}))
        return 0
    if asked.folder.resolve().is_relative_to(PACK):
        print(f"{asked.folder} lies in the repository. Choose a scratch folder outside of it.")
        return 1
    models = _models(asked.folder)
    models.mkdir(parents=True, exist_ok=True)
    reports: dict[str, dict[str, Any]] = {}
    try:
        for step in STEPS:
            reports[step] = _in_a_process_of_its_own(step)
            print(f"{step}: {reports[step]}", flush=True)
    finally:
        for name in (CHECKPOINT, CONVERTED):
            (models / name).unlink(missing_ok=True)
    wrong = _out_of_bounds(reports)
    print("\n".join(wrong) or "All within bounds.")
    return 1 if wrong else 0


def _out_of_bounds(reports: dict[str, dict[str, Any]]) -> list[str]:
    wrong = []
    for step, report in reports.items():
        if report["peak GB"] > MEMORY_GB:
            wrong.append(f"{step}: {report['peak GB']} GB, expected at most {MEMORY_GB}")
        if report.get("load s", 0) > LOAD_SECONDS:
            wrong.append(f"{step}: loaded in {report['load s']} s, expected at most {LOAD_SECONDS}")
    size = reports["sample"]["picture"]
    if size != [1, HEIGHT, WIDTH, 3] or not reports["sample"]["finite"]:
        wrong.append(f"sample: the picture is {size} and finite: {reports['sample']['finite']}")
    return wrong


def build(asked: argparse.Namespace) -> dict[str, Any]:
    """The random checkpoint. Norms are ones and weights scaled so that numbers stay finite."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from pose_transfer.fpdm import (
        FPDM,
        ClassEmbedding,
        Combiner,
        PoseEncoder,
        SourceProjection,
        towers,
    )
    from pose_transfer.fpdm.checkpoint import FPDM_PARTS, PREFIXES
    from pose_transfer.fpdm.convert import DTYPES

    start = time.perf_counter()
    with torch.device("meta"):
        fpdm = FPDM(
            SourceProjection(), PoseEncoder(), ClassEmbedding(), Combiner(),
            unet=UNet2DConditionModel(**UNET),
            image_tower=towers.build_image_tower(IMAGE_TOWER),
            source_tower=towers.build_source_tower(SOURCE_TOWER),
            vae=AutoencoderKL(**VAE),
        )  # fmt: skip
    noise = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    dtype = DTYPES[asked.dtype]

    def random(like: torch.Tensor) -> torch.Tensor:
        if like.dim() < 2:
            return torch.ones(like.shape, dtype=dtype)
        values = (noise / (like.numel() / like.shape[0]) ** 0.5).to(dtype)
        whole = values.repeat(like.numel() // len(noise) + 1)[: like.numel()]
        return whole.clone().reshape(like.shape)  # else the surplus is stored as well

    tensors = {}
    for part in FPDM_PARTS:
        prefix, state = PREFIXES[part], getattr(fpdm, part).state_dict()
        if part == "source_tower":
            state = towers.to_file_names(state)
        for name, like in state.items():
            # Scales are ones, shifts and biases zeros.
            scale = name.endswith(("weight", "lambda1")) or like.dim() > 1
            tensors[prefix + name] = random(like) if scale else 0 * random(like)
    for prefix, double in DOUBLES.items():
        tensors |= {
            double + k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)
        }
    path = _models(asked.folder) / CHECKPOINT
    torch.save({"epoch": 99, "global_step": 1, "state_dict": tensors}, path)
    return {"names": len(tensors), "GB": _gb(path), "s": _since(start)}


def sample(asked: argparse.Namespace) -> dict[str, Any]:
    """Load FPDM, Fusion Embedding, Apply FPDM, one guided step by the host's `ddpm`, VAE Decode.

    On a GPU twenty steps follow: the first one also moves the model there.
    """
    nodes = _host(asked)
    import torch
    from comfy.samplers import sampler_object
    from comfy_extras.nodes_custom_sampler import (
        BasicScheduler,
        Noise_RandomNoise,
        SamplerCustomAdvanced,
    )

    with torch.inference_mode():
        start, busy = time.perf_counter(), time.process_time()
        model, fpdm, vae = nodes.LoadFPDM.execute(CHECKPOINT).result
        report = {"load s": _since(start), "load CPU s": round(time.process_time() - busy, 1)}
        source, pose_map = torch.rand(2, 1, HEIGHT, WIDTH, 3)

        start = time.perf_counter()
        (fusion,) = nodes.FusionEmbeddingNode.execute(fpdm, source, pose_map).result
        model, positive, negative, latent = nodes.ApplyFPDM.execute(
            model, fpdm, source, pose_map, fusion
        ).result
        report["conditions s"] = _since(start)

        start = time.perf_counter()
        (guider,) = nodes.FPDMGuiderNode.execute(model, positive, negative, 1.5, 2.0).result
        (sigmas,) = BasicScheduler.execute(model, "ddim_uniform", 20, 1.0).result
        # From the first level straight to none: one step, two boundaries.
        output = SamplerCustomAdvanced.execute(
            Noise_RandomNoise(0), guider, sampler_object("ddpm"), sigmas[[0, -1]], latent
        ).result[0]
        report["step s"] = _since(start)
        if asked.gpu:
            start = time.perf_counter()
            SamplerCustomAdvanced.execute(
                Noise_RandomNoise(0), guider, sampler_object("ddpm"), sigmas, latent
            )
            report["20 steps s"] = _since(start)

        start = time.perf_counter()
        picture = vae.decode(output["samples"])
        report["decode s"] = _since(start)
        if asked.gpu:
            report["VRAM GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
    return report | {"picture": list(picture.shape), "finite": bool(picture.isfinite().all())}


def convert(asked: argparse.Namespace) -> dict[str, Any]:
    """The checkpoint as one fp16 safetensors of ours."""
    from pose_transfer.fpdm.convert import convert as to_safetensors

    folder, start = _models(asked.folder), time.perf_counter()
    to_safetensors(folder / CHECKPOINT, folder / CONVERTED, dtype="fp16")
    return {"GB": _gb(folder / CONVERTED), "s": _since(start)}


def load_cold(asked: argparse.Namespace) -> dict[str, Any]:
    """Load FPDM on the converted file when the system has nothing of it in memory.

    No bound: it is the disk that is measured. The gigabytes show how much of the file was read.
    """
    path = _models(asked.folder) / CONVERTED
    if not hasattr(os, "posix_fadvise"):
        return {"cold": "this system cannot be asked to forget a file"}
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    took = load_converted(asked)
    read = resource.getrusage(resource.RUSAGE_SELF).ru_inblock * 512
    cold = {f"cold {name}": value for name, value in took.items()}
    return cold | {"GB read": round(read / 1e9, 2)}


def load_converted(asked: argparse.Namespace) -> dict[str, Any]:
    """Load FPDM on the converted file, and first use of its own networks."""
    nodes = _host(asked)
    import torch

    with torch.inference_mode():
        start, busy = time.perf_counter(), time.process_time()
        _, fpdm, _ = nodes.LoadFPDM.execute(CONVERTED).result
        report = {"load s": _since(start), "load CPU s": round(time.process_time() - busy, 1)}
        start = time.perf_counter()
        sys.modules["pose_transfer_pack.nodes.host"].on_device(fpdm.patcher, torch.float32)
    return report | {"first use s": _since(start)}


STEPS = {
    "build": build,
    "sample": sample,
    "convert": convert,
    "load_cold": load_cold,
    "load_converted": load_converted,
}


def _in_a_process_of_its_own(step: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--step", step],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(PACK)},
    )
    return json.loads(done.stdout.splitlines()[-1])


def _host(asked: argparse.Namespace) -> Any:
    """The pack's FPDM nodes inside the host, with what they import already imported."""
    sys.argv = ["main.py", *([] if asked.gpu else ["--cpu"]), "--base-directory", str(asked.folder)]
    sys.path[:] = [str(asked.comfyui), *(p for p in sys.path if p != str(PACK))]
    import comfy.options

    comfy.options.enable_args_parsing()
    spec = importlib.util.spec_from_file_location("pose_transfer_pack", PACK / "__init__.py")
    assert spec is not None and spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = pack
    spec.loader.exec_module(pack)
    importlib.import_module("pose_transfer_pack.nodes.loading")
    return importlib.import_module("pose_transfer_pack.nodes.fpdm")


def _models(folder: Path) -> Path:
    return folder / "models" / "pose_transfer" / "fpdm"


def _gb(path: Path) -> float:
    return round(path.stat().st_size / 1e9, 2)


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 1)


def _peak_gb() -> float:
    """The most memory that this process has had, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, required=True, help="a scratch folder outside of the repository"
    )
    parser.add_argument(
        "--dtype", choices=["fp16", "fp32"], default="fp16",
        help="of the checkpoint: fp16 needs 8 GB of disk, fp32 (as the released file) 12 GB",
    )  # fmt: skip
    parser.add_argument(
        "--comfyui", type=Path, default=os.environ.get("COMFYUI_PATH"), help="ComfyUI's folder"
    )
    parser.add_argument("--gpu", action="store_true", help="run on the GPU, not on the CPU")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
