# SPDX-License-Identifier: GPL-3.0-or-later
"""Weight files of the visual consistency module: IP-Adapter's, InstantID's and this project's own.

What a file holds is told by its tensors; dimensions are read from their shapes. Ours is one
safetensors file with `{"format": "pose_transfer.vcm", "version": "1", "config": JSON}` as metadata
and the parts `image.*` and `face.*` (a `TokenAdapter` each) and perhaps `image_tower.*`, the
network that makes the image embeddings. The config has `heads` of each part's Resampler and the
tower's own description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..weights import Weights, load_into, read_weights, with_prefix, write_weights
from .resampler import ImageProjection, Resampler
from .vcm_adapter import VCM, TokenAdapter

FORMAT, VERSION = "pose_transfer.vcm", "1"
RELEASED_HEAD_WIDTH = 64
"""Of the Resamplers of all released files; shapes do not tell it."""

_PARTS = ("image", "face")
_TOWER = "image_tower"
_RELEASED_PROJECTION, _RELEASED_ATTENTION = "image_proj.", "ip_adapter."
_ATTENTION_KEY = re.compile(r"(\d+)\.to_([kv])_ip\.weight")


@dataclass(frozen=True, eq=False)
class Tower:
    """An image tower as a file has it: what builds it, and its float32 state."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class VCMFile:
    """What one file holds; IP-Adapter's has an image part only, InstantID's a face part only."""

    image: TokenAdapter | None
    face: TokenAdapter | None
    image_tower: Tower | None = None


def read_vcm_file(path: str | Path) -> VCMFile:
    """Raises CheckpointError for a file that is missing, damaged, refused or of another kind."""
    file = read_weights(path, _is_ours)
    try:
        if file.metadata.get("format") == FORMAT:
            return _read_own(file)
        return _read_released(file.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, ValueError, TypeError, IndexError) as error:
        reason = f"tensor {error} is missing" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"{path} does not hold a complete adapter: {reason}. The file may be damaged or of "
            "another kind; download it again."
        ) from error


def save_vcm(
    vcm: VCM, path: str | Path, *, tower: Tower | None = None, dtype: torch.dtype = torch.float16
) -> None:
    """Write this project's file; `read_vcm_file` gives back the same parts."""
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for part, adapter in zip(_PARTS, (vcm.image, vcm.face), strict=True):
        if adapter is None:
            continue
        tensors |= {f"{part}.{k}": x.to(dtype) for k, x in adapter.state_dict().items()}
        config[part] = {}
        if isinstance(adapter.projection, Resampler):
            config[part]["heads"] = adapter.projection.heads
    if tower is not None:
        tensors |= {f"{_TOWER}.{k}": x.to(dtype) for k, x in tower.tensors.items()}
        config[_TOWER] = dict(tower.config)
    metadata = {"format": FORMAT, "version": VERSION, "config": json.dumps(config, sort_keys=True)}
    write_weights(path, tensors, metadata)


def _is_ours(name: str) -> bool:
    parts = tuple(f"{part}." for part in (*_PARTS, _TOWER))
    return name.startswith((_RELEASED_PROJECTION, _RELEASED_ATTENTION, *parts))


def _read_own(file: Weights) -> VCMFile:
    if file.metadata.get("version") != VERSION:
        raise CheckpointError(
            f"its version is {file.metadata.get('version')}, expected {VERSION}. Update this pack, "
            "or take a file that was made for it."
        )
    config = json.loads(file.metadata["config"])
    adapters: dict[str, TokenAdapter] = {}
    for part in _PARTS:
        tensors = with_prefix(file.tensors, f"{part}.")
        if not tensors:
            continue
        projection = _projection(with_prefix(tensors, "projection."), config[part].get("heads"))
        to_k, to_v = ([x for _, x in sorted((int(k), x) for k, x in
                       with_prefix(tensors, f"{side}.").items())]
                      for side in ("to_k", "to_v"))  # fmt: skip
        adapters[part] = _adapter(projection, to_v, to_k or None)
    tower = {k: x.float() for k, x in with_prefix(file.tensors, f"{_TOWER}.").items()}
    return VCMFile(
        adapters.get("image"), adapters.get("face"), Tower(config[_TOWER], tower) if tower else None
    )


