# SPDX-License-Identifier: GPL-3.0-or-later
"""Custom nodes that load and use insightface as ComfyUI_IPAdapter_plus and ComfyUI_InstantID do.

The tests put this file into a server as a pack of its own.
"""

from __future__ import annotations

import json
import os
from typing import Any

import folder_paths


def load(pack: str) -> Any:
    from insightface.app import FaceAnalysis

    root = os.path.join(folder_paths.models_dir, "insightface")
    analysis = FaceAnalysis(name=pack, root=root, providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    return analysis


def faces(analysis: Any, image: Any) -> list[Any]:
    return analysis.get((image[0] * 255).round().byte().numpy()[..., ::-1])


class Loader:
    CATEGORY, FUNCTION = "test", "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


class InsightFaceLoader(Loader):
    RETURN_TYPES = ("INSIGHTFACE",)

    def load(self) -> tuple[Any]:
        return (load("buffalo_l"),)


class InstantIDLoader(Loader):
    RETURN_TYPES = ("FACEANALYSIS",)

    def load(self) -> tuple[Any]:
        return (load("antelopev2"),)


class Reader:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "read", ("STRING",)


class FaceID(Reader):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"insightface": ("INSIGHTFACE",), "image": ("IMAGE",)}}

    def read(self, insightface: Any, image: Any) -> tuple[str]:
        return (json.dumps(faces(insightface, image)[0].normed_embedding.tolist()),)


class InstantID(Reader):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"insightface": ("FACEANALYSIS",), "image": ("IMAGE",)}}

    def read(self, insightface: Any, image: Any) -> tuple[str]:
        return (json.dumps(faces(insightface, image)[0]["embedding"].tolist()),)


class ReadEmbedding(Reader):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"face_embedding": ("FACE_EMBEDDING",)}}

    def read(self, face_embedding: Any) -> tuple[str]:
        arrays = ("raw", "normalised", "boxes", "points", "found")
        values = {name: getattr(face_embedding, name).tolist() for name in arrays}
        return (json.dumps({**values, "encoder": face_embedding.encoder}),)


NODE_CLASS_MAPPINGS = {
    f"Test{node.__name__}": node
    for node in (InsightFaceLoader, InstantIDLoader, FaceID, InstantID, ReadEmbedding)
}
