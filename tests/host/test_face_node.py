# SPDX-License-Identifier: GPL-3.0-or-later
"""Face Embedding in the real host: on packs of the released layout, beside packs that use
insightface too, and without insightface."""

from __future__ import annotations

import io
import json
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pose_transfer.client import ComfyServer, WorkflowError
from pose_transfer.detectors import Face
from pose_transfer.detectors.face_crops import aligned_crop
from pose_transfer.types import Box

networks = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "face_networks.py")))

PACK = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 480, 640
FIRST, SECOND = (400, 192), (96, 96)  # x, y of the square; the first face is the larger one
SETTINGS = {
    "encoder": "insightface antelopev2",
    "face": "largest",
    "index": 0,
    "on_missing": "error",
    "crop_size": 64,
    "crop_margin": 1.6,
    "mask_shape": "ellipse",
    "mask_grow": 0.0,
    "mask_feather": 4.0,
}
TEXTS = {4: "boxes", 5: "found", 6: "report"}


@pytest.fixture(scope="module")
def face_server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A server with another pack that uses insightface."""
    base = tmp_path_factory.mktemp("faces")
    other = tmp_path_factory.mktemp("other") / "other_face_packs"
    other.mkdir()
    source = Path(__file__).with_name("in_host_face_packs.py")
    (other / "__init__.py").write_bytes(source.read_bytes())
    with ComfyServer(comfyui, base, {"pose-transfer": PACK, other.name: other}) as running:
        yield running


@pytest.fixture
def packs(face_server: ComfyServer) -> Iterator[None]:
    """antelopev2 and buffalo_l, where all packs look for them."""
    folder = face_server.base_directory / "models" / "insightface" / "models"
    for pack in ("antelopev2", "buffalo_l"):
        networks.write_pack(folder / pack, pack)
    yield
    shutil.rmtree(folder)


def photo(*faces: tuple[int, int]) -> tuple[np.ndarray, list[Face]]:
    """A picture with faces at those places, and what is known of them."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.stack([60 + 0 * x, 90 + x // 8, 120 + y // 8], axis=-1).astype(np.uint8)
    known = []
    for at in faces:
        points = networks.paint_face(picture, *at, green=255 if at == FIRST else 0)
        known.append(Face(Box(0, 0, 1, 1), points, np.zeros(512, np.float32)))
    return picture, known


class Faces:
    """A graph that embeds uploaded pictures and shows all that comes out."""

    def __init__(self, comfy: Any) -> None:
        self.comfy = comfy
        self.pictures: list[np.ndarray] = []
        self.nodes: dict[str, Any] = {
            "faces": {"class_type": "PoseTransferFaceEmbedding", "inputs": dict(SETTINGS)},
            "mask image": {"class_type": "MaskToImage", "inputs": {"mask": ["faces", 3]}},
        }
        for link, title in (
            (["faces", 1], "crop"),
            (["faces", 2], "aligned"),
            (["mask image", 0], "mask"),
        ):
            inputs = {"images": link, "filename_prefix": title}
            self.add("SaveImage", title, **inputs)
        self.add("TestReadEmbedding", "read", face_embedding=["faces", 0])
        self.add("PreviewAny", "embedding", source=["read", 0])
        for output, title in TEXTS.items():
            self.add("PreviewAny", title, source=["faces", output])

    def add(self, class_type: str, title: str, **inputs: Any) -> None:
        self.nodes[title] = {
            "class_type": class_type, "inputs": inputs, "_meta": {"title": title}
        }  # fmt: skip

    def show(self, *faces: tuple[int, int]) -> list[Face]:
        """One picture more in the batch."""
        picture, known = photo(*faces)
        data = io.BytesIO()
        Image.fromarray(picture).save(data, "PNG")
        name = self.comfy.upload_image(f"faces_{len(faces)}.png", data.getvalue())
        number = len(self.pictures)
        self.add("LoadImage", f"picture {number}", image=name)
        link = [f"picture {number}", 0]
        if number:
            before = self.nodes["faces"]["inputs"]["image"]
            self.add("ImageBatch", f"batch {number}", image1=before, image2=link)
            link = [f"batch {number}", 0]
        self.nodes["faces"]["inputs"]["image"] = link
        self.pictures.append(picture)
        return known

    def run(self, **settings: Any) -> SimpleNamespace:
        self.nodes["faces"]["inputs"] |= settings
        result = self.comfy.run(self.nodes)
        found = SimpleNamespace(**{title: texts[0] for title, texts in result.texts.items()})
        found.embedding = SimpleNamespace(**json.loads(found.embedding))
        found.boxes = json.loads(found.boxes)
        for title, files in result.images.items():
            setattr(found, title, [np.asarray(Image.open(io.BytesIO(file))) for file in files])
        return found

    def error(self, **settings: Any) -> str:
        self.nodes["faces"]["inputs"] |= settings
        with pytest.raises(WorkflowError) as caught:
            self.comfy.run(self.nodes)
        return str(caught.value)


