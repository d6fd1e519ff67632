# SPDX-License-Identifier: GPL-3.0-or-later
"""insightface on packs of the released layout whose networks compute a known function, and on
objects that other packs loaded."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from insightface.utils import face_align
from numpy.typing import NDArray

from pose_transfer.detectors.face import InsightFaceEncoder, load_insightface
from pose_transfer.detectors.face_crops import aligned_crop
from pose_transfer.detectors.face_packs import find_pack
from pose_transfer.errors import CheckpointError, MissingDependencyError, PoseTransferError

networks = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "face_networks.py")))
pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def antelopev2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.write_pack(tmp_path_factory.mktemp("models") / "antelopev2")


@pytest.fixture(scope="module")
def encoder(antelopev2: Path) -> InsightFaceEncoder:
    return load_insightface(antelopev2)


def photo(height: int, width: int) -> NDArray[np.uint8]:
    """A smooth picture without anything red."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([40 + 60 * y / height, 90 + 60 * x / width, 100 + 0 * x], axis=-1)
    return picture.astype(np.uint8)


@pytest.mark.parametrize("pack", ["antelopev2", "buffalo_l"])
def test_a_face_is_found_where_it_is_and_told_by_its_embedding(tmp_path: Path, pack: str) -> None:
    encoder = load_insightface(networks.write_pack(tmp_path / pack, pack))
    picture = photo(640, 640)
    points = networks.paint_face(picture, 160, 240)
    (face,) = encoder.faces(picture)
    np.testing.assert_allclose(face.points, points, atol=0.01)
    box = (face.box.x, face.box.y, face.box.width, face.box.height)
    assert box == pytest.approx((148, 224, 40, 52), abs=0.2)
    assert face.box.score == pytest.approx(networks.SCORE, abs=1e-3)
    upright = face_align.norm_crop(picture, points)
    np.testing.assert_allclose(face.raw, networks.embedding(upright), atol=2e-3)
    assert encoder.name == f"insightface {pack}"
    assert encoder.provider.startswith("CPUExecutionProvider")


def test_every_face_is_found_with_its_own_size_and_embedding(encoder: InsightFaceEncoder) -> None:
    picture = photo(400, 640)
    places = [
        networks.paint_face(picture, 96, 96),
        networks.paint_face(picture, 400, 192, green=255),
    ]
    small, large = sorted(encoder.faces(picture), key=lambda face: face.box.area)
    for face, points in zip((small, large), places, strict=True):
        np.testing.assert_allclose(face.points, points, atol=0.01)
        upright = face_align.norm_crop(picture, points)
        np.testing.assert_allclose(face.raw, networks.embedding(upright), atol=2e-3)
    assert large.box.width == pytest.approx(2 * small.box.width, rel=0.01)


def test_a_face_that_is_too_large_at_640_is_found_at_320(encoder: InsightFaceEncoder) -> None:
    picture = photo(640, 640)
    points = networks.paint_face(picture, 160, 224, scale=2)
    (face,) = encoder.faces(picture)
    np.testing.assert_allclose(face.points, points, atol=0.05)
    assert face.box.width == pytest.approx(80, abs=0.5)


def test_a_face_at_the_picture_s_edge_is_found_with_a_border_around_it(
    encoder: InsightFaceEncoder,
) -> None:
    picture = photo(320, 320)
    points = networks.paint_face(picture, 0, 0)
    (face,) = encoder.faces(picture)
    np.testing.assert_allclose(face.points, points, atol=0.01)
    box = (face.box.x, face.box.y, face.box.width, face.box.height)
    assert box == pytest.approx((0, 0, 28, 36), abs=0.2), "it ends with the picture"
    upright = face_align.norm_crop(picture, points)
    np.testing.assert_allclose(face.raw, networks.embedding(upright), atol=2e-3)


def test_no_face_is_an_empty_list(encoder: InsightFaceEncoder) -> None:
    assert encoder.faces(photo(100, 70)) == []


def test_only_the_networks_that_are_needed_are_kept(encoder: InsightFaceEncoder) -> None:
    assert set(encoder.analysis.models) == {"detection", "recognition"}


def test_the_upright_face_is_insightface_s(encoder: InsightFaceEncoder) -> None:
    picture = photo(640, 640)
    networks.paint_face(picture, 160, 240)
    (face,) = encoder.faces(picture)
    turn, shift = np.array([[0.9, 0.3], [-0.3, 0.9]], np.float32), np.array([70, -30], np.float32)
    for points in (face.points, face.points @ turn + shift):
        theirs = face_align.norm_crop(picture, points).astype(float)
        ours = aligned_crop(picture, type(face)(face.box, points, face.raw)).astype(float)
        assert np.abs(ours - theirs).mean() < 0.5


