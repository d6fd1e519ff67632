# SPDX-License-Identifier: GPL-3.0-or-later
"""One-shot tuning of the host's own models: what is learnt, who can read it, what is left."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from pose_transfer.client import ComfyServer, WorkflowError
from pose_transfer.oneposetrans.settings import TuningSettings

CLOSE = 1e-4
FP16 = 2e-3  # files hold float16; diffusers and the host round the product differently
UNETS = ("sd15", "sd21", "sdxl")


def test_tuning_in_the_host(run_in_host: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    report = run_in_host("in_host_tuning.py", folder=str(tmp_path))

    for kind in (*UNETS, "sd3"):
        of_kind = report[kind]
        assert of_kind["unchanged"], kind
        assert of_kind["random numbers untouched"], kind
        assert of_kind["same seed"] and of_kind["same loss"] and not of_kind["other seed"], kind
        assert len(of_kind["losses"]) == 3 and all(loss > 0 for loss in of_kind["losses"])
        assert of_kind["previews"] == [1, 64, 64, 3]
        assert of_kind["learnt"] > 10 * CLOSE, kind
        assert of_kind["products by oneDNN"] > 100, kind
        assert of_kind["stock loader"] < CLOSE, kind
        assert of_kind["stock loader from file"] < CLOSE, kind
        assert of_kind["gain"] < CLOSE, kind
    for kind in UNETS:
        of_kind = report[kind]
        assert of_kind["twin"] < CLOSE, f"{kind}: diffusers' twin is no twin"
        assert of_kind["diffusers"] < CLOSE + FP16 * of_kind["learnt"], kind
        assert of_kind["diffusers' file"] < 10 * CLOSE, kind
        assert of_kind["its effect"] > 100 * CLOSE, kind
        assert of_kind["attentions"] == ["_to_k", "_to_q", "_to_v", "out_0"]
    # Two attentions a block, four projections each, one or two blocks each.
    assert [report[kind]["layers"] for kind in UNETS] == [32, 32, 64]
    assert report["sd15"]["first block"] == "down_blocks.0.attentions.0"
    assert report["sd3"]["first block"] == "joint_blocks.0"
    assert "joint_blocks.1" in report["sd3"]["no injection"]

    assert report["cancelled"] in (2, 3), "within one step"
    assert report["unchanged after cancel"]
    assert report["error"] == "a patch fails"
    assert report["unchanged after error"]
    assert report["batches"] == [4, 4, 2, 2, 2, 2, 2, 2]
    assert report["said"] and report["retried"] < 1e-3
    assert report["unchanged after memory"]

    assert report["report"].startswith("3 steps")
    assert "tuned earlier" in report["found"]
    assert report["cached calls"] == 0 and report["cached same"]
    assert report["keys"] == 6 and report["key again"]
    assert report["patched"] == [True] * 5

    assert report["control encoded"] == 1, "the pose is encoded once for all steps"
    assert report["control matters"] > 1e-4 and report["control ignored"]
    assert report["control keys"] == 3 and report["control key again"]
    assert report["control leaves"]

    assert report["only"] == ["lora_unet_up_blocks_1"]
    assert "sideways" in report["unknown block"] and "up_blocks.1" in report["unknown block"]
    assert "8 channels" in report["wrong vae"]
    assert "2 parts" in report["two captions"]
    assert "None of the LoRA's 1 tensors" in report["strange lora"]
    assert "9x9" in report["wrong lora"]
    assert "connect 'lora'" in report["no lora"]
    assert report["injection"] == [0.4, 2.0]


def test_the_likest_weights_are_kept_and_a_stop_is_heard_in_previews(
    run_in_host: Callable[..., dict[str, Any]],
) -> None:
    report = run_in_host("in_host_keep_best.py")

    assert report["likest"] == [2]
    assert report["diverged first"] == [2], "a preview that is no picture is not the likest"
    assert report["about"] == [2, None] and "kept step 2 (likeness 0.200)" in report["said"]
    assert report["none"] == [3], "the last good weights"
    assert "no preview could be compared" in report["none said"]

    assert report["face"][0] == [2] and report["face"][1] == pytest.approx([0.5, 0.75, 0.25])
    assert "kept step 2 (likeness 0.750)" in report["face"][2]
    assert report["without face"][0] == [2], "a preview without a face is the least like"
    for nobody in ("no face", "no face in photo"):
        assert report[nobody][0] == [3] and "no preview could be compared" in report[nobody][2]
    steps, scores, _ = report["face and picture"]
    assert steps == [3] and scores == pytest.approx([0.3, 0.225, 0.575], abs=1e-5)
    assert report["picture only"][0] == [2], "faces that are nowhere do not count"
    assert report["face keys"] == 5, "none, a face, an empty one, beside either CLIP Vision"

    assert report["seen"] == [1, 48, 48, 3]
    assert report["person"] and report["around"] == [0.5]
    assert report["background"] and report["without mask"]

    assert report["encoded"] == [1, 1], "each photo once, whatever the steps"
    assert report["second photo matters"] and report["photos have a key"]

    assert report["stopped"] in (3, 4), "within one call of the model"
    assert report["batches"] == [4, 4, 2, 2]
    assert report["unchanged"]


def graph(**tuning: Any) -> dict[str, Any]:
    """The demo's base tuned on a rendered person, and a picture of it under style injection."""
    nodes = {
        "demo": ("PoseTransferDemoModels", {}),
        "person": (
            "PoseTransferDemoPerson", {"identity": 19, "source_pose": 29, "target_pose": 9}
        ),
        "tune": (
            "PoseTransferTuneLoRA",
            {
                "model": ["demo", 0], "clip": ["demo", 1], "vae": ["demo", 2],
                "photos": ["person", 0], "prompt": "A man with face.", "steps": 2,
                "learning_rate": 0.001, "rank": 4, "alpha": 4.0, "batch": 1, "resolution": 64,
                "crop": "random squares", "seed": 0, "preview_every": 1, "blocks": "",
                "min_snr_gamma": 5.0, "noise_offset": 0.05, **tuning,
            },
        ),
        "apply": (
            "PoseTransferApplyLoRA",
            {
                "model": ["demo", 0], "lora": ["tune", 0], "file": "(from the input 'lora')",
                "preset": "style injection", "strength": 1.0, "table": "",
            },
        ),
        "words": ("CLIPTextEncode", {"clip": ["demo", 1], "text": "A man with face."}),
        "empty": ("VAEEncode", {"vae": ["demo", 2], "pixels": ["tune", 3]}),
        "sample": (
            "KSampler",
            {
                "model": ["apply", 0], "positive": ["words", 0], "negative": ["words", 0],
                "latent_image": ["empty", 0], "seed": 0, "steps": 1, "cfg": 1.0,
                "sampler_name": "euler", "scheduler": "normal", "denoise": 0.5,
            },
        ),
        "decode": ("VAEDecode", {"vae": ["demo", 2], "samples": ["sample", 0]}),
        "previews": ("SaveImage", {"images": ["tune", 3], "filename_prefix": "previews"}),
        "result": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "result"}),
    }  # fmt: skip
    return {
        name: {"class_type": kind, "inputs": inputs, "_meta": {"title": name}}
        for name, (kind, inputs) in nodes.items()
    }


