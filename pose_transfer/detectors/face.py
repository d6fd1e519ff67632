# SPDX-License-Identifier: GPL-3.0-or-later
"""Faces by insightface: a pack that we load, or a FaceAnalysis object that another pack loaded.

ComfyUI_IPAdapter_plus (socket INSIGHTFACE) and ComfyUI_InstantID (socket FACEANALYSIS) pass
insightface's own FaceAnalysis around, so that class is the common ground: `InsightFaceEncoder`
wraps theirs, and its `analysis` can be handed to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, MissingDependencyError, PoseTransferError
from ..types import Box
from .base import Face, Picture
from .onnx_model import describe_provider, offered_providers

# px of the square that a picture is fitted into. Smaller ones find faces that are large in it.
DETECTION_SIZES = tuple(range(640, 319, -64))
EMBEDDING = 512
_TASKS = ("detection", "recognition")


class InsightFaceEncoder:
    """Faces of photos. `analysis` is the insightface.app.FaceAnalysis behind it.

    `name` tells the models apart ("insightface antelopev2"), whoever loaded them.
    """

    def __init__(self, analysis: Any, offered: list[str] | None = None) -> None:
        """`offered` are the onnxruntime providers that the networks were opened with, if known.

        Raises PoseTransferError where `analysis` is something else.
        """
        if isinstance(analysis, Mapping) or not callable(getattr(analysis, "get", None)):
            raise PoseTransferError(
                f"Got {type(analysis).__name__} as face analysis, expected insightface's "
                "FaceAnalysis. Connect 'IPAdapter InsightFace Loader' or 'InstantID Face "
                "Analysis', or nothing."
            )
        self.analysis = analysis
        models = Path(getattr(analysis, "model_dir", "")).name
        self.name = f"insightface {models}" if models else "insightface (unknown models)"
        self.provider = _provider(analysis, offered)

    def faces(self, picture: Picture) -> list[Face]:
        """As in `FaceEncoder`; looks again at other sizes where there seems to be no face.

        First at 640 px, then at smaller sizes down to 320 px, at last with a black border around
        the picture, for a face that fills it. Raises PoseTransferError.
        """
        bgr = np.ascontiguousarray(picture[..., ::-1])
        height, width = picture.shape[:2]
        for size in DETECTION_SIZES:
            faces = self._read(self._find(bgr, size), (0, 0), (width, height))
            if faces:
                return faces
        border = (width // 2, height // 2)
        bordered = np.pad(bgr, [(border[1], border[1]), (border[0], border[0]), (0, 0)])
        return self._read(self._find(bordered, DETECTION_SIZES[0]), border, (width, height))

    def _find(self, bgr: Picture, size: int) -> Sequence[Any]:
        try:
            with _detection_size(getattr(self.analysis, "det_model", None), size):
                return self.analysis.get(bgr)
        except Exception as error:  # onnxruntime's and OpenCV's share no other base class
            raise PoseTransferError(
                f"{self.name} stopped on {self.provider}: {error} If the graphics card is out of "
                "memory, free some; else download the model files again."
            ) from error

    def _read(
        self, found: Sequence[Any], offset: tuple[int, int], size: tuple[int, int]
    ) -> list[Face]:
        """insightface's faces on a picture of that size (w, h), which began at `offset` (x, y)."""
        faces = []
        for one in found:
            box = self._numbers(one, "bbox", (4,))
            points = self._numbers(one, "kps", (5, 2)) - np.array(offset, np.float32)
            left, top, right, bottom = (box - np.array(offset * 2, np.float32)).tolist()
            score = float(_field(one, "det_score", 1.0))
            on_picture = Box(left, top, right - left, bottom - top, score).clipped(*size)
            embedding = self._numbers(one, "embedding", (EMBEDDING,))
            if on_picture.area and np.ptp(points, axis=0).any():
                faces.append(Face(on_picture, points, embedding))
        return faces

    def _numbers(self, one: Any, field: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        value = _field(one, field, None)
        numbers = None if value is None else np.asarray(value, dtype=np.float32)
        if numbers is None or numbers.shape != shape or not np.isfinite(numbers).all():
            got = "nothing" if numbers is None else f"numbers of shape {numbers.shape}"
            raise PoseTransferError(
                f"{self.name} gave {got} as a face's {field}, expected finite numbers of shape "
                f"{shape}. It needs a detector with five points and an ArcFace network: use "
                "antelopev2 or buffalo_l."
            )
        return numbers


def import_face_analysis() -> type:
    """insightface.app.FaceAnalysis; raises MissingDependencyError."""
    try:
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise MissingDependencyError(
            f"Faces of photos need the package insightface, which cannot be imported ({error}). "
            "Install it into ComfyUI's Python: 'pip install insightface onnxruntime' (with an "
            "NVIDIA card 'pip install insightface onnxruntime-gpu'). Then restart ComfyUI. Its "
            "models are for non-commercial use only."
        ) from error
    return FaceAnalysis


def load_insightface(folder: str | Path) -> InsightFaceEncoder:
    """Detector and recognition network of a pack; what else the folder holds is left out.

    Works with insightface 0.7 and 2. Raises MissingDependencyError, and CheckpointError for a
    folder without both networks or with a damaged one.
    """
    face_analysis = import_face_analysis()
    folder = Path(folder).absolute()
    if not folder.is_dir():
        # insightface would try to download what it does not find.
        raise CheckpointError(f"There is no folder {folder}. Put antelopev2 or buffalo_l there.")
    import onnxruntime

    offered = offered_providers(onnxruntime)
    try:
        # A whole path as name is taken as it is by every version, wherever the folder lies.
        analysis = face_analysis(
            name=str(folder), root=str(folder), providers=offered, allowed_modules=list(_TASKS)
        )
        lacking = [task for task in _TASKS if task not in analysis.models]
        if not lacking:
            analysis.prepare(ctx_id=0, det_size=(DETECTION_SIZES[0],) * 2)
            # Other packs look again at smaller sizes by setting `input_size`, which version 2
            # heeds only where this list is empty.
            analysis.det_model.input_sizes = []
    except AssertionError:  # how insightface says that there is no detector
        lacking = ["detection"]
    except Exception as error:  # onnxruntime's exceptions share no other base class
        raise CheckpointError(
            f"insightface cannot load the models in {folder}: {error} Download them again; if that "
            "does not help, update insightface and onnxruntime."
        ) from error
    if lacking:
        files = ", ".join(sorted(file.name for file in folder.glob("*.onnx"))) or "no .onnx file"
        raise CheckpointError(
            f"{folder} lacks the network for {' and '.join(lacking)}; it holds {files}. Expected "
            "all files of antelopev2 or buffalo_l: download the pack again."
        )
    return InsightFaceEncoder(analysis, offered)


@contextmanager
def _detection_size(detector: Any, size: int) -> Iterator[None]:
    """Lets a detector see pictures at another size; it may be another pack's, so only meanwhile.

    Version 0.7 reads `input_size`, version 2 the list `input_sizes` before it; `prepare` of 0.7
    cannot change a size that is set.
    """
    wanted = {"input_size": (size, size), "input_sizes": [(size, size)]}
    before = {name: getattr(detector, name) for name in wanted if hasattr(detector, name)}
    try:
        for name in before:
            setattr(detector, name, wanted[name])
        yield
    finally:
        for name, value in before.items():
            setattr(detector, name, value)


def _provider(analysis: Any, offered: list[str] | None) -> str:
    """What the networks run on, each way once."""
    texts = []
    for model in getattr(analysis, "models", {}).values():
        session = getattr(model, "session", None)
        if session is not None:
            used = session.get_providers()
            texts.append(used[0] if offered is None else describe_provider(offered, used))
    return " and ".join(dict.fromkeys(texts)) or "what the other pack chose"


def _field(face: Any, name: str, default: Any) -> Any:
    """Of insightface's Face, a dict with attributes; other packs use one or the other."""
    value = face.get(name) if isinstance(face, Mapping) else getattr(face, name, None)
    return default if value is None else value
