# SPDX-License-Identifier: GPL-3.0-or-later
"""The visual consistency module on the host's stock classes: numbers, and what the nodes say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pose_transfer.client import WorkflowError
from pose_transfer.oneposetrans import ImageProjection, Resampler

DATA = Path(__file__).parent.parent / "data" / "vcm"
CLOSE, LOUD = 1e-5, 1e-3


_measured: dict[str, Any] = {}


@pytest.fixture
def report(run_in_host: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What `in_host_vcm.py` measured in a process of the host, once for all tests."""
    if not _measured:
        _measured.update(run_in_host("in_host_vcm.py", data=str(DATA)))
    return _measured


def test_the_host_computes_the_released_attention(report: dict[str, Any]) -> None:
    names = [name for name in report if name.startswith("out.")]
    assert len(names) == 7
    assert {name: report[name] for name in names if report[name] > CLOSE} == {}


def test_every_block_gets_its_own_weights(report: dict[str, Any]) -> None:
    for name in ("positive", "negative", "split", "style", "several pictures"):
        assert report[name] < CLOSE, name
    assert report["several pictures' negative"] < CLOSE
    assert report["effect"] > LOUD


def test_the_model_that_was_given_stays_as_it_was(report: dict[str, Any]) -> None:
    assert report["original model"] < CLOSE


def test_range_and_region_bound_where_it_acts(report: dict[str, Any]) -> None:
    assert report["outside of range"] < CLOSE
    assert report["within range"] < CLOSE
    assert report["black region"] < CLOSE
    assert report["white region"] < CLOSE
    assert report["left region"] < CLOSE
    assert report["window's right half"] < CLOSE


def test_without_a_face_the_image_acts_alone(report: dict[str, Any]) -> None:
    assert report["no face"] < CLOSE
    assert report["face not found"] < CLOSE
    assert report["face's effect"] > LOUD
    assert report["said"] == [
        "No face embedding: plain image attention.",
        "No face found in the source: plain image attention.",
        "The face replaces 1 token(s) of the prompt.",
        "The face replaces 2 token(s) of the prompt.",
        "The face replaces 3 token(s) of the prompt.",
    ]


def test_clip_vision_is_read_as_the_adapter_wants(report: dict[str, Any]) -> None:
    assert report["clip vision"] < CLOSE
    assert report["clip vision, plus"] < CLOSE
    assert report["clip vision, plus, negative"] < CLOSE
    assert report["plus from an output"] < CLOSE
    assert report["crop"] > LOUD


def test_other_patches_and_loras_stay(report: dict[str, Any]) -> None:
    assert report["patches called"] == ["after", "before", "block before", "patch"]
    assert report["through patches"] < CLOSE
    assert report["lora before"] < CLOSE
    assert report["lora after"] < CLOSE
    assert report["lora's effect"] > LOUD


def test_a_controlnet_sees_the_text_alone(report: dict[str, Any]) -> None:
    assert report["control sees"] == [[1, 77, 96]]
    assert report["control's attentions"] == [0]


def test_another_conditioning_gets_no_picture(report: dict[str, Any]) -> None:
    assert report["stranger"] < CLOSE
    assert report["beside a stranger"] < CLOSE


def test_the_face_word_is_found_by_the_tokenizer(report: dict[str, Any]) -> None:
    length, short, index = report["long prompt"]
    assert (length, short) == (154, 77) and index > 77
    assert report["token"] == 1710  # "face" in CLIP's vocabulary
    assert report["long positive"] < CLOSE
    assert report["long negative"] < CLOSE
    assert report["several words"] == [2, 5, 11]
    assert report["phrase"] == [2, 3]


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("missing word", "does not hold the face word 'face'"),
        ("empty word", "The face word is empty"),
        ("no picture", "Connect source, or a clip_vision_output"),
        ("no encoder", "Connect Load CLIP Vision to clip_vision"),
        ("wrong encoder", "gives 81 numbers for a picture, the VCM weights 'test' need 80"),
        ("no face part", "Choose InstantID's ip-adapter.bin as face weights"),
        ("demo's face", "need insightface's antelopev2"),
        ("another UNet", "The VCM weights 'small' are for a UNet with 5 cross-attentions"),
        ("applied twice", "Connect the MODEL that went into that one"),
        ("empty range", "Set end higher than start"),
        ("bad table", "up_blocks.7"),
        ("another's conditioning", "come out of two different Apply VCM nodes"),
    ],
)
def test_mistakes_are_named(report: dict[str, Any], mistake: str, said: str) -> None:
    assert said in report[mistake]


