# SPDX-License-Identifier: GPL-3.0-or-later
"""Training on a user's data: it learns, resumes exactly, and splits over processes."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderKL, DDPMScheduler
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

from pose_transfer.errors import CheckpointError
from pose_transfer.fpdm import FPDM, Combiner, load_checkpoint
from pose_transfer.training.__main__ import main
from pose_transfer.training.user.config import read_config
from pose_transfer.training.user.figures import read_log
from pose_transfer.training.user.fpdm import FPDMSettings
from pose_transfer.training.user.ipf import IPFSettings
from pose_transfer.training.user.parts import read_fusion, write_fusion
from pose_transfer.training.user.run import run

PACK = Path(__file__).parents[2]
small = SimpleNamespace(**runpy.run_path(str(PACK / "tests" / "training_data.py")))


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """accelerate allows one precision for a process; here one for each test."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def project(tmp_path: Path, make_fpdm: Callable[..., FPDM]) -> Path:
    """A folder with pictures and a small FPDM file."""
    small.write_folder(tmp_path)
    small.write_models(tmp_path, make_fpdm)
    return tmp_path


def config(project: Path, output: str = "out", **groups: Any) -> Path:
    groups["training"] = {"output": output, **groups.get("training", {})}
    groups["model"] = {"fpdm": "small.safetensors", **groups.get("model", {})}
    data = {"layout": "folder", "pairs": "pairs.csv", "images": "images", **groups.pop("data", {})}
    return small.write_config(project / f"{output}.yaml", data, **groups)


def losses(folder: Path, method: str, name: str = "loss") -> list[float]:
    return read_log(folder / f"{method}.jsonl")[name][1]


def output_layer(fpdm: FPDM) -> torch.Tensor:
    assert fpdm.combiner is not None
    return fpdm.combiner.output_layer.weight


def state(folder: Path, method: str) -> dict[str, Any]:
    return torch.load(folder / f"{method}.pt", weights_only=True)


def test_fpdm_learns_and_saves_what_load_fpdm_reads(project):
    path = config(
        project,
        training={
            "epochs": 16,
            "learning_rate": 3e-3,
            "log_every": 8,
            "save_every": 8,
            "sheet_every": 16,
        },
        model={"sheet_steps": 2},
        data={"held_out": "pairs.csv"},
    )
    out = run("fpdm", path)
    held_out = losses(out.parent, "fpdm", "held_out_loss")
    assert len(held_out) == 2 and held_out[1] < 0.97 * held_out[0]
    assert len(losses(out.parent, "fpdm")) == 4
    trained, began = load_checkpoint(out), load_checkpoint(project / "small.safetensors")
    name, average = "pose_encoder.conv_out.weight", state(out.parent, "fpdm")["average"]
    assert torch.equal(trained.state_dict()[name], average[name])
    for part in ("unet", "pose_encoder", "class_embedding", "source_projection"):
        a, b = (torch.cat([x.flatten() for x in getattr(m, part).parameters()])
                for m in (trained, began))  # fmt: skip
        assert not torch.equal(a, b), part
    for part in ("vae", "source_tower", "image_tower", "combiner"):
        a, b = (getattr(m, part).state_dict() for m in (trained, began))
        assert all(torch.equal(a[k], b[k]) for k in a), part
    with Image.open(out.parent / "sheets" / "0000032.png") as sheet:
        assert sheet.width > 4 * small.WIDTH and sheet.height > 2 * small.HEIGHT
    with Image.open(out.parent / "curves.png") as curves:
        assert curves.width > 800


def test_ipf_learns_from_a_clip_folder_and_saves_a_fusion_file(tmp_path):
    data = small.write_deepfashion(tmp_path)
    torch.manual_seed(0)
    tower = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            image_size=32, patch_size=8, projection_dim=16,
        )
    )  # fmt: skip
    tower.save_pretrained(tmp_path / "clip")
    path = small.write_config(
        tmp_path / "ipf.yaml",
        data,
        model={"tower": "clip", "dropout": 0.0},
        training={"epochs": 15, "batch": 8, "accumulation": 2, "gradient_checkpointing": True},
    )
    out = run("ipf", path)
    values = losses(out.parent, "ipf")
    assert len(values) == 15 and sum(values[-3:]) < 0.9 * sum(values[:3])
    combiner, tower = read_fusion(out)
    average = state(out.parent, "ipf")["average"]
    for part, module in (("combiner", combiner), ("tower", tower)):
        trained = module.state_dict()
        assert all(torch.equal(x, average[f"{part}.{k}"]) for k, x in trained.items())
    with pytest.raises(CheckpointError, match="stage 1 fusion model only"):
        load_checkpoint(out)


