# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the embedded demo weights, without a host.

`mannequin_base.safetensors` holds a small Stable Diffusion: `unet.*` (diffusers layout),
`text_encoder.*` (transformers' CLIPTextModel) and `vae.*` (TAESD). Its metadata is
`{"format": "pose_transfer.mannequin", "version": "1", "config": JSON}`. FPDM's part is a file of
the pack's own FPDM format that borrows the base's UNet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import CheckpointError
from ..weights import read_weights, with_prefix

if TYPE_CHECKING:
    from ..fpdm import FPDM

WEIGHTS = Path(__file__).parent / "weights"
BASE_WEIGHTS = WEIGHTS / "mannequin_base.safetensors"
FPDM_WEIGHTS = WEIGHTS / "mannequin_fpdm.safetensors"
TRUEPOSE_WEIGHTS = WEIGHTS / "mannequin_truepose.safetensors"
"""Not in every copy of the pack."""

FORMAT = "pose_transfer.mannequin"
TOKEN_EMBEDDING = "text_model.embeddings.token_embedding.weight"
TOKEN_IDS = "token_ids"
GET_AGAIN = (
    "The file comes with the pack: install the pack again, or run "
    "`git checkout -- pose_transfer/demo/weights` in its folder."
)


@dataclass(frozen=True, eq=False)
class MannequinBase:
    """The demo's Stable Diffusion as float32 state dicts with the settings that shaped them.

    `unet_config` are keywords of diffusers' UNet2DConditionModel, `text_config` of transformers'
    CLIPTextConfig. `text_encoder` is complete: its token embedding has `vocab_size` rows.
    """

    unet: Mapping[str, Tensor]
    unet_config: Mapping[str, Any]
    text_encoder: Mapping[str, Tensor]
    text_config: Mapping[str, Any]
    vae: Mapping[str, Tensor]


def load_base(path: Path | str = BASE_WEIGHTS) -> MannequinBase:
    """Reads the base. Raises CheckpointError for a file that is missing, damaged or another."""
    path = existing(Path(path))
    try:
        file = read_weights(path)
        if file.metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {file.metadata.get('format')!r}, not {FORMAT!r}")
        config = json.loads(file.metadata["config"])
        tensors = {k: t.float() if t.is_floating_point() else t for k, t in file.tensors.items()}
        unet, text_encoder, vae = (
            with_prefix(tensors, f"{part}.") for part in ("unet", "text_encoder", "vae")
        )
        return MannequinBase(
            unet=unet,
            unet_config=config["unet"],
            text_encoder=_expand_vocabulary(text_encoder, config["text_encoder"]["vocab_size"]),
            text_config=config["text_encoder"],
            vae=vae,
        )
    except (CheckpointError, KeyError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"The demo's base model cannot be used: {reason}. {GET_AGAIN}"
        ) from error


def require_fpdm_weights(path: Path | str = FPDM_WEIGHTS) -> Path:
    """The path of FPDM's demo weights; CheckpointError where there is no such file."""
    return existing(Path(path))


def load_fpdm(path: Path | str = FPDM_WEIGHTS) -> FPDM:
    """The demo's FPDM, without a UNet. Raises CheckpointError as `load_base` does."""
    from ..fpdm import load_checkpoint  # imports diffusers, which the base alone does not need

    path = require_fpdm_weights(path)
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"The demo's FPDM cannot be used: {error} {GET_AGAIN}") from error


def existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"The demo weights {path} are missing. {GET_AGAIN}")
    return path


def _expand_vocabulary(text_encoder: dict[str, Tensor], vocabulary: int) -> dict[str, Tensor]:
    """The token embedding with a row for every token of the stock tokenizer.

    Only the words of the captions were trained: `token_ids` (K,) says which token each of the K
    stored rows is; the last row stands for all the others.
    """
    out = dict(text_encoder)
    token_ids, rows = out.pop(TOKEN_IDS), out[TOKEN_EMBEDDING]  # (K,), (K, hidden)
    table = rows[-1].repeat(vocabulary, 1)
    table[token_ids[:-1]] = rows[:-1]
    out[TOKEN_EMBEDDING] = table
    return out
