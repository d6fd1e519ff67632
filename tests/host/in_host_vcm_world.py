# SPDX-License-Identifier: GPL-3.0-or-later
"""What `in_host_vcm.py` checks: a small model of the host, a module for it, and what the library's
arithmetic makes of both in diffusers' UNet."""

from __future__ import annotations

import copy
from typing import Any

import comfy.clip_vision
import comfy.controlnet
import comfy.samplers
import comfy.sd
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from pose_transfer_pack.nodes import host, stock_models
from pose_transfer_pack.nodes import vcm as nodes
from pose_transfer_pack.nodes.sockets import VCMModel
from pose_transfer_pack.pose_transfer.oneposetrans import (
    VCM,
    ImageProjection,
    Resampler,
    TokenAdapter,
    vcm_attention,
)
from pose_transfer_pack.pose_transfer.types import FaceEmbedding
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

Report = dict[str, Any]
CONTEXT, EMBED, IMAGE_TOKENS = 96, 80, 4
PROMPT, NEGATIVE = "A woman with face, a black shirt.", "low quality"
LONG = "a red and white striped shirt, " * 11 + "the (face:1.2) of a woman"
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (64, 64, 128),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": CONTEXT,
    "attention_head_dim": (4, 4, 4),
    "transformer_layers_per_block": (1, 2, 1),
    "use_linear_projection": True,
}


class World:
    """A UNet of Stable Diffusion's kind, its text encoder, a module for it, all random."""

    def __init__(self) -> None:
        self.unet = UNet2DConditionModel(**UNET).eval()
        self.model = stock_models.build_model(
            self.unet.state_dict(),
            self.unet.config,
            prediction="epsilon",
            latent_format=stock_models.LatentFormat(1.0, 4),
            dtypes=(torch.float32,),
        )
        text: dict[str, Any] = {
            "vocab_size": 49408, "hidden_size": CONTEXT, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 77,
            "hidden_act": "quick_gelu", "projection_dim": CONTEXT, "bos_token_id": 49406,
            "eos_token_id": 49407, "pad_token_id": 49407,
        }  # fmt: skip
        encoder = CLIPTextModel(CLIPTextConfig(**text)).eval().state_dict()
        named = {"text_model." + k.removeprefix("text_model."): x for k, x in encoder.items()}
        self.clip = stock_models.build_clip(named, text)
        attentions = [n for n in self.unet.attn_processors if ".attn2." in n]
        widths = [
            self.unet.get_parameter(n.removesuffix("processor") + "to_q.weight").shape[0]
            for n in attentions
        ]
        self.order = attentions

        def adapter(projection: Any) -> TokenAdapter:
            to_k, to_v = ([torch.randn(c, CONTEXT) / 8 for c in widths] for _ in range(2))
            return TokenAdapter(projection, to_v, to_k)

        self.vcm = VCM(
            adapter(ImageProjection(CONTEXT, EMBED, IMAGE_TOKENS)),
            adapter(Resampler(32, 1, 8, 4, 16, 512, CONTEXT, 2)),
        )
        self.x = torch.randn(1, 4, 8, 8)
        self.seen = torch.randn(1, EMBED)
        raw = torch.randn(1, 512).numpy()
        self.face = embedding(raw, True)
        self.weights = VCMModel("test", host.managed(self.vcm), None)

    def apply(self, **inputs: Any) -> Any:
        seen = comfy.clip_vision.Output()
        seen["image_embeds"] = inputs.pop("seen", self.seen)
        given: dict[str, Any] = {
            "model": self.model, "clip": self.clip, "vcm": self.weights, "prompt": PROMPT,
            "negative_prompt": NEGATIVE, "face_word": "face", "blocks": "uniform",
            "image_scale": 1.0, "block_table": "", "face_scale": 0.0, "start": 0.0, "end": 1.0,
            "crop": "center", "clip_vision_output": seen, "face_embedding": self.face, **inputs,
        }  # fmt: skip
        return nodes.ApplyVCM.execute(**given).result

    def predict(self, model: Any, *conditionings: Any, x: Tensor | None = None, t: int = 500):
        """Noise under each conditioning, made in one call of the sampler's."""
        return OneCall(self.x if x is None else x, t).run(model, conditionings)

    def expected(
        self, text: Tensor, index: Any, embeds: Tensor, face: Tensor | None, **scales: Any
    ):
        """What diffusers' UNet predicts with the library in its cross-attentions."""
        unet = copy.deepcopy(self.unet)
        return library_predicts(unet, self, text, index, embeds, face, **scales)


