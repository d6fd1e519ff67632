# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: MODEL, CLIP and VAE against the libraries they came from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from pose_transfer_pack.nodes import loading
from pose_transfer_pack.nodes.once import load_once
from pose_transfer_pack.pose_transfer.demo.architecture import SCHEDULER
from pose_transfer_pack.pose_transfer.demo.models import load_base
from pose_transfer_pack.pose_transfer.evaluation.models import TinyAutoencoder
from pose_transfer_pack.pose_transfer.fpdm import load_checkpoint
from pose_transfer_pack.pose_transfer.fpdm.checkpoint import save_checkpoint
from pose_transfer_pack.pose_transfer.mannequin import sample_identity
from pose_transfer_pack.pose_transfer.mannequin.captions import caption
from pose_transfer_pack.pose_transfer.mannequin.vocabulary import encode
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from autoencoders import build_autoencoder

Report = dict[str, Any]


@torch.inference_mode()
def check(
    base_path: str,
    fpdm_path: str,
    tiny_path: str,
    tiny_heads: dict[str, dict[str, int]],
    folder: str,
) -> Report:
    torch.set_num_threads(1)  # tiny tensors; threads only wait for each other
    torch.manual_seed(0)
    return {**demo(base_path, fpdm_path), **released(tiny_path, tiny_heads, Path(folder))}


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def demo(base_path: str, fpdm_path: str) -> Report:
    paths = (Path(base_path), Path(fpdm_path))
    base, loaded = load_base(base_path), load_once(loading._load_demo, *paths)
    tokens = loaded.clip.tokenize("a red shirt, a zebra")  # known words, and one that is not
    hidden = text_model(base)(torch.tensor([[n for n, _ in tokens["l"][0]]])).last_hidden_state
    tiny, latents, picture = (
        TinyAutoencoder(base.vae),
        torch.randn(2, base.unet_config["in_channels"], 8, 6),
        torch.rand(1, 64, 48, 3),
    )
    latent_format = loaded.model.get_model_object("latent_format")
    alphas = DDPMScheduler(**SCHEDULER).alphas_cumprod
    sigmas = loaded.model.get_model_object("model_sampling").sigmas
    return {
        "text": difference(loaded.clip.encode_from_tokens(tokens).float(), hidden),
        "text's size": hidden.abs().max().item(),
        "decode": difference(loaded.vae.decode(latents), tiny.decode(latents)),
        "encode": difference(loaded.vae.encode(picture), tiny.encode(picture)),
        "idle blocks": sum(
            type(x).__name__ == "_IdleBlock" for x in loaded.vae.first_stage_model.modules()
        ),
        "weights changed": sorted(
            name for name, x in loaded.vae.get_sd().items() if not torch.equal(x, base.vae[name])
        ),
        "preview": [
            len(latent_format.latent_rgb_factors),
            len(latent_format.latent_rgb_factors_bias),
        ],
        "schedule": difference(sigmas * (alphas / (1 - alphas)) ** 0.5, torch.ones(1000)),
        "captions misread": captions_misread(loaded.clip),
        "loaded once": load_once(loading._load_demo, *paths) is loaded,
    }


def captions_misread(clip: Any) -> list[str]:
    """Captions that the stock tokenizer cuts into other tokens than the trainer did."""
    captions = [caption(sample_identity(seed)) for seed in range(200)]
    return [
        text for text in captions if [n for n, _ in clip.tokenize(text)["l"][0]] != encode(text)
    ]


def text_model(base: Any) -> CLIPTextModel:
    model = CLIPTextModel(CLIPTextConfig(**base.text_config)).eval()
    ours = dict(base.text_encoder)
    if not any(k.startswith("text_model.") for k in model.state_dict()):  # transformers 5
        ours = {k.removeprefix("text_model."): v for k, v in ours.items()}
    model.load_state_dict(ours)
    return model


def released(tiny_path: str, heads: dict[str, dict[str, int]], folder: Path) -> Report:
    """The released code's tiny model through Load FPDM: a UNet of Stable Diffusion 2's kind."""
    reference = load_checkpoint(tiny_path, config=heads)
    reference.vae = build_autoencoder(32, 64, 32, 32, latent_channels=4, scaling_factor=0.5).eval()
    path = folder / "tiny.safetensors"
    save_checkpoint(reference, path)
    model, fpdm, vae = loading.load_fpdm(path)

    x, t, context = torch.randn(2, 4, 16, 12), torch.tensor([3.0, 700.0]), torch.randn(2, 17, 64)
    pose, fusion = torch.zeros(2, 32, 16, 12), torch.randn(2, 56)
    offset = fpdm.fpdm.time_offset(fusion)
    options = {"patches": {"emb_patch": [lambda emb, *_: emb + offset]}}
    predicted = model.get_model_object("diffusion_model")(
        x, t, context=context, transformer_options=options
    )
    z = torch.randn(1, 4, 16, 12)
    decode: Any = reference.vae.decode  # diffusers annotates FloatTensor, in and out
    decoded = (decode(z).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    return {
        "tiny unet": difference(predicted, reference.predict_noise(x, t, context, pose, fusion)),
        "tiny prediction": model.model.model_type.name,
        "tiny scale": model.get_model_object("latent_format").scale_factor,
        "tiny vae": difference(vae.decode(z), decoded),
        "fpdm keeps": [n for n in ("unet", "vae") if getattr(fpdm.fpdm, n) is not None],
    }