@pytest.fixture
def faces(face_server: ComfyServer, connect: Callable[[ComfyServer], Any]) -> Faces:
    return Faces(connect(face_server))


def expected_embedding(picture: np.ndarray, face: Face) -> np.ndarray:
    return networks.embedding(aligned_crop(picture, face))


def test_without_its_files_it_says_which_where_and_how(
    faces: Faces, face_server: ComfyServer
) -> None:
    folder = face_server.base_directory / "models" / "insightface" / "models" / "antelopev2"
    faces.show(FIRST)
    message = faces.error()
    for part in ("glintr100.onnx", str(folder), "download antelopev2", "non-commercial"):
        assert part in message
    assert "w600k_r50.onnx" in faces.error(encoder="insightface buffalo_l")


@pytest.mark.usefixtures("packs")
def test_a_batch_gives_embeddings_crops_masks_boxes_and_a_report(faces: Faces) -> None:
    known = [faces.show(FIRST, SECOND)[0], faces.show(SECOND)[0]]
    found = faces.run()

    embedding = found.embedding
    assert embedding.encoder == "insightface antelopev2"
    assert embedding.found == [True, True]
    assert found.found.lower() == "true"
    for row, (picture, face) in enumerate(zip(faces.pictures, known, strict=True)):
        np.testing.assert_allclose(embedding.points[row], face.points, atol=0.05)
        expected = expected_embedding(picture, face)
        np.testing.assert_allclose(embedding.raw[row], expected, atol=0.02)
        np.testing.assert_allclose(
            embedding.normalised[row], expected / np.linalg.norm(expected), atol=1e-3
        )
        assert np.abs(found.aligned[row].astype(int) - aligned_crop(picture, face)).max() <= 2
        x, y = face.points.mean(axis=0).round().astype(int)
        assert found.mask[row][y, x, 0] == 255
        assert found.mask[row].shape == (HEIGHT, WIDTH, 3)
        assert found.crop[row].shape == (64, 64, 3)
        (box,) = found.boxes[row]
        assert box["label"] == "face"
        assert embedding.boxes[row] == pytest.approx(
            [box["x"], box["y"], box["width"], box["height"]], abs=1
        )
    # The square of 16 px is 16 / (1.6 * 104) of the crop, whose middle is its own but 4 px lower.
    red = (found.crop[0] == (255, 255, 0)).all(axis=-1)
    assert 4 <= red[28:34].any(axis=0).sum() <= 8
    assert found.report.splitlines() == [
        "insightface antelopev2 on CPUExecutionProvider (the installed onnxruntime has no provider "
        "for a graphics card)",
        "picture 0: face of 80x104 px, 1 of 2",
        "picture 1: face of 40x52 px",
    ]


