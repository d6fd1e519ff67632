# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's visual consistency module: image and face tokens for the frozen mannequin base.

It learns beside the shipped files, which do not change: the base's UNet and text encoder, FPDM's
pose encoder and image tower, the face encoder. Latents, embeddings and pose states are those of the
work folder that these files were made in. A sample is a person in two poses: tokens come from the
one picture, caption and pose go with the other, which is to be drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ..demo.architecture import CONTEXT_WIDTH, EMBED_WIDTH, FACE_NET
from ..demo.faces import FaceNetwork, Head, load_face_network
from ..demo.models import MannequinBase, load_base, load_fpdm
from ..demo.network_files import FACE_FILE
from ..demo.text import text_context
from ..demo.vcm import VCM_FILE
from ..fpdm import FPDM
from ..fpdm.conv_towers import ConvImageTower, describe
from ..fpdm.unet import pose_added
from ..libraries import AttentionLayers, set_processor
from ..mannequin.vocabulary import END, TOKEN_IDS
from ..oneposetrans import VCM, ImageProjection, Resampler, TokenAdapter, face_value, save_vcm
from ..oneposetrans.vcm import attention, replace_value
from ..oneposetrans.vcm_files import Tower
from ..oneposetrans.vcm_plan import Added
from ..weights import load_into
from . import export
from .batches import Batches
from .diffusion import DiffusionTask
from .faces import visible_faces
from .fpdm_stages import FPDMStages
from .settings import DemoSettings

IMAGE_PROJECTION: dict[str, int] = {
    "cross_attention_dim": CONTEXT_WIDTH,
    "clip_embeddings_dim": EMBED_WIDTH,
    "clip_extra_context_tokens": 4,
}
FACE_RESAMPLER: dict[str, int] = {
    "dim": 128, "depth": 2, "dim_head": 32, "heads": 4, "num_queries": 16,
    "embedding_dim": FACE_NET["embedding"], "output_dim": CONTEXT_WIDTH, "ff_mult": 4,
}  # fmt: skip

# Shares of the samples that do without: everything, as in the unconditional branch; the picture;
# the caption; the face; the pose.
_NOTHING, _NO_IMAGE, _NO_TEXT, _NO_FACE, _NO_POSE = 0.1, 0.05, 0.05, 0.1, 0.15


class AddingProcessor:
    """diffusers' cross-attention with what the module adds; set `added` and `words` before."""

    def __init__(self) -> None:
        self.added: Added | None = None
        self.words: Tensor | None = None

    def __call__(
        self,
        attn: AttentionLayers,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        assert self.added is not None and self.words is not None and self.added.value is not None
        q, k = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)
        v = replace_value(attn.to_v(encoder_hidden_states), self.added.value, self.words)
        more = self.added.attend(q, attn.heads)
        assert more is not None
        return attn.to_out[1](attn.to_out[0](attention(q, k, v, attn.heads) + more))


class VCMTask(nn.Module):
    """The module to be trained, inside a frozen UNet that is no part of its parameters."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        names = [name for name in unet.attn_processors if ".attn2." in name]
        layers = [unet.get_submodule(name.removesuffix(".processor")) for name in names]

        def copies(side: str) -> list[Tensor]:
            # The UNet's own projections know what its context's numbers mean.
            return [layer.get_parameter(f"{side}.weight").detach().clone() for layer in layers]

        self.vcm = VCM(
            TokenAdapter(ImageProjection(**IMAGE_PROJECTION), copies("to_v"), copies("to_k")),
            TokenAdapter(Resampler(**FACE_RESAMPLER), copies("to_v"), None),
        )
        self._processors = [AddingProcessor() for _ in layers]
        for layer, processor in zip(layers, self._processors, strict=True):
            set_processor(layer, processor)
        self._frozen = (unet,)  # a tuple, or it would count as a part

    def forward(
        self,
        latents: Tensor,
        t: Tensor,
        context: Tensor,
        pose_features: Tensor,
        images: Tensor,
        faces: Tensor,
        words: Tensor,
    ) -> Tensor:
        """Prediction for noisy latents; `images` (B, E), `faces` (B, 512), `words` (B, L) bool."""
        image, face = self.vcm.image, self.vcm.face
        assert face is not None
        image_tokens, face_tokens = image.tokens(images), face.tokens(faces)
        for i, processor in enumerate(self._processors):
            processor.words = words
            processor.added = Added(
                face_value(face.value(face_tokens, i)),
                (image.key(image_tokens, i), image.value(image_tokens, i)),
                None,
            )
        (unet,) = self._frozen
        with pose_added(unet, pose_features):
            return unet(latents, t, context, return_dict=False)[0]


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is known of all samples: clean latents (N, C, h, w), embeddings of the whole picture
    (N, E) and of the face (N, 512), and whether there is a face (N,)."""

    latents: Tensor
    images: Tensor
    faces: Tensor
    found: Tensor


