# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: Load FPDM on both Lightning files, Save FPDM and back again."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import comfy.sd
import folder_paths
import torch
from pose_transfer_pack.nodes import fpdm as nodes
from pose_transfer_pack.nodes import host
from pose_transfer_pack.nodes.fpdm_files import SaveFPDM
from pose_transfer_pack.pose_transfer.errors import PoseTransferError
from pose_transfer_pack.pose_transfer.fpdm import FPDM, load_checkpoint, save_checkpoint
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from autoencoders import build_autoencoder

Report = dict[str, Any]
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@torch.inference_mode()
def check(tiny_path: str) -> Report:
    torch.set_num_threads(1)  # tiny tensors; threads only wait for each other
    torch.manual_seed(0)
    folder = Path(folder_paths.models_dir, "pose_transfer", "fpdm")
    folder.mkdir(parents=True)
    return {**two_files(folder, tiny_path), **saved(folder, tiny_path)}


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    return (a - b).abs().max().item()


def unet_difference(model: Any, library: FPDM) -> float:
    """The host's UNet against diffusers', at two timesteps."""
    generator = torch.Generator().manual_seed(1)
    x, context, fusion = (
        torch.randn(shape, generator=generator) for shape in ((2, 4, 16, 12), (2, 17, 64), (2, 56))
    )
    t, no_pose = torch.tensor([3.0, 700.0]), torch.zeros(2, 32, 16, 12)
    offset = library.time_offset(fusion)
    options = {"patches": {"emb_patch": [lambda emb, *_: emb + offset]}}
    got = model.get_model_object("diffusion_model")(
        x, t, context=context, transformer_options=options
    )
    return difference(got, library.predict_noise(x, t, context, no_pose, fusion))


def fusion_of(fpdm: Any) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    source, pose_map = torch.rand(2, 1, 64, 48, 3, generator=generator)
    return nodes.FusionEmbeddingNode.execute(fpdm, source, pose_map).result[0].embeds


def two_files(folder: Path, tiny_path: str) -> Report:
    """Stage 2 without a fusion model, stage 1 beside it, both as Lightning writes them."""
    tensors = {k: x.float() for k, x in load_file(tiny_path).items()}
    stage_1 = {
        k.removeprefix("fusion_model."): x
        for k, x in tensors.items()
        if k.startswith("fusion_model.")
    }
    stage_2 = {k: x for k, x in tensors.items() if not k.startswith("fusion_model.")}
    torch.save({"epoch": 99, "state_dict": stage_2}, folder / "stage2.ckpt")
    torch.save({"epoch": 4, "state_dict": stage_1}, folder / "last.ckpt")
    library = load_checkpoint(folder / "stage2.ckpt", folder / "last.ckpt")

    stock_vae = object()
    model, fpdm, vae = nodes.LoadFPDM.execute("stage2.ckpt", "last.ckpt", stock_vae).result
    alone = nodes.LoadFPDM.execute("stage2.ckpt").result
    try:
        fusion_of(alone[1])
        error = ""
    except PoseTransferError as caught:
        error = str(caught)
    pictures = [torch.rand(1, 64, 48, 3) for _ in range(2)]
    return {
        "two files: unet": unet_difference(model, library),
        "two files: fusion": difference(fusion_of(fpdm), fusion_of(payload(library))),
        "two files: vae passed on": vae is stock_vae,
        "one file: no vae": type(alone[2]).__name__,
        "one file: error": error,
        "one file: without a fusion embedding": len(
            nodes.ApplyFPDM.execute(alone[0], alone[1], *pictures).result
        ),
        "changed file is read again": changed(folder / "last.ckpt"),
    }


def mapped_share(module: torch.nn.Module, path: Path) -> float | None:
    """Share of the parameters that lie in the mapped file, no copy; None where none can tell."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return None
    lines = [line.split(maxsplit=5) for line in maps.read_text().splitlines()]
    spans = [
        [int(end, 16) for end in line[0].split("-")]
        for line in lines
        if len(line) == 6 and line[5].strip() == str(path.resolve())
    ]
    places = [x.data_ptr() for x in module.parameters()]
    return sum(any(a <= place < b for a, b in spans) for place in places) / len(places)


def payload(library: FPDM) -> Any:
    return type("Payload", (), {"name": "library", "patcher": host.managed(library),
                                "fpdm": library})()  # fmt: skip


def changed(stage_1: Path) -> bool:
    def stamp() -> str:
        return nodes.LoadFPDM.fingerprint_inputs("stage2.ckpt", "last.ckpt")

    before = stamp()
    stage_1.write_bytes(stage_1.read_bytes() + b"\0")
    return before != stamp()


def saved(folder: Path, tiny_path: str) -> Report:
    """Load, add a LoRA, save, load: the same numbers with the LoRA in them."""
    library = load_checkpoint(tiny_path)
    library.vae = build_autoencoder(
        32, 64, 32, 32, latent_channels=4, scaling_factor=0.5, layers_per_block=2
    ).eval()
    save_checkpoint(library, folder / "tiny.safetensors")
    model, fpdm, vae = nodes.LoadFPDM.execute("tiny.safetensors").result

    merged = copy.deepcopy(library).requires_grad_(False)
    weight = merged.unet.get_submodule(ATTENTION).weight
    up, down = torch.randn(weight.shape[0], 4) * 0.1, torch.randn(4, weight.shape[1]) * 0.1
    weight.add_(0.8 * up @ down)
    key = "lora_unet_" + ATTENTION.replace(".", "_")
    lora = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    tuned, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.8, 0.0)

    (path,) = SaveFPDM.execute(tuned, fpdm, "fp32", "pose_transfer/fpdm/tuned", vae).result
    again, again_fpdm, again_vae = nodes.LoadFPDM.execute(Path(path).name).result
    (half,) = SaveFPDM.execute(model, fpdm, "fp16", "pose_transfer/fpdm/half").result
    half_model, _, no_vae = nodes.LoadFPDM.execute(Path(half).name).result
    z = torch.randn(1, 4, 16, 12)
    whole_unet = model.get_model_object("diffusion_model")
    half_fpdm = nodes.LoadFPDM.execute(Path(half).name).result[1]
    stored = sorted({str(x.dtype) for x in half_fpdm.fpdm.parameters()})
    lazy = {
        "mapped: unet of the dtype it runs in": mapped_share(
            whole_unet, folder / "tiny.safetensors"
        ),
        "mapped: towers": mapped_share(half_fpdm.fpdm, Path(half)),
        "stored as": stored,
        "half: fusion": difference(fusion_of(half_fpdm), fusion_of(payload(load_checkpoint(half)))),
        "used as": sorted({str(x.dtype) for x in half_fpdm.fpdm.parameters()}),
    }
    return lazy | {
        "saved: listed": sorted(set(host.fpdm_files()) & {Path(path).name, Path(half).name}),
        "saved: unet": unet_difference(again, merged),
        "saved: lora's effect": unet_difference(again, library),
        "saved: fusion": difference(fusion_of(again_fpdm), fusion_of(fpdm)),
        "saved: vae": difference(again_vae.decode(z), vae.decode(z)),
        "saved: names": load_file(path).keys() == load_file(folder / "tiny.safetensors").keys(),
        "saved: scale": again.get_model_object("latent_format").scale_factor,
        "saved: model stays": unet_difference(model, library),
        "half: dtypes": sorted({str(x.dtype) for x in load_file(half).values()}),
        "half: unet": unet_difference(half_model, library),
        "half: scale": half_model.get_model_object("latent_format").scale_factor,
        "half: no vae": type(no_vae).__name__,
    }
