# SPDX-License-Identifier: GPL-3.0-or-later
"""Load FPDM on the released files, Save FPDM, and files that must not be trusted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from pose_transfer.client import ComfyServer, WorkflowError

DATA = Path(__file__).parent.parent / "data" / "fpdm"
DEMO = "mannequin demo (comes with the pack)"
CLOSE = 1e-4


def test_loading_and_saving_in_the_host(run_in_host: Callable[..., dict[str, Any]]) -> None:
    report = run_in_host("in_host_fpdm_files.py", tiny_path=str(DATA / "tiny.safetensors"))

    assert report["two files: unet"] < CLOSE
    assert report["two files: fusion"] < CLOSE
    assert report["two files: vae passed on"]
    assert report["one file: no vae"] == "ExecutionBlocker"
    assert "as the fusion file" in report["one file: error"]
    assert report["one file: without a fusion embedding"] == 4
    assert report["changed file is read again"]

    assert report["saved: listed"] == ["half_00001_.safetensors", "tuned_00001_.safetensors"]
    assert report["saved: unet"] < CLOSE
    assert report["saved: lora's effect"] > 10 * CLOSE
    assert report["saved: fusion"] < CLOSE
    assert report["saved: vae"] < CLOSE
    assert report["saved: names"]
    assert report["saved: scale"] == report["half: scale"] == 0.5
    assert report["saved: model stays"] < CLOSE
    assert report["half: dtypes"] == ["torch.float16"]
    assert report["half: unet"] < CLOSE, "the tiny weights lie on the grid of fp16"
    assert report["half: no vae"] == "ExecutionBlocker"

    # Loading copies no tensor that is of the right dtype, and converts none before its use.
    assert report["mapped: unet of the dtype it runs in"] in (1.0, None)
    assert report["mapped: towers"] in (1.0, None)
    assert report["stored as"] == ["torch.float16"] and report["used as"] == ["torch.float32"]
    assert report["half: fusion"] < CLOSE


class WritesAFile:
    """A pickle of this writes a file when its code runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (os.fspath(self.path), "w")


def load_and_save(checkpoint: str, **inputs: Any) -> dict[str, Any]:
    """Load FPDM into Save FPDM; `inputs` with a node's name in front go to that node."""
    load = {k.removeprefix("load_"): v for k, v in inputs.items() if k.startswith("load_")}
    save = {k.removeprefix("save_"): v for k, v in inputs.items() if k.startswith("save_")}
    chosen = {"filename_prefix": "pose_transfer/fpdm/test", "dtype": "fp16", **save}
    return {
        "1": {"class_type": "PoseTransferLoadFPDM", "inputs": {"checkpoint": checkpoint, **load}},
        "2": {
            "class_type": "PoseTransferSaveFPDM",
            "inputs": {"model": ["1", 0], "fpdm": ["1", 1], **chosen},
            "_meta": {"title": "Save"},
        },
    }


def error_of(comfy: Any, workflow: dict[str, Any]) -> str:
    with pytest.raises(WorkflowError) as caught:
        comfy.run(workflow)
    return str(caught.value)


@pytest.fixture
def models(server: ComfyServer) -> Path:
    folder = server.base_directory / "models" / "pose_transfer" / "fpdm"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("place", ["checkpoint", "fusion"])
def test_a_pickle_that_would_write_a_file_writes_nothing(
    comfy: Any, models: Path, tmp_path: Path, place: str
) -> None:
    content = {"state_dict": {"x": torch.ones(1)}, "callbacks": WritesAFile(tmp_path / "written")}
    torch.save(content, models / "evil.ckpt")
    good = models / "good.safetensors"
    good.write_bytes((DATA / "tiny.safetensors").read_bytes())
    checkpoint, fusion = {
        "checkpoint": ("evil.ckpt", "in the checkpoint"),
        "fusion": (good.name, "evil.ckpt"),
    }[place]
    error = error_of(comfy, load_and_save(checkpoint, load_fusion=fusion))
    assert "evil.ckpt was refused: it asks for " in error
    assert "io.open, which holds no weights and could run code" in error
    assert not (tmp_path / "written").exists()
    assert comfy.run(load_and_save(good.name)).texts["Save"], "the server goes on"


def test_the_demo_can_be_saved_and_loaded_by_its_new_name(comfy: Any, server: ComfyServer) -> None:
    (path,) = comfy.run(load_and_save(DEMO, save_filename_prefix="pose_transfer/fpdm/demo")).texts[
        "Save"
    ]
    assert Path(path).parent == server.base_directory / "output" / "pose_transfer" / "fpdm"
    info = comfy.object_info()["PoseTransferLoadFPDM"]["input"]
    assert Path(path).name in str(info["required"]["checkpoint"])
    (again,) = comfy.run(load_and_save(Path(path).name)).texts["Save"]
    with safe_open(path, "pt") as one, safe_open(again, "pt") as two:
        assert set(one.keys()) == set(two.keys())
        assert all(torch.equal(one.get_tensor(k), two.get_tensor(k)) for k in one.keys())  # noqa: SIM118
        assert one.metadata()["config"] == two.metadata()["config"]


def test_a_tiny_autoencoder_cannot_be_saved(comfy: Any) -> None:
    error = error_of(comfy, load_and_save(DEMO, save_vae=["1", 2]))
    assert "not Stable Diffusion's kind of autoencoder" in error


def test_the_demo_takes_no_other_fusion_model(comfy: Any, models: Path) -> None:
    (models / "last.ckpt").write_bytes(b"any")
    error = error_of(comfy, load_and_save(DEMO, load_fusion="last.ckpt"))
    assert "The demo has a fusion model of its own" in error


def test_a_missing_fusion_file_is_searched_for_by_name(comfy: Any, models: Path) -> None:
    error = error_of(comfy, load_and_save(DEMO.replace("mannequin", "gone"), load_fusion="no.ckpt"))
    assert "gone demo" in error
    (models / "good.safetensors").write_bytes((DATA / "tiny.safetensors").read_bytes())
    error = error_of(comfy, load_and_save("good.safetensors", load_fusion="no.ckpt"))
    assert "'no.ckpt'" in error
    assert str(models) in error


def test_an_empty_name_is_refused(comfy: Any) -> None:
    assert "filename_prefix is empty" in error_of(
        comfy, load_and_save(DEMO, save_filename_prefix=" ")
    )
