# SPDX-License-Identifier: GPL-3.0-or-later
"""Parsing, masks and composites in a graph of stock nodes."""

from __future__ import annotations

import io
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation

from pose_transfer import mannequin
from pose_transfer.client import ComfyServer, Workflow, WorkflowError
from pose_transfer.compositing import rgb_to_lab
from pose_transfer.parsing import PALETTE, REGIONS, palette_picture, region_mask
from pose_transfer.types import Parsing

networks = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "schp_networks.py")))
PERSON, OTHER, POSE = 19, 24, 29
SOURCE = mannequin.render(PERSON, POSE)
PARSING = Parsing(SOURCE.parsing[None], mannequin.LABELS)


class Graph:
    """A workflow that grows; `show` saves pictures or texts, `run` returns them by name."""

    def __init__(self, comfy: Any) -> None:
        self.comfy = comfy
        self.nodes: Workflow = {}

    def add(self, class_type: str, output: int = 0, **inputs: Any) -> list[Any]:
        node_id = str(len(self.nodes) + 1)
        self.nodes[node_id] = {"class_type": class_type, "inputs": inputs}
        return [node_id, output]

    def show(self, **links: list[Any]) -> None:
        for name, link in links.items():
            node_id, _ = self.add("SaveImage", images=link, filename_prefix=name)
            self.nodes[node_id]["_meta"] = {"title": name}

    def show_mask(self, **links: list[Any]) -> None:
        self.show(**{name: self.add("MaskToImage", mask=link) for name, link in links.items()})

    def show_text(self, **links: list[Any]) -> None:
        for name, link in links.items():
            node_id, _ = self.add("PreviewAny", source=link)
            self.nodes[node_id]["_meta"] = {"title": name}

    def run(self) -> tuple[dict[str, NDArray[np.uint8]], dict[str, str]]:
        """Batches of pictures (B, H, W, C), and texts."""
        result = self.comfy.run(self.nodes, timeout=300)
        pictures = {
            name: np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in batch])
            for name, batch in result.images.items()
        }
        return pictures, {name: texts[0] for name, texts in result.texts.items()}

    def error(self) -> str:
        with pytest.raises(WorkflowError) as caught:
            self.run()
        return str(caught.value)

    def mannequin(self, identity: int = PERSON, pose: int = POSE) -> tuple[list[Any], list[Any]]:
        """Picture and parsing of a person."""
        node_id, _ = self.add(
            "PoseTransferDemoPerson", identity=identity, source_pose=pose, target_pose=9
        )
        return [node_id, 0], [node_id, 5]

    def mask(self, parsing: list[Any], *regions: str, grow: float = 0, feather: float = 0) -> Any:
        chosen = {name: name in regions for name in REGIONS}
        return self.add(
            "PoseTransferRegionMask", parsing=parsing, grow=grow, feather=feather, **chosen
        )

    def composite(self, person: list[Any], parsing: list[Any], **inputs: Any) -> list[list[Any]]:
        settings = {
            "placement": "whole picture", "colour_match": "none", "strength": 1.0, "grow": 0.0,
            "feather": 0.0, "hole_grow": 8.0,
        }  # fmt: skip
        node_id, _ = self.add(
            "PoseTransferCompositePerson",
            person=person,
            person_parsing=parsing,
            **{**settings, **inputs},
        )
        return [[node_id, output] for output in range(3)]


@pytest.fixture
def graph(comfy: Any) -> Graph:
    return Graph(comfy)


@pytest.fixture
def parsing_folder(server: ComfyServer) -> Path:
    folder = server.base_directory / "models" / "pose_transfer" / "parsing"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Region Mask


def test_masks_of_demo_person_s_parsing_are_the_library_s(graph: Graph) -> None:
    _, parsing = graph.mannequin()
    for name in ("face", "person", "background"):
        graph.show_mask(**{name: graph.mask(parsing, name)})
    graph.show_mask(several=graph.mask(parsing, "upper", "lower", grow=4, feather=6))
    pictures, _ = graph.run()
    for name in ("face", "person", "background"):
        np.testing.assert_array_equal(
            pictures[name][..., 0], 255 * region_mask(PARSING, [name]).astype(np.uint8)
        )
    expected = region_mask(PARSING, ["upper", "lower"], 4, 6) * 255
    np.testing.assert_allclose(pictures["several"][..., 0], expected, atol=1)


def test_a_mask_of_nothing_is_refused(graph: Graph) -> None:
    _, parsing = graph.mannequin()
    graph.show_mask(none=graph.mask(parsing))
    assert "Switch at least one on." in graph.error()


# Parse Person


def parse(graph: Graph, image: list[Any], parser: str, **inputs: Any) -> list[list[Any]]:
    node_id, _ = graph.add("PoseTransferParsePerson", image=image, parser=parser, **inputs)
    return [[node_id, output] for output in range(3)]