def _read_released(tensors: Mapping[str, Tensor]) -> VCMFile:
    projection_tensors = with_prefix(tensors, _RELEASED_PROJECTION)
    attention = with_prefix(tensors, _RELEASED_ATTENTION)
    if not projection_tensors or not attention:
        lacking = _RELEASED_ATTENTION if projection_tensors else _RELEASED_PROJECTION
        raise CheckpointError(
            f"it is neither an IP-Adapter nor an InstantID file: it has no {lacking}* tensors. "
            "Choose for example ip-adapter_sdxl_vit-h.safetensors or InstantID's ip-adapter.bin."
        )
    keys: dict[str, dict[int, Tensor]] = {"k": {}, "v": {}}
    for name, tensor in attention.items():
        found = _ATTENTION_KEY.fullmatch(name)
        if found is None:
            raise CheckpointError(
                f"it is an IP-Adapter of a kind that is not supported: it holds {name!r}, as "
                "FaceID files do. Choose a plain or plus IP-Adapter of Stable Diffusion 1.5 or XL, "
                "or InstantID's ip-adapter.bin for the face."
            )
        keys[found[2]][int(found[1])] = tensor
    if keys["k"].keys() != keys["v"].keys():
        raise ValueError("some cross-attentions have a key or a value only")
    to_k, to_v = ([side[i] for i in sorted(side)] for side in (keys["k"], keys["v"]))
    adapter = _adapter(_projection(projection_tensors, None), to_v, to_k)
    if not adapter.reads_faces:
        return VCMFile(adapter, None)
    # As the released OnePoseTrans: its face keys are made by the value projection.
    adapter.to_k = None
    return VCMFile(None, adapter)


def _adapter(
    projection: ImageProjection | Resampler, to_v: list[Tensor], to_k: list[Tensor] | None
) -> TokenAdapter:
    adapter = TokenAdapter(projection, to_v, to_k)
    width = projection.token_width
    wrong = {x.shape[-1] for x in (*to_v, *(to_k or ()))} - {width}
    if wrong:
        raise ValueError(f"tokens are {width} wide, the attentions take {min(wrong)}")
    return adapter.eval().requires_grad_(False)


def _projection(tensors: Mapping[str, Tensor], heads: int | None) -> ImageProjection | Resampler:
    """The network whose tensors these are, in float32."""
    state = {k: x.float() for k, x in tensors.items()}
    with torch.device("meta"):
        if "latents" in state:
            projection = _empty_resampler(state, heads)
        elif {"proj.weight", "norm.weight"} <= state.keys():
            width = state["norm.weight"].shape[0]
            out, embed_width = state["proj.weight"].shape
            projection = ImageProjection(width, embed_width, out // width)
        else:
            raise CheckpointError(
                f"its image projection has the tensors {', '.join(sorted(state)[:4])}, expected a "
                "plain IP-Adapter's (proj, norm) or a plus one's (latents, layers). Full-face and "
                "FaceID files are not supported: choose a plain or plus one."
            )
    load_into(projection, state, "the projection to tokens")
    return projection.eval()


def _empty_resampler(state: Mapping[str, Tensor], heads: int | None) -> Resampler:
    _, queries, dim = state["latents"].shape
    inner = state["layers.0.0.to_q.weight"].shape[0]
    heads = heads or max(1, inner // RELEASED_HEAD_WIDTH)
    return Resampler(
        dim=dim,
        depth=1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers.")),
        dim_head=inner // heads,
        heads=heads,
        num_queries=queries,
        embedding_dim=state["proj_in.weight"].shape[1],
        output_dim=state["proj_out.weight"].shape[0],
        ff_mult=state["layers.0.1.1.weight"].shape[0] // dim,
    )
