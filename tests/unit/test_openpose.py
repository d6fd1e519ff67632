# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenPose through controlnet_aux: files of the released layout, and maps painted for known people.

The painted networks stand in for the real ones inside controlnet_aux's own classes, so that what
these make of heat maps is tested as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from controlnet_aux.open_pose import Body, Face, Hand
from controlnet_aux.open_pose.face import FaceNet
from controlnet_aux.open_pose.model import bodypose_model, handpose_model
from numpy.typing import NDArray
from torch import Tensor, nn

from pose_transfer.detectors.openpose import OpenPose, load_openpose
from pose_transfer.errors import CheckpointError, MissingDependencyError
from pose_transfer.pose.skeleton import BODY_NAMES, LIMBS
from pose_transfer.types import Box

HEIGHT, WIDTH = 368, 460
CELL = 16  # px of the picture: the package halves it to 184 px, the network sees an eighth of that

# OpenPose's COCO model: which two of the 38 vector maps belong to which limb (first of two). The
# last two limbs, shoulder to ear, only help to tell people apart.
VECTOR_MAPS = (12, 20, 14, 16, 22, 24, 0, 2, 4, 6, 8, 10, 28, 30, 34, 32, 36, 18, 26)
ALL_LIMBS = (*LIMBS, (2, 16), (5, 17))


def standing(x: float) -> NDArray[np.float32]:
    """(18, 2) px of a person seen from the front, arms out, the neck at (x, 100)."""
    offsets = {
        "nose": (0, -40), "neck": (0, 0),
        "right_shoulder": (-35, 5), "right_elbow": (-50, 60), "right_wrist": (-60, 110),
        "left_shoulder": (35, 5), "left_elbow": (50, 60), "left_wrist": (60, 110),
        "right_hip": (-22, 110), "right_knee": (-24, 170), "right_ankle": (-26, 235),
        "left_hip": (22, 110), "left_knee": (24, 170), "left_ankle": (26, 235),
        "right_eye": (-12, -52), "left_eye": (12, -52),
        "right_ear": (-26, -44), "left_ear": (26, -44),
    }  # fmt: skip
    return np.array([offsets[name] for name in BODY_NAMES], np.float32) + np.array([x, 100])