def put_pack(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).touch()
    return folder


def test_a_pack_is_found_where_it_belongs(tmp_path: Path) -> None:
    folder = put_pack(tmp_path / "b" / "models" / "buffalo_l", "det_10g.onnx")
    assert find_pack("buffalo_l", [tmp_path / "a", tmp_path / "b"]) == folder


def test_a_badly_unzipped_pack_is_found(tmp_path: Path) -> None:
    outer = put_pack(tmp_path / "models" / "antelopev2", "left_over.onnx")
    inner = put_pack(outer / "antelopev2", *networks.NAMES["antelopev2"])
    assert find_pack("antelopev2", [tmp_path]) == inner


def test_a_badly_unzipped_pack_works(tmp_path: Path) -> None:
    networks.write_pack(tmp_path / "models" / "antelopev2" / "antelopev2")
    encoder = load_insightface(find_pack("antelopev2", [tmp_path]))
    picture = photo(640, 640)
    networks.paint_face(picture, 320, 320)
    assert len(encoder.faces(picture)) == 1
    assert encoder.name == "insightface antelopev2"


def test_a_missing_pack_says_where_to_get_it_and_that_it_is_not_commercial(tmp_path: Path) -> None:
    put_pack(tmp_path / "models" / "antelopev2")
    with pytest.raises(CheckpointError) as caught:
        find_pack("antelopev2", [tmp_path])
    text = str(caught.value)
    assert "scrfd_10g_bnkps.onnx" in text and "glintr100.onnx" in text
    assert "download antelopev2" in text
    assert "non-commercial" in text
    assert str(tmp_path / "models" / "antelopev2") in text


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """insightface fetches a pack whose folder does not exist."""
    import insightface.utils.storage as storage

    asked = []
    monkeypatch.setattr(storage, "download_file", lambda *args, **more: asked.append(args))
    with pytest.raises(CheckpointError, match="no folder"):
        load_insightface(tmp_path / "models" / "antelopev2")
    with pytest.raises(CheckpointError, match="lacks the network for detection"):
        load_insightface(put_pack(tmp_path / "empty"))
    assert asked == []


def test_a_pack_without_recognition_is_refused(antelopev2: Path, tmp_path: Path) -> None:
    folder = put_pack(tmp_path / "half")
    (folder / "det.onnx").write_bytes((antelopev2 / "scrfd_10g_bnkps.onnx").read_bytes())
    with pytest.raises(CheckpointError, match=r"recognition; it holds det\.onnx"):
        load_insightface(folder)


