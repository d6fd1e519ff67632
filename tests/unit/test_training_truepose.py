# SPDX-License-Identifier: GPL-3.0-or-later
"""TruePose on a user's data: it learns, resumes exactly, splits over processes, and is saved."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, UNet2DConditionModel
from PIL import Image

from pose_transfer.training.__main__ import main
from pose_transfer.training.user.config import read_config
from pose_transfer.training.user.figures import read_log
from pose_transfer.training.user.run import run
from pose_transfer.training.user.truepose import TruePoseSettings
from pose_transfer.training.user.truepose_nets import new_pair, read_pair
from pose_transfer.truepose import CROPPED, REGIONS, context_regions, region_crops
from pose_transfer.truepose.checkpoint import load_pair

PACK = Path(__file__).parents[2]
small = SimpleNamespace(**runpy.run_path(str(PACK / "tests" / "training_data.py")))
WIDTH = 16
"""Of the small CLIP's embedding."""


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """accelerate allows one precision for a process; here one for each test."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def project(tmp_path: Path, small_unet: UNet2DConditionModel) -> Path:
    """A folder with pictures, a diffusers folder, a CLIP and a parser."""
    small.write_folder(tmp_path)
    small.write_base(tmp_path / "sd", small_unet)
    small.write_clip(tmp_path / "clip", WIDTH)
    small.write_parser(tmp_path / "segformer")
    return tmp_path


def config(project: Path, output: str = "out", **groups: Any) -> Path:
    groups["training"] = {"output": output, **groups.get("training", {})}
    groups["model"] = {
        "base": "sd", "image_tower": "clip", "parser": "segformer", "sheet_steps": 1,
        **groups.get("model", {}),
    }  # fmt: skip
    data = {"layout": "folder", "pairs": "pairs.csv", "images": "images", **groups.pop("data", {})}
    return small.write_config(project / f"{output}.yaml", data, **groups)


def losses(folder: Path, name: str = "loss") -> list[float]:
    return read_log(folder / "truepose.jsonl")[name][1]


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "truepose.pt", weights_only=True)


def test_both_nets_learn_and_load_truepose_gets_all_it_needs(project: Path) -> None:
    training = {"epochs": 20, "learning_rate": 3e-3, "log_every": 8, "save_every": 8,
                "sheet_every": 20}  # fmt: skip
    out = run(
        "truepose",
        config(project, training=training, model={"source_net": "own", "sheet_steps": 2},
               data={"held_out": "pairs.csv"}),
    )  # fmt: skip
    held_out = losses(out.parent, "held_out_loss")
    assert len(held_out) == 2 and held_out[1] < 0.97 * held_out[0]
    assert losses(out.parent, "alignment")[0] > 0
    file = load_pair(out)
    assert file.source is not None and set(file.parts) == {"image_tokens", "pose_encoder"}
    assert file.config["prediction"] == "epsilon" and file.config["latent_scale"] == 0.5
    assert file.config["image_tokens"] == {"embed_width": WIDTH, "context_width": 12, "tokens": 4}
    average = state(out.parent)["average"]
    assert torch.equal(file.target["conv_in.weight"], average["unet.conv_in.weight"])
    began = new_pair(project / "sd", WIDTH, 4, own_source=True, aligned=True)
    assert began.nets.source_unet is not None
    for net, old in ((file.target, began.nets.unet), (file.source, began.nets.source_unet)):
        first = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight"
        assert not torch.equal(net[first], old.state_dict()[first])
    # What nobody hears of SourceNet stays, and the autoencoder, too.
    assert torch.equal(file.source["conv_out.weight"], began.nets.unet.conv_out.weight)
    assert all(torch.equal(file.vae[k], x) for k, x in began.vae.state_dict().items())
    with Image.open(out.parent / "sheets" / "0000040.png") as sheet:
        assert sheet.width > 4 * small.WIDTH and sheet.height > 2 * small.HEIGHT


def test_every_picture_is_encoded_and_parsed_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []

    def watched(path: Path) -> Any:
        parser = small.Halves()
        monkeypatch.setattr(parser, "parse", lambda p, of=parser.parse: parsed.append(1) or of(p))
        return parser

    monkeypatch.setattr("pose_transfer.training.user.truepose.load_parser", watched)
    path = config(project, training={"epochs": 0.5})
    out = run("truepose", path).parent
    assert len(parsed) == 8
    assert len(list((out / "regions").iterdir())) == 8
    assert len(list((out / "latents").iterdir())) == 16, "both ways round"
    run("truepose", path, until=0)
    assert len(parsed) == 8


def test_a_stopped_run_goes_on_bit_for_bit(project: Path) -> None:
    whole = run("truepose", config(project, "whole", training={"epochs": 2})).parent
    path = config(project, "parts", training={"epochs": 2})
    run("truepose", path, until=2)
    parts = run("truepose", path).parent
    assert losses(parts) == losses(whole) and len(losses(whole)) == 4
    a, b = state(whole), state(parts)
    for name in ("module", "average"):
        assert all(torch.equal(a[name][k], b[name][k]) for k in a[name])


def test_accumulation_and_checkpointing_change_little(project: Path) -> None:
    def first_losses(output: str, **training: Any) -> list[float]:
        path = config(
            project, output, model={"source_net": "own"}, training={"epochs": 1, **training}
        )
        return losses(run("truepose", path).parent)

    plain = first_losses("plain")
    assert first_losses("parts", accumulation=4) == pytest.approx(plain, rel=1e-4)
    assert first_losses("less", gradient_checkpointing=True) == pytest.approx(plain, rel=1e-4)


def test_two_processes_learn_what_one_does(project: Path) -> None:
    """Also that no parameter of a SourceNet of its own waits for a gradient in vain."""
    one, two = (
        config(project, x, model={"source_net": "own"}, training={"epochs": 2})
        for x in ("one", "two")
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "pose_transfer.training", "truepose", "--config", str(two)],
        env={**os.environ, "PYTHONPATH": str(PACK), "OMP_NUM_THREADS": "1",
             "ACCELERATE_USE_CPU": "true"},
        check=True, timeout=300, capture_output=True, cwd=project,
    )  # fmt: skip
    alone = losses(run("truepose", one).parent)
    assert losses(project / "two") == pytest.approx(alone, rel=1e-4) and len(alone) == 4
    a, b = (state(project / x)["average"] for x in ("one", "two"))
    assert all(torch.allclose(a[k], b[k], atol=1e-3) for k in a)


def test_tokens_by_region_and_going_on_from_a_pair(project: Path) -> None:
    model = {"region_tokens": True, "tokens": 2, "alignment": 0.0}
    out = run("truepose", config(project, model=model, training={"epochs": 1}))
    file = load_pair(out)
    assert file.source is None and file.config["image_tokens"]["tokens"] == 2
    again = {**model, "base": None, "truepose": "out/truepose.safetensors"}
    further = run("truepose", config(project, "further", model=again, training={"epochs": 1}))
    a, b = file.target["conv_in.weight"], load_pair(further).target["conv_in.weight"]
    assert a.shape == b.shape and not torch.equal(a, b)
    nets = read_pair(out, WIDTH, aligned=True).nets
    assert torch.equal(nets.unet.conv_in.weight, a)


def test_the_crops_are_those_of_the_regions() -> None:
    picture = torch.arange(40 * 20 * 3, dtype=torch.float32).view(1, 40, 20, 3)
    maps = torch.zeros(len(REGIONS), 20, 10)
    maps[REGIONS.index("face"), 2:5, 4:6] = 1.0  # rows 4 to 10, columns 8 to 12 of the picture
    crops = dict(zip(CROPPED, region_crops(picture, maps), strict=True))
    assert torch.equal(crops["face"], picture[:, 3:11, 7:13])
    assert torch.equal(crops["upper"], picture)
    owners = context_regions(2)
    assert owners.shape == (2 * (1 + len(CROPPED)), len(REGIONS))
    assert owners[:2].sum() == 0 and owners[2:].sum(1).eq(1).all()
    assert owners[2, REGIONS.index("face")] == owners[3, REGIONS.index("face")] == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"truepose": "x.safetensors"}, "give either 'base' or 'truepose'"),
        ({"parser": "clip/config.json"}, "is no parser"),
        ({"base": None, "truepose": "demo.safetensors"}, "is no pair that this command wrote"),
        ({"base": "xl"}, "is not of the kind of Stable Diffusion 1 or 2"),
        ({"tokens": 0}, "tokens and sheet_steps must be 1 or more"),
    ],
)
def test_mistakes_are_said_in_one_line(
    project: Path, changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str],
    write_demo_pair: Callable[[Path], Path],
) -> None:  # fmt: skip
    if changed.get("truepose") == "demo.safetensors":
        write_demo_pair(project).rename(project / "demo.safetensors")
    if changed.get("base") == "xl":
        wide = UNet2DConditionModel(
            block_out_channels=(8, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), norm_num_groups=4,
            cross_attention_dim=12, attention_head_dim=1, addition_embed_type="text_time",
            addition_time_embed_dim=4, projection_class_embeddings_input_dim=20,
        )  # fmt: skip
        small.write_base(project / "xl", wide)
    assert main(["truepose", "--config", str(config(project, model=changed))]) == 1
    text = capsys.readouterr().err
    assert said in text and "Traceback" not in text


@pytest.fixture
def write_demo_pair() -> Callable[[Path], Path]:
    from pose_transfer.demo.models import load_base, load_fpdm
    from pose_transfer.training.truepose_pair import new_pair as new_demo_pair
    from pose_transfer.training.truepose_pair import write_truepose

    def write(folder: Path) -> Path:
        base, fpdm = load_base(), load_fpdm()
        return write_truepose(folder, new_demo_pair(base, fpdm), base, fpdm)

    return write


def test_the_shipped_configuration_is_read() -> None:
    settings = read_config(PACK / "docs" / "training" / "truepose.yaml", TruePoseSettings)
    assert settings.training.output == PACK / "docs/training/runs/truepose"
    for field in ("epochs", "batch", "learning_rate", "warm_up_epochs"):
        assert getattr(settings.training, field) == getattr(type(settings.training), field)


def test_other_noise_levels_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DDPMScheduler(beta_end=0.02).save_pretrained(project / "sd" / "scheduler")
    assert main(["truepose", "--config", str(config(project))]) == 1
    assert "noise levels" in capsys.readouterr().err