def offered(comfy: Any) -> set[str]:
    """The LoRA files that Apply LoRA lists."""
    files = comfy.object_info()["PoseTransferApplyLoRA"]["input"]["required"]["file"]
    return {name for name in files[1]["options"] if name.endswith(".safetensors")}


def test_a_graph_tunes_and_uses_what_was_learnt(comfy: Any) -> None:
    before = offered(comfy)
    result = comfy.run(graph())
    previews = [np.asarray(Image.open(io.BytesIO(data))) for data in result.images["previews"]]
    assert [picture.shape for picture in previews] == [(64, 64, 3)] * 2
    assert len(result.images["result"]) == 2
    assert len(offered(comfy) - before) == 1


def files(server: ComfyServer) -> set[Path]:
    """The LoRAs that the server has kept."""
    folder = server.base_directory / "output" / "pose_transfer" / "loras"
    return set(folder.glob("*.safetensors"))


def about(path: Path) -> dict[str, Any]:
    """How a LoRA was tuned, by its file."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["pose_transfer_tuning"])


def test_a_lora_is_learnt_beside_the_visual_consistency_module(
    server: ComfyServer, comfy: Any
) -> None:
    """On the MODEL and positive of Apply VCM: the module acts while it is learnt."""
    nodes = graph(seed=4, preview_every=0, positive=["vcm", 1], model=["vcm", 0])
    demo = "mannequin demo (comes with the pack)"
    load = {"image_weights": demo, "face_weights": "of the same file"}
    apply = {
        "model": ["demo", 0], "clip": ["demo", 1], "vcm": ["load", 0],
        "prompt": "A man with face.", "negative_prompt": "", "face_word": "face",
        "blocks": "uniform", "image_scale": 1.0, "block_table": "", "face_scale": 0.0,
        "start": 0.0, "end": 1.0, "crop": "center", "source": ["person", 0],
    }  # fmt: skip
    for name, kind, inputs in (
        ("load", "PoseTransferLoadVCM", load), ("vcm", "PoseTransferApplyVCM", apply)
    ):  # fmt: skip
        nodes[name] = {"class_type": kind, "inputs": inputs, "_meta": {"title": name}}
    nodes["apply"]["inputs"]["model"] = ["vcm", 0]
    for name in ("positive", "negative"):
        nodes["sample"]["inputs"][name] = ["vcm", 1]
    losses = []
    for scale in (1.0, 0.0):
        before = files(server)
        comfy.run(nodes, {"vcm": {"image_scale": scale}}, timeout=300)
        (made,) = files(server) - before
        losses.append(about(made)["loss"])
    assert abs(losses[0][0] - losses[1][0]) > 1e-4, "the module did nothing in the first step"
    comfy.run(nodes, {"vcm": {"image_scale": 1.0}, "previews": {"filename_prefix": "again"}})
    assert files(server) == before | {made}, "it was tuned again"


def test_the_demo_s_face_encoder_chooses_the_weights(server: ComfyServer, comfy: Any) -> None:
    """In its real size, with the pose of the photo known, so that previews show a face."""
    nodes = graph(
        seed=3, steps=3, resolution=192, crop="whole photo", positive=["posed", 0],
        face_embedding=["face", 0],
    )  # fmt: skip
    more = {
        "face": (
            "PoseTransferFaceEmbedding",
            {
                "image": ["person", 0], "encoder": "mannequin (demo)", "face": "largest",
                "index": 0, "on_missing": "error", "crop_size": 64, "crop_margin": 1.6,
                "mask_shape": "ellipse", "mask_grow": 0.0, "mask_feather": 16.0,
            },
        ),
        "drawn": (
            "PoseTransferDrawPose",
            {
                "pose": ["person", 4], "width": 0, "height": 0, "style": "fpdm",
                "min_confidence": 0.1,
            },
        ),
        "posed": (
            "ControlNetApplyAdvanced",
            {
                "positive": ["words", 0], "negative": ["words", 0], "control_net": ["demo", 4],
                "image": ["drawn", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0,
            },
        ),
    }  # fmt: skip
    for name, (kind, inputs) in more.items():
        nodes[name] = {"class_type": kind, "inputs": inputs, "_meta": {"title": name}}
    del nodes["result"]
    before = files(server)
    assert len(comfy.run(nodes, timeout=300).images["previews"]) == 3
    (made,) = files(server) - before
    told = about(made)
    scores = told["likeness"]
    assert len(scores) == 3 and all(score is not None and -1 <= score <= 1 for score in scores)
    assert max(scores) > -1, "no face was found in any preview"
    assert told["kept_step"] == 1 + scores.index(max(scores))


def test_the_widgets_begin_with_the_published_settings(comfy: Any) -> None:
    inputs = comfy.object_info()["PoseTransferTuneLoRA"]["input"]
    shown = {
        name: options["default"]
        for name, (_, options) in (inputs["required"] | inputs["optional"]).items()
        if "default" in options
    }
    published = {
        "steps": 60, "learning_rate": 1e-3, "rank": 32, "alpha": 32.0, "batch": 2,
        "resolution": 512, "crop": "random squares", "min_snr_gamma": 0.0, "noise_offset": 0.0,
    }  # fmt: skip
    assert {name: shown[name] for name in published} == published
    settings = TuningSettings()
    assert not settings.whole_photo and settings.blocks == ()
    for name in published.keys() - {"crop"}:
        assert getattr(settings, name) == shown[name]


def test_a_caption_must_come_from_somewhere(comfy: Any) -> None:
    nodes = graph(seed=1)
    del nodes["tune"]["inputs"]["clip"]
    with pytest.raises(WorkflowError, match="Connect 'clip'"):
        comfy.run(nodes)