def test_a_fusion_file_takes_its_place_beside_a_second_stage(project, make_fpdm):
    other = make_fpdm(combiner=Combiner(10, 9, 5))
    write_fusion(project / "ipf.safetensors", other.combiner, other.image_tower)
    both = load_checkpoint(project / "small.safetensors", project / "ipf.safetensors")
    assert torch.equal(output_layer(both), output_layer(other))


def test_ipf_continues_an_fpdm_file(project):
    path = config(project, model={"dropout": 0.0}, training={"epochs": 2, "batch": 8})
    out = run("ipf", path)
    trained, began = load_checkpoint(out), load_checkpoint(project / "small.safetensors")
    assert not torch.equal(output_layer(trained), output_layer(began))
    name = "pose_encoder.conv_in.weight"
    assert torch.equal(trained.get_parameter(name), began.get_parameter(name))
    figures = read_log(out.parent / "ipf.jsonl")
    assert 1 <= figures["training_pairs_mean_rank"][1][0] <= 16


def test_fpdm_begins_with_folders_and_a_fusion_file(project, make_fpdm, small_unet):
    base = project / "sd"
    small_unet.save_pretrained(base / "unet")
    small.small_autoencoder().save_pretrained(base / "vae")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDPMScheduler(**schedule, prediction_type="epsilon").save_pretrained(base / "scheduler")
    dino = Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=3, mlp_ratio=2,
                        image_size=48, patch_size=16)  # fmt: skip
    Dinov2Model(dino).save_pretrained(project / "dino")
    first = make_fpdm()
    write_fusion(project / "ipf.safetensors", first.combiner, first.image_tower)
    parts = {"fpdm": None, "base": "sd", "source_tower": "dino", "fusion": "ipf.safetensors"}
    path = config(project, model={**parts, "sheet_steps": 1}, training={"epochs": 0.5})
    out = run("fpdm", path)
    made = load_checkpoint(out)
    assert made.preprocess.prediction_type == "epsilon"
    assert made.preprocess.embed_size == (32, 32) and made.preprocess.source_size == (512, 512)
    assert torch.equal(output_layer(made), output_layer(first))
    assert made.vae is not None and made.vae.config["scaling_factor"] == 0.5

    DDPMScheduler(beta_end=0.02).save_pretrained(base / "scheduler")
    with pytest.raises(CheckpointError, match="noise levels"):
        run("fpdm", config(project, "other-levels", model=parts))
    small.save_checkpoint(first, project / "small.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.fpdm: .* has no vae. Give it as model\.b"):
        run("fpdm", config(project, "no-vae"))


def test_a_stopped_run_goes_on_bit_for_bit(project):
    whole = run("fpdm", config(project, "whole", model={"sheet_steps": 1})).parent
    path = config(project, "parts", model={"sheet_steps": 1})
    run("fpdm", path, until=3)
    parts = run("fpdm", path).parent
    assert losses(parts, "fpdm") == losses(whole, "fpdm") and len(losses(whole, "fpdm")) == 6
    a, b = (state(x, "fpdm") for x in (whole, parts))
    assert a["step"] == b["step"] == 6
    for name in ("module", "average"):
        assert all(torch.equal(a[name][k], b[name][k]) for k in a[name])
    before = (parts / "fpdm.jsonl").read_text()
    run("fpdm", path)
    assert (parts / "fpdm.jsonl").read_text() == before


