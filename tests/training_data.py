# SPDX-License-Identifier: GPL-3.0-or-later
"""A small data set of mannequins in both layouts, and small models, for the tests of training."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

from pose_transfer.fpdm import FPDM, save_checkpoint
from pose_transfer.mannequin import Sample, render
from pose_transfer.parsing import ATR_LABELS
from pose_transfer.pose import write_keypoints
from tests.autoencoders import build_autoencoder

HEIGHT, WIDTH = 96, 64
PEOPLE, POSES = 4, 2


def samples() -> list[tuple[int, int, Sample]]:
    return [
        (person, pose, render(10 * person, 20 * person + 10 * pose, HEIGHT, WIDTH))
        for person in range(1, PEOPLE + 1)
        for pose in range(POSES)
    ]


def write_folder(folder: Path) -> dict[str, Any]:
    """The plain layout; returns the configuration's group `data`."""
    images = folder / "images"
    images.mkdir(parents=True)
    for person, pose, sample in samples():
        stem = images / f"{person}_{pose}"
        Image.fromarray(sample.image).save(f"{stem}.png")
        Path(f"{stem}.json").write_text(json.dumps(write_keypoints([sample.pose])))
    names = [
        (f"{i}_{a}.png", f"{i}_{1 - a}.png") for i in range(1, PEOPLE + 1) for a in range(POSES)
    ]
    write_csv(folder / "pairs.csv", [("source", "target"), *names])
    return {"layout": "folder", "pairs": "pairs.csv", "images": "images"}


def write_deepfashion(folder: Path) -> dict[str, Any]:
    """DeepFashion's layout: folders of pictures, one-word names in the pairs and the table."""
    table, rows = ["name:keypoints_y:keypoints_x"], []
    for person, pose, sample in samples():
        path = folder / f"img_highres/WOMEN/Tees_Tanks/id_{person:08d}/0{pose + 1}_1_front.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.image).save(path)
        body = sample.pose.people[0].body
        x, y = body[:, 0] * 176 / WIDTH, body[:, 1] * 256 / HEIGHT
        numbers = [
            [round(float(v)) if c else -1 for v, c in zip(axis, body[:, 2], strict=True)]
            for axis in (y.clip(0, 255), x.clip(0, 175))
        ]
        table.append(f"{one_word(person, pose)}: {numbers[0]}: {numbers[1]}")
        rows.append((one_word(person, pose), one_word(person, 1 - pose)))
    (folder / "annotation.csv").write_text("\n".join(table) + "\n")
    write_csv(folder / "pairs.csv", [("from", "to"), *rows])
    return {
        "layout": "deepfashion",
        "pairs": "pairs.csv",
        "images": "img_highres",
        "keypoints": "annotation.csv",
    }


def one_word(person: int, pose: int) -> str:
    return f"fashionWOMENTees_Tanksid{person:08d}0{pose + 1}_1front.jpg"


def write_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def small_autoencoder() -> AutoencoderKL:
    """One of factor 8, as Stable Diffusion's."""
    torch.manual_seed(3)
    return build_autoencoder(8, 8, 8, 8, norm_num_groups=4, scaling_factor=0.5)


def write_models(folder: Path, make_fpdm: Callable[..., FPDM]) -> Path:
    """A complete small FPDM file."""
    path = folder / "small.safetensors"
    save_checkpoint(make_fpdm(vae=small_autoencoder()), path)
    return path


def write_base(folder: Path, unet: UNet2DConditionModel) -> Path:
    """A diffusers folder: unet, vae, scheduler of Stable Diffusion 1's kind."""
    unet.save_pretrained(folder / "unet")
    small_autoencoder().save_pretrained(folder / "vae")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDPMScheduler(**schedule, prediction_type="epsilon").save_pretrained(folder / "scheduler")
    return folder


def write_clip(folder: Path, width: int) -> Path:
    """A transformers folder with a CLIP vision tower whose embedding is `width` wide."""
    torch.manual_seed(0)
    tower = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            image_size=32, patch_size=8, projection_dim=width,
        )
    )  # fmt: skip
    tower.save_pretrained(folder)
    return folder


def write_parser(folder: Path) -> Path:
    """A SegFormer in the layout of segformer_b2_clothes, for pictures of 64x64 px."""
    torch.manual_seed(5)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, id2label=dict(enumerate(ATR_LABELS)),
        label2id={name: i for i, name in enumerate(ATR_LABELS)},
    )  # fmt: skip
    network = SegformerForSemanticSegmentation(config)
    # A fresh head hardly tells pixels apart.
    torch.nn.init.normal_(network.decode_head.classifier.weight, std=3.0)
    network.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


class Halves:
    """A parser that sees a face above and an upper garment below."""

    name, provider = "halves", "cpu"

    def parse(self, picture: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        labels = np.zeros(picture.shape[:2], np.uint8)
        labels[: len(labels) // 2] = 1
        return labels, ("upper", "face")


def write_config(path: Path, data: dict[str, Any], **groups: dict[str, Any]) -> Path:
    """A configuration for the small data; `groups` are merged into it."""
    config: dict[str, Any] = {
        "data": {"height": HEIGHT, "width": WIDTH, "source_sizes": [32, 48], "workers": 0, **data},
        "training": {
            "output": "out", "epochs": 3, "batch": 4, "accumulation": 1, "learning_rate": 1e-3,
            "ema": 0.5, "log_every": 1, "save_every": 2, "sheet_every": 100, "sheet_pairs": 2,
            "gradient_checkpointing": False,
        },
    }  # fmt: skip
    for name, values in groups.items():
        config[name] = {**config.get(name, {}), **values}
    path.write_text(yaml.safe_dump(config))
    return path