def test_schp_parses_a_batch_and_says_what_ran_it(graph: Graph, parsing_folder: Path) -> None:
    networks.write_schp(parsing_folder / "parsing_atr.onnx", 18, 512)
    # "Upper-clothes" on the left, "Pants" on the right, in the colours that the file knows.
    colours = networks.colours(18)
    halves = [
        graph.add("EmptyImage", width=64, height=100, batch_size=2, color=_rgb(colours[label]))
        for label in (4, 6)
    ]
    image = graph.add(
        "ImageStitch", image1=halves[0], image2=halves[1], direction="right",
        match_image_size=False, spacing_width=0, spacing_color="black",
    )  # fmt: skip
    parsing, palette, report = parse(graph, image, "SCHP ATR")
    graph.show(palette=palette)
    graph.show_mask(lower=graph.mask(parsing, "lower"))
    graph.show_text(report=report)
    pictures, texts = graph.run()
    assert pictures["palette"].shape == (2, 100, 128, 3)
    assert (pictures["palette"][:, 5:-5, 5:58] == PALETTE["upper"]).all()
    assert (pictures["palette"][:, 5:-5, 70:-5] == PALETTE["lower"]).all()
    assert pictures["lower"][:, 5:-5, 70:-5].min() == 255
    assert pictures["lower"][:, 5:-5, 5:58].max() == 0
    assert texts["report"].startswith("SCHP ATR on CPUExecutionProvider")
    assert texts["report"].endswith("\nupper 50.0%, lower 50.0%")


def _rgb(colour: NDArray[np.uint8]) -> int:
    return int(colour[0]) << 16 | int(colour[1]) << 8 | int(colour[2])


