# SPDX-License-Identifier: GPL-3.0-or-later
"""What an artist may plug in by mistake: a sentence says what to do, and the server lives on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pose_transfer.client import ComfyServer, Workflow, WorkflowError, load_workflow
from pose_transfer.client.workflow import title_of

DEMO = Path(__file__).parents[2] / "workflows" / "api" / "fpdm_demo.json"


class Graph:
    """The demo workflow at one step, to be changed by title."""

    def __init__(self, comfy: Any) -> None:
        self.comfy = comfy
        self.nodes: Workflow = load_workflow(DEMO)
        self["Steps"]["steps"] = 1

    def __getitem__(self, title: str) -> dict[str, Any]:
        return self.nodes[self.id_of(title)]["inputs"]

    def id_of(self, title: str) -> str:
        (node_id,) = (i for i in self.nodes if title_of(self.nodes, i) == title)
        return node_id

    def add(self, class_type: str, **inputs: Any) -> list[Any]:
        """Adds a node; returns its first output as a link."""
        node_id = str(len(self.nodes) + 100)
        self.nodes[node_id] = {"class_type": class_type, "inputs": inputs}
        return [node_id, 0]

    def feed(self, name: str, link: list[Any]) -> None:
        """Puts another picture wherever the demo's source (or pose_map, truth) goes."""
        for node in self.nodes.values():
            if name in node["inputs"] and node["class_type"].startswith("PoseTransfer"):
                node["inputs"][name] = link

    def repeat(self, link: list[Any], amount: int) -> list[Any]:
        return self.add("RepeatImageBatch", image=link, amount=amount)

    def run(self) -> list[Image.Image]:
        """Runs; returns the results."""
        result = self.comfy.run(self.nodes, timeout=300)
        return [Image.open(io.BytesIO(data)) for data in result.images["Save result"]]

    def error(self) -> str:
        with pytest.raises(WorkflowError) as caught:
            self.comfy.run(self.nodes, timeout=300)
        return str(caught.value)


@pytest.fixture
def graph(comfy: Any) -> Iterator[Graph]:
    """The demo; after each test the same server must still run it."""
    yield Graph(comfy)
    (picture,) = Graph(comfy).run()
    assert picture.size == (192, 256)


SOURCE, POSE_MAP, TRUTH = ["1", 0], ["2", 0], ["1", 2]


def test_a_transparent_source_is_laid_over_white(graph: Graph) -> None:
    opaque = graph.add("SolidMask", value=0.0, width=192, height=256)
    graph.feed("source", graph.add("JoinImageWithAlpha", image=SOURCE, alpha=opaque))
    assert len(graph.run()) == 1


def test_a_source_of_any_size_is_taken(graph: Graph) -> None:
    resize = {"upscale_method": "area", "crop": "disabled"}
    odd = graph.add("ImageScale", image=SOURCE, width=101, height=157, **resize)
    graph.feed("source", odd)
    (picture,) = graph.run()
    assert picture.size == (192, 256)


def test_a_pose_map_of_odd_size_is_cropped_to_multiples_of_8(graph: Graph) -> None:
    graph["Draw target pose"].update({"width": 190, "height": 251})
    (picture,) = graph.run()
    assert picture.size == (184, 248)


def test_a_tiny_pose_map_is_refused(graph: Graph) -> None:
    graph["Draw target pose"].update({"width": 5, "height": 64})
    assert "5x64 px, expected at least 8x8. Draw it larger." in graph.error()


@pytest.mark.parametrize("many", ["source", "pose_map"])
def test_one_picture_is_broadcast_to_a_batch(graph: Graph, many: str) -> None:
    graph.feed(many, graph.repeat({"source": SOURCE, "pose_map": POSE_MAP}[many], 2))
    assert len(graph.run()) == 2


def test_unequal_batches_are_named(graph: Graph) -> None:
    graph.feed("source", graph.repeat(SOURCE, 3))
    graph.feed("pose_map", graph.repeat(POSE_MAP, 2))
    error = graph.error()
    assert "source is a batch of 3" in error
    assert "pose map a batch of 2" in error


def test_a_fusion_embedding_of_another_batch_is_named(graph: Graph) -> None:
    graph["Fusion embedding"]["source"] = graph.repeat(SOURCE, 3)
    graph["Apply FPDM"]["source"] = graph.repeat(SOURCE, 2)
    error = graph.error()
    assert "fusion embedding is a batch of 3" in error
    assert "source a batch of 2" in error


def test_no_fusion_embedding_is_allowed(graph: Graph) -> None:
    del graph["Apply FPDM"]["fusion_embedding"]
    assert len(graph.run()) == 1


def frame(*people: Any) -> dict[str, Any]:
    return {"canvas_width": 192, "canvas_height": 256, "people": list(people)}