def test_a_run_does_not_go_on_with_other_settings(project, capsys):
    def going_on(**groups: Any) -> str:
        path = config(project, **{**began, **groups})
        code = main(["ipf", "--config", str(path)])
        said = capsys.readouterr().err
        assert code == (1 if said else 0), said
        return said

    began = {"training": {"epochs": 1}}
    assert going_on() == ""
    kept = (project / "out" / "ipf.pt").read_bytes()
    for groups, key in (
        (
            {"training": {"epochs": 2, "learning_rate": 2e-3}},
            "training.learning_rate is 0.002, and",
        ),
        ({"training": {"epochs": 2, "batch": 2}}, "training.batch is 2, and was 4"),
        ({"data": {"flip": 0.25}}, "data.flip is 0.25, and was 0.5"),
        ({"data": {"source_sizes": [32]}}, "data.source_sizes is [32], and was [32, 48]"),
        ({"model": {"temperature": 0.1}}, "model.temperature is 0.1"),
    ):
        said = going_on(**groups)
        assert key in said and "out/ipf.pt was begun" in said and "Traceback" not in said
    pairs = project / "pairs.csv"
    listed = pairs.read_text()
    pairs.write_text(listed.rsplit("\n", 2)[0] + "\n")
    assert "data.pairs is 7 pairs" in going_on()
    pairs.write_text(listed)
    weights = project / "small.safetensors"
    saved = weights.read_bytes()
    weights.write_bytes(saved[:-1] + bytes([saved[-1] ^ 1]))
    assert "model.fpdm is" in going_on()
    weights.write_bytes(saved)
    assert (project / "out" / "ipf.pt").read_bytes() == kept


def test_a_run_goes_on_longer_elsewhere_and_with_another_rhythm(project):
    run("fpdm", config(project, model={"sheet_steps": 1}, training={"epochs": 0.5}))
    assert state(project / "out", "fpdm")["terms"]["data.height"] == str(small.HEIGHT)
    moved = project.parent / "moved"
    project.rename(moved)
    rhythm = {"epochs": 1, "save_every": 1, "sheet_every": 7, "accumulation": 2}
    data = {"workers": 1, "held_out": "pairs.csv"}
    run("fpdm", config(moved, model={"sheet_steps": 2}, training=rhythm, data=data))
    assert state(moved / "out", "fpdm")["step"] == 2
    old = state(moved / "out", "fpdm")
    del old["terms"]  # as written before there were any
    torch.save(old, moved / "out" / "fpdm.pt")
    run("fpdm", config(moved, model={"sheet_steps": 1}, training={"epochs": 1.5}))
    assert state(moved / "out", "fpdm")["step"] == 3


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PACK), "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true"}  # fmt: skip