def test_segformer_parses_from_the_released_folder(graph: Graph, parsing_folder: Path) -> None:
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from pose_transfer.parsing import ATR_LABELS

    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(
        SegformerConfig(
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
            id2label=dict(enumerate(ATR_LABELS)),
            label2id={name: i for i, name in enumerate(ATR_LABELS)},
        )
    )
    # One label wins everywhere.
    head = network.decode_head.classifier
    torch.nn.init.zeros_(head.weight)
    head.bias = torch.nn.Parameter((torch.arange(18) == ATR_LABELS.index("Dress")).float())
    network.save_pretrained(parsing_folder / "segformer_b2_clothes")

    image, _ = graph.mannequin()
    _, palette, report = parse(graph, image, "SegFormer clothes")
    boxes = graph.add("PrimitiveBoundingBox", x=50, y=60, width=40, height=80)
    _, near, _ = parse(graph, image, "SegFormer clothes", boxes=boxes)
    graph.show(palette=palette, near=near)
    graph.show_text(report=report)
    pictures, texts = graph.run()
    assert pictures["palette"].shape == (1, 256, 192, 3)
    assert (pictures["palette"] == PALETTE["dress"]).all()
    assert texts["report"] == "SegFormer clothes on cpu\ndress 100.0%"
    # A quarter more on every side.
    dressed = (pictures["near"][0] == PALETTE["dress"]).all(-1)
    rows, columns = (np.flatnonzero(dressed.any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (50, 150, 45, 95)


def test_the_demo_parser_knows_mannequins_it_never_saw(graph: Graph) -> None:
    image, _ = graph.mannequin()
    _, palette, report = parse(graph, image, "mannequin (demo)")
    graph.show(palette=palette)
    graph.show_text(report=report)
    pictures, texts = graph.run()
    assert (pictures["palette"] == palette_picture(PARSING)).all(-1).mean() > 0.95
    assert texts["report"].startswith("mannequin (demo) on cpu\nbackground ")


def test_a_missing_network_is_named_with_folder_and_command(
    graph: Graph, parsing_folder: Path
) -> None:
    (parsing_folder / "parsing_lip.onnx").unlink(missing_ok=True)
    image, _ = graph.mannequin()
    graph.show(palette=parse(graph, image, "SCHP LIP")[1])
    error = graph.error()
    assert "parsing_lip.onnx" in error
    assert str(parsing_folder) in error
    assert "download schp_lip" in error


def test_a_damaged_network_is_an_error_and_the_server_lives_on(
    graph: Graph, parsing_folder: Path
) -> None:
    file = parsing_folder / "parsing_lip.onnx"
    file.write_bytes(b"<!DOCTYPE html>")
    image, _ = graph.mannequin()
    graph.show(palette=parse(graph, image, "SCHP LIP")[1])
    assert "parsing_lip.onnx" in graph.error()
    # Another file of the same name is read, not the broken one remembered.
    networks.write_schp(file, 20, 473)
    pictures, _ = graph.run()
    assert pictures["palette"].shape == (1, 256, 192, 3)
    file.unlink()


# Composite Person


def test_a_person_is_cut_out_with_alpha(graph: Graph) -> None:
    cut, mask, hole = graph.composite(*graph.mannequin())
    graph.show(cut=cut)
    graph.show_mask(mask=mask, hole=hole)
    pictures, _ = graph.run()
    person = region_mask(PARSING, ["person"])
    np.testing.assert_array_equal(pictures["cut"][..., 3], 255 * person)
    np.testing.assert_array_equal(pictures["cut"][0, ..., :3], SOURCE.image)
    np.testing.assert_array_equal(pictures["mask"][..., 0], 255 * person)
    assert not pictures["hole"].any()


def test_skin_is_matched_and_the_background_kept(graph: Graph) -> None:
    person, source = graph.mannequin(), graph.mannequin(OTHER)
    scene = graph.add("EmptyImage", width=384, height=512, batch_size=1, color=0x3060A0)
    image, mask, _ = graph.composite(
        *person, background=scene, source=source[0], source_parsing=source[1],
        colour_match="skin", feather=4.0,
    )  # fmt: skip
    graph.show(image=image)
    graph.show_mask(mask=mask)
    pictures, _ = graph.run()
    (picture,), cover = pictures["image"], pictures["mask"][0, ..., 0]
    assert picture.shape == (512, 384, 3)
    assert np.abs(picture[cover == 0].astype(int) - (0x30, 0x60, 0xA0)).max() <= 1
    skin = region_mask(PARSING, ["face", "skin"], -2)[0].repeat(2, 0).repeat(2, 1) > 0
    other = mannequin.render(OTHER, POSE)
    theirs = region_mask(Parsing(other.parsing[None], mannequin.LABELS), ["face", "skin"])[0] > 0
    wanted = rgb_to_lab(other.image[theirs] / 255).mean(0)
    before = rgb_to_lab(SOURCE.image.repeat(2, 0).repeat(2, 1)[skin] / 255).mean(0)
    after = rgb_to_lab(picture[skin] / 255).mean(0)
    assert np.linalg.norm(before - wanted) > 15
    assert np.linalg.norm(after - wanted) < 5


def test_what_is_left_is_in_painted_by_stock_nodes(graph: Graph) -> None:
    """The wiring of the help page: another person in the photo, the rest in-painted."""
    photo, photo_parsing = graph.mannequin()
    person = graph.mannequin(OTHER, 7)
    image, mask, hole = graph.composite(
        *person, background=photo, source_parsing=photo_parsing, feather=3.0
    )
    demo, _ = graph.add("PoseTransferDemoModels")
    latent = graph.add(
        "VAEEncodeForInpaint", pixels=image, vae=[demo, 2], mask=hole, grow_mask_by=6
    )
    text = [graph.add("CLIPTextEncode", text=t, clip=[demo, 1]) for t in ("plain background", "")]
    sampled = graph.add(
        "KSampler", model=[demo, 0], positive=text[0], negative=text[1], latent_image=latent,
        seed=1, steps=2, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    )  # fmt: skip
    painted = graph.add("VAEDecode", samples=sampled, vae=[demo, 2])
    result = graph.add(
        "ImageCompositeMasked", destination=image, source=painted, x=0, y=0,
        resize_source=False, mask=hole,
    )  # fmt: skip
    graph.show(image=image, result=result)
    graph.show_mask(mask=mask, hole=hole)
    pictures, _ = graph.run()
    covered, open_ = pictures["mask"][0, ..., 0] == 255, pictures["hole"][0, ..., 0] > 127
    was_there = region_mask(PARSING, ["person"])[0] > 0
    assert open_.sum() > 500
    assert not (open_ & covered).any()
    assert (open_ | covered)[was_there].all()
    # The hole reaches 8 px beyond the person and no further.
    near = np.asarray(binary_dilation(was_there, np.ones((3, 3)), 9), bool)
    assert not open_[~near].any()
    result_, image_ = pictures["result"][0], pictures["image"][0]
    np.testing.assert_array_equal(result_[~open_], image_[~open_])
    assert (result_[open_] != image_[open_]).any(-1).mean() > 0.9


def test_a_box_says_where_the_person_stands(graph: Graph) -> None:
    scene = graph.add("EmptyImage", width=600, height=400, batch_size=1, color=0)
    box = graph.add("PrimitiveBoundingBox", x=320, y=40, width=200, height=300)
    _, mask, _ = graph.composite(*graph.mannequin(), background=scene, box=box, placement="box")
    graph.show_mask(mask=mask)
    pictures, _ = graph.run()
    inside = pictures["mask"][0, ..., 0] > 127
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1] + 1) == pytest.approx((40, 340), abs=1)
    assert (columns[0] + columns[-1] + 1) / 2 == pytest.approx(420, abs=1)


def test_what_does_not_fit_together_is_named(graph: Graph) -> None:
    person, parsing = graph.mannequin()
    small = graph.add(
        "ImageScale", image=person, width=96, height=128, upscale_method="area", crop="disabled"
    )
    graph.show(image=graph.composite(small, parsing)[0])
    assert "person is 96x128 px and its parsing 192x256 px" in graph.error()


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"colour_match": "skin"}, "Connect 'source_parsing'"),
        ({"placement": "source person"}, "Connect 'source_parsing'"),
        ({"placement": "box"}, "Connect 'box'"),
        ({"source": "photo"}, "'source_parsing' is not there"),
    ],
)
def test_what_lacks_is_named(graph: Graph, inputs: dict[str, Any], sentence: str) -> None:
    person, parsing = graph.mannequin()
    inputs = {name: person if value == "photo" else value for name, value in inputs.items()}
    graph.show(image=graph.composite(person, parsing, background=person, **inputs)[0])
    assert sentence in graph.error()