class OneCall:
    """A sampler of a single model call, which remembers batch sizes."""

    def __init__(self, x: Tensor, t: int) -> None:
        self.x, self.t = x, t

    def run(self, model: Any, conditionings: Any) -> list[Tensor]:
        guider = comfy.samplers.CFGGuider(model)
        guider.inner_set_conds({str(i): c for i, c in enumerate(conditionings)})
        guider.set_cfg(1.0)
        guider.predict_noise = lambda x, sigma, model_options, seed: self._predict(
            guider, x, sigma, model_options
        )
        empty = torch.zeros_like(self.x)
        guider.sample(empty, empty, self, torch.tensor([1.0, 0.0]))
        return self.noise

    def sample(self, guider: Any, _sigmas: Any, extra: dict[str, Any], *_: Any) -> Tensor:
        s = guider.inner_model.model_sampling.sigma(torch.tensor([float(self.t)]))
        guider(self.x * (s**2 + 1) ** 0.5, s, model_options=extra["model_options"], seed=0)
        return self.x

    def _predict(self, guider: Any, x: Tensor, sigma: Tensor, options: dict[str, Any]) -> Tensor:
        conds = [guider.conds[key] for key in sorted(guider.conds)]
        out = comfy.samplers.calc_cond_batch(guider.inner_model, conds, x, sigma, options)
        self.noise = [(x - denoised) / sigma for denoised in out]
        return out[0]


class LibraryProcessor:
    """diffusers' cross-attention with the library's arithmetic."""

    def __init__(self, region: Tensor | None, **inputs: Any) -> None:
        self.region = region
        self.inputs = inputs

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any):
        q = attn.to_q(hidden_states)
        k, v = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        out = vcm_attention(q, k, v, heads=attn.heads, **self.inputs)
        if self.region is not None:
            text = vcm_attention(
                q, k, v, heads=attn.heads, **{**self.inputs, "scale_ip": 0.0, "scale_face": 0.0}
            )
            side = round(q.shape[1] ** 0.5)
            weight = F.interpolate(self.region[:, None], (side, side), mode="area")
            out = text + weight.flatten(2).mT * (out - text)
        return attn.to_out[0](out)


def library_predicts(
    unet: Any, world: World, text: Tensor, index: Any, embeds: Tensor, face: Tensor | None,
    scale_ip: Any = 1.0, scale_face: float = 0.0, region: Tensor | None = None,
) -> Tensor:  # fmt: skip
    image_tokens = world.vcm.image.tokens(embeds)
    face_part = world.vcm.face
    assert face_part is not None
    face_tokens = None if face is None else face_part.tokens(face)
    processors = dict(unet.attn_processors)
    for i, name in enumerate(world.order):
        scale = scale_ip(name) if callable(scale_ip) else scale_ip
        processors[name] = LibraryProcessor(
            region,
            ip_k=world.vcm.image.key(image_tokens, i),
            ip_v=world.vcm.image.value(image_tokens, i),
            face_k=None if face_tokens is None else face_part.key(face_tokens, i),
            face_v=None if face_tokens is None else face_part.value(face_tokens, i),
            token_index=index, scale_ip=scale, scale_face=scale_face,
        )  # fmt: skip
    unet.set_attn_processor(processors)
    return unet(world.x, 500, text, return_dict=False)[0]


def embedding(raw: Any, found: bool, encoder: str = "antelopev2") -> FaceEmbedding:
    zeros = np.zeros((1, 5, 2), np.float32)
    return FaceEmbedding(raw, raw, zeros[:, 0].repeat(2, -1), zeros, np.array([found]), encoder)


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def raw_face(face: FaceEmbedding) -> Tensor:
    return torch.from_numpy(face.raw)