@pytest.mark.parametrize(
    ("pose", "sentence"),
    [
        ([frame()], "nobody"),
        ([frame({"pose_keypoints_2d": [0.0] * 54})], "nobody"),
        ([], "without any frame"),
        ("walk to the left", "not JSON"),
        ([frame({"pose_keypoints_2d": [1.0] * 30})], "10 points"),
    ],
)
def test_a_pose_of_nobody_or_nothing_is_refused(graph: Graph, pose: Any, sentence: str) -> None:
    graph["Draw target pose"]["pose"] = {"__value__": pose}
    assert sentence in graph.error()


def test_a_latent_of_another_size_is_refused(graph: Graph) -> None:
    latent = graph.add("EmptyLatentImage", width=256, height=256, batch_size=1)
    graph["Sample"]["latent_image"] = latent
    error = graph.error()
    assert "256x256 px" in error
    assert "192x256 px" in error
    assert "LATENT that Apply FPDM puts out" in error


def test_a_stranger_s_conditioning_is_no_positive_for_the_guider(graph: Graph) -> None:
    text = graph.add("CLIPTextEncode", text="a red shirt", clip=[graph.id_of("Demo models"), 1])
    graph["FPDM guider"]["positive"] = text
    assert "Connect the positive output of Apply FPDM" in graph.error()


def test_the_guider_wants_the_model_of_apply_fpdm(graph: Graph) -> None:
    graph["FPDM guider"]["model"] = [graph.id_of("Demo models"), 0]
    assert "Connect the MODEL that comes out of Apply FPDM" in graph.error()


@pytest.fixture
def checkpoints(server: ComfyServer) -> Path:
    folder = server.base_directory / "models" / "pose_transfer" / "fpdm"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def load_fpdm(graph: Graph, name: str) -> None:
    """Load FPDM in place of Demo Models."""
    demo, loader = graph.id_of("Demo models"), graph.add("PoseTransferLoadFPDM", checkpoint=name)
    outputs = {0: 0, 2: 2, 3: 1}  # MODEL, VAE, FPDM_MODEL
    for node in graph.nodes.values():
        for key, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == demo:
                node["inputs"][key] = [loader[0], outputs[value[1]]]


def test_the_embedded_demo_loads_by_load_fpdm_too(graph: Graph) -> None:
    load_fpdm(graph, "mannequin demo (comes with the pack)")
    assert len(graph.run()) == 1


def test_a_missing_checkpoint_is_searched_for_by_name(graph: Graph, checkpoints: Path) -> None:
    load_fpdm(graph, "gone.safetensors")
    error = graph.error()
    assert "'gone.safetensors'" in error
    assert str(checkpoints) in error


DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty.safetensors": (b"", "neither"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "cut.safetensors": (b"\x40\x00\x00\x00\x00\x00\x00\x00{\"a\":", "damaged"),
    "words.ckpt": (b"<!DOCTYPE html><title>Not found</title>", "neither"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused(graph: Graph, checkpoints: Path, name: str) -> None:
    data, sentence = DAMAGE[name]
    (checkpoints / name).write_bytes(data)
    load_fpdm(graph, name)
    error = graph.error()
    assert sentence in error
    assert name in error


def test_a_mended_checkpoint_is_read_again(
    graph: Graph, checkpoints: Path, untrained_demo: tuple[Path, Path]
) -> None:
    file = checkpoints / "mended.safetensors"
    file.write_bytes(b"")
    load_fpdm(graph, file.name)
    assert "neither" in graph.error()
    file.write_bytes(untrained_demo[1].read_bytes())
    assert "holds no UNet" in graph.error()


def test_the_stock_sampler_takes_fpdm_s_conditioning(graph: Graph) -> None:
    model, positive, negative, latent = ([graph.id_of("Apply FPDM"), i] for i in range(4))
    graph["Decode"]["samples"] = graph.add(
        "KSampler", model=model, positive=positive, negative=negative, latent_image=latent,
        seed=1, steps=1, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    )  # fmt: skip
    assert len(graph.run()) == 1


def test_text_alone_makes_a_picture(graph: Graph) -> None:
    demo = graph.id_of("Demo models")
    positive = graph.add("CLIPTextEncode", text="A woman, a red shirt", clip=[demo, 1])
    negative = graph.add("CLIPTextEncode", text="", clip=[demo, 1])
    latent = graph.add("EmptyLatentImage", width=192, height=256, batch_size=1)
    graph["Decode"]["samples"] = graph.add(
        "KSampler", model=[demo, 0], positive=positive, negative=negative, latent_image=latent,
        seed=1, steps=1, cfg=3.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    )  # fmt: skip
    assert len(graph.run()) == 1