@pytest.mark.parametrize("method", ["ipf", "fpdm"])
def test_a_killed_run_goes_on_bit_for_bit(project, method):
    """Weights, their moving average, the optimiser and the log, as if nothing had happened."""
    groups = {"training": {"epochs": 8, "save_every": 2}}
    if method == "fpdm":
        groups["model"] = {"sheet_steps": 1}
    whole = run(method, config(project, "whole", **groups)).parent
    path = config(project, "killed", **groups)
    command = [sys.executable, "-m", "pose_transfer.training", method, "--config", str(path)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if '"step": 5,' in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait(30)
    process.stdout.close()
    killed = state(project / "killed", method)["step"]
    assert process.returncode == -signal.SIGKILL and 4 <= killed < 16
    assert not (project / "killed" / f"{method}.safetensors").exists()
    again = run(method, path).parent
    a, b = (state(x, method) for x in (whole, again))
    assert a["step"] == b["step"] == 16
    for name in ("module", "average"):
        assert a[name].keys() == b[name].keys()
        assert all(torch.equal(a[name][k], b[name][k]) for k in a[name])
    assert same(a["optimizer"], b["optimizer"])
    assert losses(again, method) == losses(whole, method)
    results = [(x / f"{method}.safetensors").read_bytes() for x in (whole, again)]
    assert results[0] == results[1]


def same(a: Any, b: Any) -> bool:
    """Whether nested states are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_two_processes_learn_what_one_does(project):
    """Dropout off: its masks depend on how a batch is split, everything else does not."""
    paths = {
        (method, output): config(
            project, f"{method}_{output}", model={"dropout": 0.0, **more}, training={"epochs": 3}
        )
        for output in ("one", "two")
        for method, more in (("ipf", {}), ("fpdm", {"sheet_steps": 1}))
    }
    script = project / "both.py"
    script.write_text(
        "import sys\nfrom pose_transfer.training.__main__ import main\n"
        "sys.exit(main(['ipf', '--config', sys.argv[1]])\n"
        "         or main(['fpdm', '--config', sys.argv[2]]))\n"
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(script), str(paths["ipf", "two"]), str(paths["fpdm", "two"])],
        env=environment(), check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    for method in ("ipf", "fpdm"):
        one = losses(run(method, paths[method, "one"]).parent, method)
        two = losses(project / f"{method}_two", method)
        assert len(one) == 6
        assert two == pytest.approx(one, rel=1e-4)
        a, b = (torch.load(project / f"{method}_{x}" / f"{method}.pt")["average"]
                for x in ("one", "two"))  # fmt: skip
        assert all(torch.allclose(a[k], b[k], atol=1e-3) for k in a)


def test_accumulation_checkpointing_and_half_precision_change_little(project):
    def first_losses(output: str, **training: Any) -> list[float]:
        model = {"dropout": 0.0, "sheet_steps": 1}
        path = config(project, output, model=model, training={"epochs": 1, **training})
        return losses(run("fpdm", path).parent, "fpdm")

    plain = first_losses("plain")
    assert first_losses("parts", accumulation=4) == pytest.approx(plain, rel=1e-4)
    assert first_losses("less", gradient_checkpointing=True) == pytest.approx(plain, rel=1e-4)
    AcceleratorState._reset_state(True)
    assert first_losses("half", mixed_precision="bf16") == pytest.approx(plain, rel=0.05)


def test_latents_are_encoded_once_and_again_for_a_changed_picture(project, monkeypatch):
    encoded = []
    encode = AutoencoderKL.encode

    def counted(self, x, *args, **kwargs):
        encoded.append(len(x))
        return encode(self, x, *args, **kwargs)

    monkeypatch.setattr(AutoencoderKL, "encode", counted)
    path = config(project, training={"epochs": 0.5}, model={"sheet_steps": 1})
    run("fpdm", path)
    assert sum(encoded) == 16  # eight pictures, both ways round
    run("fpdm", path, until=0)
    assert sum(encoded) == 16
    Image.open(project / "images" / "1_0.png").rotate(90).save(project / "images" / "1_0.png")
    run("fpdm", path, until=0)
    assert sum(encoded) == 24


def test_mistakes_are_said_in_one_line_each(project, capsys):
    (project / "images" / "1_0.png").write_bytes(b"no picture")
    assert main(["fpdm", "--config", str(config(project))]) == 1
    text = capsys.readouterr().err
    assert "1_0.png cannot be read" in text and "row 3" in text and "Traceback" not in text


def test_tensorboard_is_optional(project, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    path = config(project, training={"tensorboard": True, "epochs": 0.5})
    assert main(["ipf", "--config", str(path)]) == 1
    assert "pip install tensorboard" in capsys.readouterr().err


def test_tensorboard_gets_the_figures_of_the_log(project, monkeypatch):
    """The writer stands in for the package, which the tests do without."""
    written: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(project / "out" / "tensorboard") and purge_step == 2

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

    package = SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", package)
    run("ipf", config(project, training={"tensorboard": True, "epochs": 1}))
    logged = losses(project / "out", "ipf")
    assert [value for name, value, _ in written if name == "loss"] == logged
    assert [step for name, _, step in written if name == "loss"] == [1, 2]


def test_shipped_configurations_are_read():
    from accelerate.commands.config.config_args import load_config_from_file

    for name, kind in (("ipf", IPFSettings), ("fpdm", FPDMSettings)):
        settings = read_config(PACK / "docs" / "training" / f"{name}.yaml", kind)
        assert settings.training.output == PACK / "docs/training/runs" / name
        for field in ("epochs", "batch", "learning_rate", "warm_up_epochs", "decay_epochs"):
            assert getattr(settings.training, field) == getattr(type(settings.training), field)
    for name, kind in (("ddp", "MULTI_GPU"), ("fsdp", "FSDP"), ("multi-node", "MULTI_GPU")):
        loaded = load_config_from_file(str(PACK / "docs" / "training" / f"{name}.yaml"))
        assert str(loaded.distributed_type).endswith(kind)