def adapter_files(folder: Path, untrained_demo: tuple[Path, Path]) -> None:
    """An IP-Adapter and an InstantID file that fit the demo's UNet, with the released layouts."""
    shapes = load_file(untrained_demo[0])
    order = ["down_blocks", "up_blocks", "mid_block"]
    names = sorted(
        (n for n in shapes if n.startswith("unet.") and n.endswith("attn2.to_q.weight")),
        key=lambda n: (order.index(n.split(".")[1]), n),
    )
    torch.manual_seed(0)
    attention = {
        f"{2 * i + 1}.to_{side}_ip.weight": torch.randn(shapes[name].shape[0], 128)
        for i, name in enumerate(names)
        for side in "kv"
    }
    image = ImageProjection(128, 1024, 4).state_dict()
    face = Resampler(64, 1, 64, 1, 4, 512, 128, 2).state_dict()
    flat = {f"image_proj.{k}": x for k, x in image.items()}
    flat |= {f"ip_adapter.{k}": x for k, x in attention.items()}
    for name in ("ipadapter", "instantid"):
        (folder / "models" / name).mkdir(parents=True, exist_ok=True)
    save_file(flat, folder / "models" / "ipadapter" / "tiny.safetensors")
    torch.save(
        {"image_proj": face, "ip_adapter": attention},
        folder / "models" / "instantid" / "ip-adapter.bin",
    )


def graph(**inputs: Any) -> dict[str, Any]:
    """Load VCM and Apply VCM on the demo's models and a demo person."""
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "1": ("PoseTransferDemoModels", {}),
        "2": ("PoseTransferDemoPerson", {"identity": 19, "source_pose": 29, "target_pose": 9}),
        "3": ("PoseTransferLoadVCM", {"image_weights": "tiny.safetensors",
                                      "face_weights": "ip-adapter.bin"}),
        "4": ("PoseTransferApplyVCM", {
            "model": ["1", 0], "clip": ["1", 1], "vcm": ["3", 0], "prompt": "A man with face.",
            "negative_prompt": "", "face_word": "face", "blocks": "uniform", "image_scale": 1.0,
            "block_table": "", "face_scale": 0.0, "start": 0.0, "end": 1.0, "crop": "center",
            "source": ["2", 0], **inputs,
        }),
        "5": ("EmptyLatentImage", {"width": 192, "height": 256, "batch_size": 2}),
        "6": ("KSampler", {
            "model": ["4", 0], "positive": ["4", 1], "negative": ["4", 2], "latent_image": ["5", 0],
            "seed": 1, "steps": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1.0,
        }),
        "7": ("VAEDecode", {"samples": ["6", 0], "vae": ["1", 2]}),
        "8": ("PreviewImage", {"images": ["7", 0]}),
    }  # fmt: skip
    return {i: {"class_type": kind, "inputs": values} for i, (kind, values) in nodes.items()}


def test_files_of_the_model_folders_are_listed_and_missing_inputs_named(
    comfy: Any, server: Any, untrained_demo: tuple[Path, Path]
) -> None:
    adapter_files(server.base_directory, untrained_demo)
    options = comfy.object_info()["PoseTransferLoadVCM"]["input"]["required"]
    assert "tiny.safetensors" in json.dumps(options["image_weights"])
    assert "ip-adapter.bin" in json.dumps(options["face_weights"])
    with pytest.raises(WorkflowError, match="Connect Load CLIP Vision to clip_vision"):
        comfy.run(graph())
