# SPDX-License-Identifier: GPL-3.0-or-later
"""TruePose on the host's stock classes, in numbers: the nodes against the library's own pair."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn

from pose_transfer.demo.architecture import UNET
from pose_transfer.demo.models import load_base, load_fpdm
from pose_transfer.fpdm import PoseEncoder
from pose_transfer.training.truepose_pair import new_pair, write_truepose
from pose_transfer.training.user.truepose_nets import Pair, PairNets
from pose_transfer.truepose import ImageTokens
from tests.autoencoders import build_autoencoder
from tests.leffa_layout import leffa_tensors

CLOSE = 1e-4


def test_a_guided_step_is_the_library_s(
    run_in_host: Callable[..., dict[str, Any]], untrained_demo: tuple[Path, Path]
) -> None:
    base, fpdm = untrained_demo
    report = run_in_host("in_host_truepose.py", base_path=str(base), fpdm_path=str(fpdm))

    assert report["guided"] < CLOSE < 10 * CLOSE < report["effect"]
    assert report["one batch"] == [2]
    assert report["unconditional"] < CLOSE
    assert report["two halves"] < CLOSE, "sources share one softmax"
    assert report["switched off"] < CLOSE
    assert report["original model"] < CLOSE
    assert report["regions"] < CLOSE
    assert report["kept shape"] == [8, 6]
    assert 0 < report["megabytes"] < 1

    assert report["with others"] < CLOSE
    assert report["others seen"] == ["before", "behind", "output", "replace"]
    assert report["perturbed"] > 10 * CLOSE
    assert report["left in place"] == 4, "nothing of ours stays in another pack's slots"
    assert report["lora"] < CLOSE

    assert report["either order"] < CLOSE
    assert report["in its guider"] < CLOSE
    assert report["fpdm alone"] > 10 * CLOSE

    assert report["live passes"] == [1, 2]
    assert report["live effect"] > 10 * CLOSE
    assert report["live unconditional"] < CLOSE
    assert report["live again"] == 0
    assert report["live kept"] == 0

    assert report["before its start"] < CLOSE
    assert report["behind its end"] < CLOSE
    assert report["half of the blocks"] > 10 * CLOSE
    assert report["half is not all"] > 10 * CLOSE

    assert report["nothing yet"]
    assert report["maps"] == [1, 9, 8, 6]
    assert report["smallest"] >= 0 and 0 < report["largest"] < 1
    assert report["background"] == 0 < report["upper"]
    assert report["sheet"][0] == 1 and report["sheet"][3] == 3
    assert "upper" in report["text"] and "background" not in report["text"]
    assert report["passed on"]


def test_the_guide_on_stable_diffusion_s_unets_and_behind_the_vcm(
    run_in_host: Callable[..., dict[str, Any]],
) -> None:
    report = run_in_host("in_host_truepose_kinds.py")

    for kind, blocks in {"sd15": 4, "sd21": 4, "sdxl": 8}.items():
        of_kind = report[kind]
        assert of_kind["blocks"] == blocks, kind
        assert of_kind["guided"] < CLOSE < 10 * CLOSE < of_kind["effect"], kind
        assert of_kind["unconditional"] < CLOSE and of_kind["switched off"] < CLOSE, kind
        assert of_kind["original model"] == 0, kind

    assert report["plain calls"] == 3
    assert report["clean calls"] == 4, "a clean source is projected once for all steps"
    assert report["live calls"] == 9, "its look, itself, and the picture, in each step"
    assert report["scheduled calls"] == report["trained calls"] == 6
    assert report["clean steady"] == report["scheduled steady"] == 0
    assert report["two sources steady"] == 0
    assert report["scheduled late"] < CLOSE < 10 * CLOSE < report["scheduled early"]

    for name in ("clean control", "live control"):
        control = report[name]
        assert control["asked"] == 1 and control["cleaned"] >= 1, name
        assert control["unconditional"] < CLOSE < 10 * CLOSE < control["matters"], name

    assert report["one target"] == report["two targets"] == "fine"
    assert "is of 3 pictures, but 2 are sampled" in report["three targets"]
    assert "is of 2 pictures, but 1 are sampled" in report["more targets than pictures"]
    assert "64x48, 64x64 px" in report["canvases"]

    assert report["vcm, by hand"] < CLOSE and report["vcm, either order"] < CLOSE
    assert report["vcm, guide matters"] > 10 * CLOSE < report["vcm, vcm matters"]
    assert report["vcm, unconditional"] < CLOSE and report["vcm, switched off"] < CLOSE


def test_trained_pairs_of_both_kinds_load_and_guide(
    run_in_host: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    leffa, demo = tmp_path / "pose_transfer.safetensors", untrained_pair(tmp_path)
    own = user_s_pair(tmp_path / "own.safetensors")
    save_file(leffa_tensors(), leffa)
    report = run_in_host(
        "in_host_truepose_pairs.py", leffa_path=str(leffa), demo_path=str(demo), own_path=str(own)
    )

    assert report["with demo"] == ["mannequin demo (comes with the pack)"]
    assert report["with demo said"] is True
    assert report["without demo"] == ["(no pair yet: see the help page)"]
    assert "holds no demo pair" in report["without demo said"]
    assert "There is no TruePose pair in " in report["no pair said"]
    assert report["a file"] == [["mine.safetensors"], "mine.safetensors", True]

    assert report["leffa loaded once"]
    assert report["leffa latent"] == [1, 4, 16, 16]
    assert report["leffa extra channels"] == [1, 8, 16, 16]
    assert report["leffa mask"] == [1.0, 1.0]
    assert report["leffa blocks"] == [16, 16, 16]
    assert report["leffa first block"] < CLOSE and report["leffa middle block"] < CLOSE
    assert report["leffa plain"] < CLOSE
    assert report["leffa guided"] > 10 * CLOSE
    assert report["leffa unconditional"] > 10 * CLOSE, "it attends to the empty source"
    assert report["leffa branches differ"] > 10 * CLOSE

    assert report["demo source posed"] > 1e-3 and report["demo target untouched"] == 0
    assert report["demo shared"]
    assert report["demo tokens"] == [1, 4, 128]
    assert report["demo zeros"] == 0 and report["demo told"] == 0
    assert report["demo latent"] == [1, UNET["in_channels"], 16, 16]
    assert report["demo guided"] > 10 * CLOSE and report["demo unconditional"] < CLOSE
    assert report["demo pose"] > 10 * CLOSE
    assert "1024 wide" in report["clip refused"] and "128" in report["clip refused"]

    for name, tokens in {"own": 3, "own, by region": 3 * 7}.items():
        assert report[f"{name}: tokens"] == tokens
        assert report[f"{name}: look"] < CLOSE and report[f"{name}: last look"] < CLOSE
        assert report[name] < CLOSE < 10 * CLOSE < report[f"{name}: prediction"]
        assert report[f"{name}: unconditional"] < CLOSE
    assert report["own vae"] == [1, 4, 16, 16]
    assert report["regions matter"] > 10 * CLOSE
    assert report["clip in source features"] < CLOSE < 10 * CLOSE < report["clip matters"]
    assert "source_model of a trained pair" in report["no projection"]
    assert "Load CLIP Vision" in report["no clip"]


def user_s_pair(path: Path) -> Path:
    """As the trainer writes it, with a SourceNet of its own and a stock CLIP's 16 numbers."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1,
        cross_attention_dim=12, use_linear_projection=True,
        attention_head_dim=(2, 4),  # pyright: ignore[reportArgumentType]  diffusers: tuple[int]
    )  # fmt: skip
    for name, value in unet.named_parameters():
        if ".attn2.to_" in name and value.dim() == 2:  # a fresh net hardly hears its context
            nn.init.normal_(value, std=0.3)
    source_unet = copy.deepcopy(unet)
    nn.init.normal_(source_unet.conv_in.weight, std=0.1)
    encoder = PoseEncoder(32, (4, 8, 8, 8))
    nn.init.normal_(encoder.conv_out.weight, std=0.2)
    vae = build_autoencoder(32, 32, 32, 32, scaling_factor=0.5)
    nets = PairNets(unet, source_unet, encoder, ImageTokens(16, 12, 3), aligned=True)
    Pair(nets, vae, "epsilon").save(path)
    return path


def untrained_pair(folder: Path) -> Path:
    """The demo's file as the trainer writes it, upon the shipped models, with random weights."""
    torch.manual_seed(0)
    base, fpdm = load_base(), load_fpdm()
    module = new_pair(base, fpdm)
    nn.init.normal_(module.pose_out.weight, std=0.5)
    return write_truepose(folder, module, base, fpdm)