@pytest.mark.usefixtures("packs")
def test_the_face_is_the_one_that_was_chosen(faces: Faces) -> None:
    first, second = faces.show(FIRST, SECOND)

    def nose(**settings: Any) -> Any:
        return pytest.approx(faces.run(**settings).embedding.points[0][2], abs=0.1)

    assert first.points[2] == nose()
    assert second.points[2] == nose(index=1)
    assert second.points[2] == nose(face="left to right", index=0)
    people = [{"pose_keypoints_2d": [x, y, 1.0] + [0.0] * 51} for x, y in ((52, 53), (204, 104))]
    pose = [{"canvas_width": WIDTH // 2, "canvas_height": HEIGHT // 2, "people": people}]
    nearest = {"face": "nearest to pose", "pose": {"__value__": pose}}
    assert second.points[2] == nose(**nearest, index=0)
    assert first.points[2] == nose(**nearest, index=1)
    assert "no nose, eye or ear of a person at index 2" in faces.error(index=2)
    del faces.nodes["faces"]["inputs"]["pose"]
    assert "needs a pose and none is connected" in faces.error()


@pytest.mark.usefixtures("packs")
def test_a_picture_without_a_face_is_handled_as_chosen(faces: Faces) -> None:
    faces.show(FIRST)
    faces.show()
    assert "No face was found in picture 1" in faces.error()
    found = faces.run(on_missing="skip")
    assert found.embedding.found == [True, False]
    assert found.found.lower() == "false"
    assert not np.any(found.embedding.raw[1])
    assert [len(boxes) for boxes in found.boxes] == [1, 0]
    for pictures in (found.crop, found.aligned, found.mask):
        assert pictures[0].any()
        assert not pictures[1].any()
    assert found.report.endswith("picture 1: no face")


@pytest.mark.usefixtures("packs")
@pytest.mark.parametrize(
    ("loader", "pack"),
    [("TestInsightFaceLoader", "buffalo_l"), ("TestInstantIDLoader", "antelopev2")],
)
def test_what_another_pack_loaded_is_used(faces: Faces, loader: str, pack: str) -> None:
    (known,) = faces.show(SECOND)
    faces.add(loader, "loader")
    found = faces.run(face_analysis=["loader", 0], encoder="mannequin (demo)")
    assert found.embedding.encoder == f"insightface {pack}"
    assert found.report.startswith(f"insightface {pack} on CPUExecutionProvider\n")
    expected = expected_embedding(faces.pictures[0], known)
    np.testing.assert_allclose(found.embedding.raw[0], expected, atol=0.02)


@pytest.mark.usefixtures("packs")
def test_other_packs_use_what_we_loaded(faces: Faces) -> None:
    (known,) = faces.show(SECOND)
    for output, node in ((7, "TestFaceID"), (8, "TestInstantID")):
        faces.add(node, f"use {node}", insightface=["faces", output], image=["picture 0", 0])
        faces.add("PreviewAny", node, source=[f"use {node}", 0])
    found = faces.run()
    raw = expected_embedding(faces.pictures[0], known)
    np.testing.assert_allclose(json.loads(found.TestInstantID), raw, atol=0.02)
    normalised = raw / np.linalg.norm(raw)
    np.testing.assert_allclose(json.loads(found.TestFaceID), normalised, atol=1e-3)


def test_another_object_is_refused(faces: Faces) -> None:
    faces.show(SECOND)
    message = faces.error(face_analysis={"__value__": [1, 2]})
    assert "Got list as face analysis, expected insightface's FaceAnalysis" in message


def test_the_demo_knows_a_mannequin_and_is_nothing_for_other_packs(faces: Faces) -> None:
    faces.add("PoseTransferDemoPerson", "person", identity=19, source_pose=29, target_pose=9)
    found = faces.run(image=["person", 0], encoder="mannequin (demo)")
    assert found.embedding.encoder == "mannequin (demo)"
    assert found.embedding.found == [True]
    faces.add("TestFaceID", "use", insightface=["faces", 7], image=["person", 0])
    faces.add("PreviewAny", "used", source=["use", 0])
    assert not hasattr(faces.run(), "used"), "the node that would use it is not run"


def test_without_insightface_it_says_what_to_install(in_host: Callable[[str], str]) -> None:
    output = in_host(
        "sys.modules['insightface'] = None\n"
        "import torch\n"
        "from pose_transfer_pack.nodes.face import FaceEmbeddingNode\n"
        f"settings = {SETTINGS!r}\n"
        "try:\n"
        "    FaceEmbeddingNode.execute(torch.zeros(1, 8, 8, 3), **settings)\n"
        "except ValueError as error:\n"
        "    print(type(error).__name__, error)"
    )
    assert output.splitlines()[-1].startswith("MissingDependencyError Faces of photos need")
    assert "pip install insightface onnxruntime" in output


def test_a_pack_is_loaded_once_and_again_when_it_changed(
    in_host: Callable[[str], str], tmp_path: Path
) -> None:
    nested = tmp_path / "models" / "insightface" / "models" / "antelopev2" / "antelopev2"
    networks.write_pack(nested)
    output = in_host(
        "import os, time\n"
        "import pose_transfer_pack.nodes\n"
        "from pose_transfer_pack.nodes.face_encoders import load_encoder\n"
        "name = 'insightface antelopev2'\n"
        "first = load_encoder(name)\n"
        "print('again:', load_encoder(name) is first)\n"
        f"os.utime({str(nested / 'glintr100.onnx')!r}, (1, 1))\n"
        "print('changed:', load_encoder(name) is not first)"
    )
    assert output.splitlines()[-2:] == ["again: True", "changed: True"]