class VCMDiffusion(DiffusionTask):
    """Batches and loss. `context(tokens)`: the caption's (B, 77, D)."""

    def __init__(
        self,
        data: Batches,
        pictures: Pictures,
        context: Callable[[Tensor], Tensor],
        poses: Callable[[Tensor], Tensor],
        settings: DemoSettings,
    ) -> None:
        super().__init__(
            data, pictures.latents, states=lambda index: pictures.images[index], poses=poses,
            fuse=lambda source, _target: pictures.faces[source], settings=settings,
        )  # fmt: skip
        self.found = pictures.found
        self.context = context

    def __call__(
        self, module: nn.Module, batch: int, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        device = self.data.device
        source = self.data.draw(batch, generator)
        index = self.data.partners(source, generator)
        clean = self.latents[index.to(self.latents.device)].to(device).float()
        t = torch.randint(len(self.signal), (batch,), device=device, generator=generator)
        noise = torch.randn(clean.shape, device=device, generator=generator)
        a, s = self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)
        chance = torch.rand((3, batch), device=device, generator=generator)
        nothing = chance[0] < _NOTHING
        no_image = nothing | (chance[0] > 1 - _NO_IMAGE)
        no_text = nothing | ((chance[0] > 1 - _NO_IMAGE - _NO_TEXT) & ~no_image)
        no_face = ~self.found[source] | (chance[1] < _NO_FACE)

        tokens = self.data.labels.tokens[self.data.identities(index)].clone()
        words = (tokens == TOKEN_IDS["face"]) & ~no_face[:, None]
        tokens[no_text, 1:] = END
        with torch.no_grad():
            context = self.context(tokens)
            features = self.poses(index) * (chance[2] >= _NO_POSE).view(-1, 1, 1, 1)
        images = self.states(source) * ~no_image[:, None]
        # The unconditional branch has the tokens of an embedding of zeros, at the same place.
        faces = self.fuse(source, index) * ~nothing[:, None]
        prediction = module(a * clean + s * noise, t, context, features, images, faces, words)
        loss = self._loss(prediction, clean, noise, t, self._cell_weights(index))
        return loss, {}


class VCMStage(FPDMStages):
    """Trains the module and writes its file."""

    def vcm(self) -> VCM:
        stage = self.settings.vcm
        base = load_base(self.out / export.BASE_FILE)
        fpdm = load_fpdm(self.out / export.FPDM_FILE).to(self.device).requires_grad_(False)
        unet = UNet2DConditionModel(**base.unet_config)
        load_into(unet, base.unet, "the demo UNet")
        task = VCMTask(unet.to(self.device).eval().requires_grad_(False))
        if self._finished("vcm", stage.steps):
            self._load("vcm", task)
        else:
            diffusion = self._vcm_diffusion(base, fpdm)
            self._train("vcm", task, lambda m, step, g: diffusion(m, stage.batch, step, g), stage)
        self._write(task.vcm, fpdm, asdict(stage))
        return task.vcm

    def _vcm_diffusion(self, base: MannequinBase, fpdm: FPDM) -> VCMDiffusion:
        data = self._second_stage("parsing")
        states = self.pose_states()

        def poses(index: Tensor) -> Tensor:
            return fpdm.pose_encoder.conv_out(states[index.cpu()].to(self.device).float())

        images, _ = self.embeddings("fusion", self.fusion())
        faces, found = self._face_embeddings(data)
        pictures = Pictures(self.latents()["latents"].to(self.device), images, faces, found)
        return VCMDiffusion(data, pictures, text_context(base, self.device), poses, self.settings)

    def _face_embeddings(self, data: Batches) -> tuple[Tensor, Tensor]:
        """Faces of all samples (N, 512), and where there is one (N,), cached on disk."""
        path = self.work / "vcm-faces.pt"
        if not path.exists():
            faces, found = _faces(load_face_network(self.out / FACE_FILE), data)
            torch.save({"faces": faces, "found": found}, path)
        state = torch.load(path, map_location=self.device, weights_only=True)
        return state["faces"], state["found"]

    def _write(self, vcm: VCM, fpdm: FPDM, stage: dict[str, Any]) -> None:
        settings, path, tower = self.settings, self.out / VCM_FILE, _tower(fpdm)
        save_vcm(vcm, path, tower=Tower(describe(tower), tower.state_dict()))
        export.write_provenance(
            path,
            {
                "command": f"python -m pose_transfer.training.demo --preset {self.preset}",
                "data": "mannequin world, split train, first "
                f"{settings.identities} identities, {settings.poses_per_identity} poses each",
                "settings": stage,
            },
        )


def _tower(fpdm: FPDM) -> ConvImageTower:
    tower = fpdm.image_tower
    assert isinstance(tower, ConvImageTower)
    return tower


def _faces(network: FaceNetwork, data: Batches) -> tuple[Tensor, Tensor]:
    """Face embeddings (N, 512), zeros where there is none, and whether there is one (N,)."""
    seen = visible_faces(data.world, data.count, torch.device("cpu"))
    faces = torch.zeros(data.count, FACE_NET["embedding"])
    found = torch.zeros(data.count, dtype=torch.bool)
    for index, head in zip(seen.samples.tolist(), seen.heads.tolist(), strict=True):
        _, _, raw = network.read(data.world.image[index], Head(*head))
        faces[index], found[index] = torch.from_numpy(raw), True
    return faces, found