class Painter(nn.Module):
    """A module on some device."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class PaintedBodies(Painter):
    def __init__(self, people: list[NDArray[np.float32]], absent: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.people, self.absent = people, absent

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        h, w = picture.shape[2] // 8, picture.shape[3] // 8
        rows, columns = np.indices((h, w))
        # Centres of the cells in px of the picture.
        x, y = (columns + 0.5) * CELL - 0.5, (rows + 0.5) * CELL - 0.5
        heat, vectors = np.zeros((19, h, w)), np.zeros((38, h, w))
        for points in self.people:
            for part, (px, py) in enumerate(points):
                if part not in self.absent:
                    bell = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * CELL**2))
                    heat[part] = np.maximum(heat[part], bell)
            for limb, channel in zip(ALL_LIMBS, VECTOR_MAPS, strict=True):
                start, end = points[limb[0]], points[limb[1]]
                along = (end - start) / np.linalg.norm(end - start)
                ahead = ((x - start[0]) * along[0] + (y - start[1]) * along[1]).clip(
                    0, np.linalg.norm(end - start)
                )
                off = np.hypot(x - start[0] - ahead * along[0], y - start[1] - ahead * along[1])
                vectors[channel : channel + 2, off < 1.5 * CELL] = along[:, None]
        return tensor(vectors), tensor(heat)


class PaintedSpots(Painter):
    """Maps of which the k-th has its peak at `places[k]`, as shares of the square that it sees."""

    def __init__(self, maps: int, places: dict[int, tuple[float, float]]) -> None:
        super().__init__()
        self.maps, self.places = maps, places

    def forward(self, picture: Tensor) -> Tensor:
        size = picture.shape[2] // 8
        rows, columns = (np.indices((size, size)) + 0.5) / size
        heat = np.zeros((self.maps, size, size))
        for part, (u, v) in self.places.items():
            heat[part] = 0.8 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 0.06**2))
        return tensor(heat)


class PaintedFaces(PaintedSpots):
    def forward(self, picture: Tensor) -> list[Tensor]:
        return [super().forward(picture)]


def tensor(maps: NDArray) -> Tensor:
    return torch.from_numpy(maps[None]).float()


def around_network(kind: type, network: nn.Module):
    estimator = object.__new__(kind)
    estimator.model = network
    return estimator


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)


def by_neck(found: list) -> list:
    return sorted(found, key=lambda one: one[0].body[1, 0])


def test_people_are_found_where_the_maps_show_them(picture: NDArray[np.uint8]) -> None:
    people = [standing(110), standing(340)]
    absent = BODY_NAMES.index("left_ankle")
    detector = OpenPose(around_network(Body, PaintedBodies(people, absent=(absent,))))

    found = by_neck(detector.detect(picture))
    assert len(found) == 2
    for (person, box), points in zip(found, people, strict=True):
        assert not person.body[absent].any()
        present = np.delete(np.arange(18), absent)
        assert np.abs(person.body[present, :2] - points[present]).max() <= 3
        assert (person.body[present, 2] > 0.5).all()
        assert (person.body[:, 2] <= 1).all()
        assert person.left_hand is person.right_hand is person.face is person.feet is None
        assert box.x < points[:, 0].min() < points[:, 0].max() < box.x + box.width
        assert box.y + box.height <= HEIGHT
        assert 0.5 < box.score <= 1


def test_boxes_restrict(picture: NDArray[np.uint8]) -> None:
    """The part around the box is 368 px high as well, so the painted people stay true."""

    class Cut(PaintedBodies):
        def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(given.shape)
            return super().forward(given)

    seen: list[torch.Size] = []
    detector = OpenPose(around_network(Body, Cut([standing(110)])))
    ((person, _),) = detector.detect(picture, [Box(0, 0, 200, HEIGHT)])
    assert seen[0][3] < WIDTH / 2, "only a part was looked at"
    assert np.abs(person.body[:, :2] - standing(110)).max() <= 3

    ((person, box),) = detector.detect(picture, [Box(240, 0, 200, HEIGHT)])
    left = 240 - 200 / 8  # an eighth of its width is seen on each side
    assert np.abs(person.body[:, :2] - standing(110 + left)).max() <= 3, "moved with the part"
    assert box.x > left
    assert detector.detect(picture, []) == []


def test_hands_lie_beyond_the_wrists(picture: NDArray[np.uint8]) -> None:
    places = {k: (0.3 + 0.02 * k, 0.7 - 0.02 * k) for k in range(22) if k != 9}
    hand = around_network(Hand, PaintedSpots(22, places))
    detector = OpenPose(around_network(Body, PaintedBodies([standing(200)])), hand=hand)
    ((person, _),) = detector.detect(picture)

    for side, points in (("left", person.left_hand), ("right", person.right_hand)):
        shoulder, elbow, wrist = (
            person.body[BODY_NAMES.index(f"{side}_{joint}"), :2]
            for joint in ("shoulder", "elbow", "wrist")
        )
        # OpenPose's rule for where it looks for a hand.
        centre = wrist + 0.33 * (wrist - elbow)
        forearm, arm = np.linalg.norm(wrist - elbow), np.linalg.norm(elbow - shoulder)
        width = 1.5 * max(forearm, 0.9 * arm)
        assert points is not None
        assert not points[9].any(), "a point without a peak is absent"
        for k in range(21):
            if k != 9:
                expected = centre + (np.array(places[k]) - 0.5) * width
                assert points[k, :2] == pytest.approx(expected, abs=3)
                assert points[k, 2] == 1


def test_a_face_keeps_its_points_apart_when_some_lack(picture: NDArray[np.uint8]) -> None:
    places = {k: (0.25 + 0.007 * k, 0.6 - 0.004 * k) for k in range(71) if k % 10 != 3}
    face = around_network(Face, PaintedFaces(71, places))
    detector = OpenPose(around_network(Body, PaintedBodies([standing(200)])), face=face)
    ((person, _),) = detector.detect(picture)

    nose = person.body[0, :2]
    eyes = person.body[[BODY_NAMES.index(f"{s}_eye") for s in ("left", "right")], :2]
    ears = person.body[[BODY_NAMES.index(f"{s}_ear") for s in ("left", "right")], :2]
    half = max(3 * np.abs(eyes - nose).max(), 1.5 * np.abs(ears - nose).max())
    assert person.face is not None
    for k in range(70):
        if k in places:
            expected = nose + (np.array(places[k]) - 0.5) * 2 * half
            assert person.face[k, :2] == pytest.approx(expected, abs=3)
            assert person.face[k, 2] == pytest.approx(0.8, abs=0.05)
        else:
            assert not person.face[k].any()


@pytest.mark.parametrize("shape", [(1, 1), (10, 400), (20, 400), (400, 15)])
def test_strips_hold_nobody(shape: tuple[int, int]) -> None:
    detector = OpenPose(around_network(Body, PaintedBodies([])))
    assert detector.detect(np.zeros((*shape, 3), dtype=np.uint8)) == []


@pytest.fixture
def released_layout(tmp_path: Path) -> Callable[..., Path]:
    """Writes random weights as the released .pth files name them, in their old pickle format.

    Every layer's filters are flat, which keeps 500 MB off the disk.
    """

    def write(name: str, kind: Callable[[], nn.Module], blocks: bool) -> Path:
        torch.manual_seed(0)
        with torch.device("meta"):
            shapes = {key: x.shape for key, x in kind().state_dict().items()}
        state = {}
        for key, shape in shapes.items():
            levels = 1e-4 * torch.randn(shape[0], *(1 for _ in shape[1:]))
            state[key.split(".", 1)[1] if blocks else key] = levels.expand(shape)
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=False)
        return tmp_path / name

    return write


def test_released_files_are_loaded(released_layout: Callable[..., Path]) -> None:
    body = released_layout("body_pose_model.pth", bodypose_model, blocks=True)
    hand = released_layout("hand_pose_model.pth", handpose_model, blocks=True)
    face = released_layout("facenet.pth", FaceNet, blocks=False)
    detector = load_openpose(body, hand, face)

    assert detector.provider == "cpu"
    for path, network, key in (
        (body, detector.networks[0], "model0.conv1_1.weight"),
        (body, detector.networks[0], "model6_2.Mconv7_stage6_L2.bias"),
        (hand, detector.networks[1], "model1_0.conv5_3_CPM.weight"),
        (face, detector.networks[2], "Mconv7_stage6.weight"),
    ):
        stored = torch.load(path, weights_only=True)
        name = key if path == face else key.split(".", 1)[1]
        assert torch.equal(network.state_dict()[key], stored[name])
    # Random weights see nobody, but the picture goes all the way.
    assert detector.detect(np.full((40, 32, 3), 90, dtype=np.uint8)) == []
    assert len(load_openpose(body).networks) == 1


def test_other_files_are_refused(released_layout: Callable[..., Path], tmp_path: Path) -> None:
    hand = released_layout("hand_pose_model.pth", handpose_model, blocks=True)
    with pytest.raises(CheckpointError, match=r"hand_pose_model\.pth"):
        load_openpose(hand)
    with pytest.raises(CheckpointError, match=r"absent\.pth"):
        load_openpose(tmp_path / "absent.pth")


def test_without_controlnet_aux_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "controlnet_aux"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "controlnet_aux", None)
    with pytest.raises(MissingDependencyError, match="pip install controlnet_aux"):
        load_openpose(tmp_path / "body_pose_model.pth")