def test_a_damaged_file_is_named(antelopev2: Path, tmp_path: Path) -> None:
    folder = put_pack(tmp_path / "damaged", "glintr100.onnx")
    detector = (antelopev2 / "scrfd_10g_bnkps.onnx").read_bytes()
    (folder / "scrfd_10g_bnkps.onnx").write_bytes(detector[: len(detector) // 2])
    with pytest.raises(CheckpointError, match=r"damaged.*Download them again"):
        load_insightface(folder)


def test_without_insightface_it_says_what_to_install(
    antelopev2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "insightface"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(MissingDependencyError, match="pip install insightface onnxruntime"):
        load_insightface(antelopev2)


# What other packs pass around.


class FoundFace(dict):
    """insightface's Face: a dict whose entries are attributes, None where there is no entry."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    @property
    def normed_embedding(self) -> NDArray[np.float32]:
        return self.embedding / np.linalg.norm(self.embedding)


class Detector:
    """Finds at one size only: that of the field that insightface 0.7 (input_size) or 2 reads."""

    def __init__(self, field: str, only_at: int) -> None:
        self.input_size = (640, 640)
        if field == "input_sizes":
            self.input_sizes = [(640, 640)]
        self.field, self.only_at = field, only_at
        self.session = SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider", "CPU..."])

    def sees(self) -> bool:
        size = getattr(self, self.field)
        return (size if self.field == "input_size" else size[0]) == (self.only_at, self.only_at)


class Analysis:
    """A FaceAnalysis as IPAdapter_plus (buffalo_l) and InstantID (antelopev2) load it."""

    def __init__(self, pack: str, field: str = "input_size", only_at: int = 640) -> None:
        self.model_dir = f"/somewhere/models/insightface/models/{pack}"
        self.det_model = Detector(field, only_at)
        self.models = {"detection": self.det_model}
        self.seen: list[NDArray[np.uint8]] = []

    def get(self, bgr: NDArray[np.uint8], max_num: int = 0) -> list[FoundFace]:
        self.seen.append(bgr)
        if not self.det_model.sees():
            return []
        return [
            FoundFace(
                bbox=np.array([10.0, 20.0, 40.0, 60.0], np.float32),
                kps=np.array([[18, 35], [32, 35], [25, 42], [20, 50], [30, 50]], np.float32),
                det_score=np.float32(0.8),
                embedding=np.arange(512, dtype=np.float32),
            )
        ]


@pytest.mark.parametrize("pack", ["buffalo_l", "antelopev2"])
def test_another_pack_s_object_is_an_encoder(pack: str) -> None:
    encoder = InsightFaceEncoder(Analysis(pack))
    picture = photo(80, 60)
    (face,) = encoder.faces(picture)
    assert (face.box.x, face.box.y, face.box.width, face.box.height) == (10, 20, 30, 40)
    np.testing.assert_array_equal(face.raw, np.arange(512))
    assert encoder.name == f"insightface {pack}", "as ours: the embeddings can be mixed"
    assert encoder.provider == "CUDAExecutionProvider"
    np.testing.assert_array_equal(encoder.analysis.seen[0], picture[..., ::-1])


@pytest.mark.parametrize("field", ["input_size", "input_sizes"])
@pytest.mark.parametrize("size", [640, 512, 320])
def test_either_version_s_detection_size_is_lowered_and_put_back(field: str, size: int) -> None:
    analysis = Analysis("buffalo_l", field, only_at=size)
    assert len(InsightFaceEncoder(analysis).faces(photo(80, 60))) == 1
    assert analysis.det_model.input_size == (640, 640)
    assert getattr(analysis.det_model, "input_sizes", [(640, 640)]) == [(640, 640)]


def test_an_object_that_only_finds_faces_will_do() -> None:
    analysis = Analysis("buffalo_l")
    bare = SimpleNamespace(get=analysis.get)
    encoder = InsightFaceEncoder(bare)
    assert len(encoder.faces(photo(80, 60))) == 1
    assert encoder.name == "insightface (unknown models)"
    assert encoder.provider == "what the other pack chose"


@pytest.mark.parametrize("thing", [{"provider": "CPU"}, "antelopev2", 3, object()])
def test_something_else_is_refused(thing: Any) -> None:
    with pytest.raises(PoseTransferError, match="expected insightface's FaceAnalysis"):
        InsightFaceEncoder(thing)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("embedding", None),
        ("embedding", np.zeros(128)),
        ("embedding", np.full(512, np.nan)),
        ("kps", None),
    ],
)
def test_an_object_without_what_is_needed_is_refused(
    field: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = Analysis("buffalo_s")
    given = analysis.get
    monkeypatch.setattr(analysis, "get", lambda bgr: [FoundFace({**given(bgr)[0], field: value})])
    with pytest.raises(PoseTransferError, match=f"buffalo_s gave .* face's {field}"):
        InsightFaceEncoder(analysis).faces(photo(80, 60))


def test_an_object_that_fails_is_reported() -> None:
    def fail(bgr: NDArray[np.uint8]) -> None:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(PoseTransferError, match=r"stopped on .*CUDA out of memory"):
        InsightFaceEncoder(SimpleNamespace(get=fail)).faces(photo(80, 60))


def test_ours_can_be_used_as_other_packs_do(encoder: InsightFaceEncoder) -> None:
    picture = photo(640, 640)
    networks.paint_face(picture, 96, 96)
    networks.paint_face(picture, 400, 192, green=255)
    by_size = sorted(encoder.faces(picture), key=lambda face: -face.box.area)
    analysis = encoder.analysis
    # IPAdapter_plus: lowers the size until there is a face; the first one's normalised embedding.
    for size in range(640, 256, -64):
        analysis.det_model.input_size = (size, size)
        found = analysis.get(picture[..., ::-1])
        if found:
            break
    lengths = [np.linalg.norm(face.raw) for face in by_size]
    first = found[0].normed_embedding
    assert any(np.allclose(first, f.raw / n) for f, n in zip(by_size, lengths, strict=True))
    # InstantID: the largest one's raw embedding.
    sizes = [np.prod(face["bbox"][2:] - face["bbox"][:2]) for face in found]
    largest = found[int(np.argmax(sizes))]
    np.testing.assert_allclose(largest["embedding"], by_size[0].raw)


def test_ours_looks_again_at_smaller_sizes_for_other_packs(encoder: InsightFaceEncoder) -> None:
    picture = photo(640, 640)
    networks.paint_face(picture, 160, 224, scale=2)
    analysis = encoder.analysis
    counts = []
    for size in (640, 320):
        analysis.det_model.input_size = (size, size)
        counts.append(len(analysis.get(picture[..., ::-1])))
    assert counts == [0, 1]
