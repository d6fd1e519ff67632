# SPDX-License-Identifier: GPL-3.0-or-later
"""FPDM's parts in one module, and what each of them computes.

Symbols of shapes: B batch, E width of the image embeddings, C width of the source tower, N its
tokens, D width of the UNet's context, C0 channels of the UNet's first convolution, H x W pixels,
h x w = H/8 x W/8 latents.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from ..errors import CheckpointError
from ..images import as_rgb, bhwc_to_bchw
from .conv_towers import ConvPoseEncoder
from .guidance import cumulative_guidance
from .modules import ClassEmbedding, Combiner, PoseEncoder, SourceProjection
from .preprocess import FPDMPreprocess
from .transport import SourceTransport
from .unet import pose_added, with_class_input


class FPDM(nn.Module):
    """The networks of both stages. Parts that a checkpoint may lack are None.

    Nothing here switches gradients off: a caller that only samples does so itself.

    Args:
        source_projection, pose_encoder, class_embedding: stage 2's own networks.
        combiner: stage 1's fusion; needed for `combine` and `fuse`.
        unet: diffusers UNet; one without class embedding is not changed, its layers are shared.
        image_tower: transformers `CLIPVisionModelWithProjection`, for image and pose alike.
        source_tower: transformers `Dinov2Model`.
        vae: diffusers autoencoder.
        preprocess: sizes and colour statistics of the two towers' inputs.
        transport: the demo's own addition to the pose features; not part of FPDM.

    Raises ValueError where the widths of two parts do not fit.
    """

    def __init__(
        self,
        source_projection: SourceProjection,
        pose_encoder: PoseEncoder | ConvPoseEncoder,
        class_embedding: ClassEmbedding,
        combiner: Combiner | None = None,
        unet: UNet2DConditionModel | None = None,
        image_tower: Any | None = None,
        source_tower: Any | None = None,
        vae: AutoencoderKL | None = None,
        preprocess: FPDMPreprocess | None = None,
        transport: SourceTransport | None = None,
    ) -> None:
        super().__init__()
        self.source_projection = source_projection
        self.pose_encoder = pose_encoder
        self.class_embedding = class_embedding
        self.combiner = combiner
        self.unet = None if unet is None else with_class_input(unet)
        self.image_tower = image_tower
        self.source_tower = source_tower
        self.vae = vae
        self.preprocess = preprocess or FPDMPreprocess()
        self.transport = transport
        self._check_widths()

    def combine(self, source_embeds: Tensor, pose_embeds: Tensor) -> Tensor:
        """Fusion embedding of length 1: (B, E), (B, E) -> (B, E)."""
        return _present(self.combiner, "combiner", "fusion_model.combiner")(
            source_embeds, pose_embeds
        )

    def source_tokens(self, hidden_states: Tensor) -> Tensor:
        """Hidden states of the source (B, N, C) -> the UNet's context (B, N, D)."""
        return self.source_projection(hidden_states)

    def pose_features(self, pose_map: Tensor) -> Tensor:
        """Drawn pose (B, 3, H, W) in [0, 1], not [-1, 1] -> (B, C0, H/8, W/8)."""
        if pose_map.dim() != 4 or pose_map.shape[1] != 3:
            raise ValueError(f"pose_map must be (B, 3, H, W), got {tuple(pose_map.shape)}")
        if pose_map.shape[2] % 8 or pose_map.shape[3] % 8:
            raise ValueError(
                f"pose_map is {pose_map.shape[3]}x{pose_map.shape[2]} pixels (W x H); both must be "
                "multiples of 8, as the latents are an eighth of it. Resize or crop the pose map."
            )
        return self.pose_encoder(pose_map)

    def carried_features(
        self, photo_bhwc: Tensor, hidden_states: Tensor, pose_map: Tensor
    ) -> Tensor | None:
        """What the demo's `SourceTransport` adds to the pose features; None for any other FPDM.

        Args: photo (B, Hs, Ws, 3) in [0, 1], its `source_hidden` (B, N, C) and the drawn pose
        (B, 3, H, W); one of either goes with many of the other. Returns (B, C0, H/8, W/8).
        """
        if self.transport is None:
            return None
        assert isinstance(self.pose_encoder, ConvPoseEncoder)
        rows, columns = (side // 8 for side in self.preprocess.source_size)
        return self.transport(
            bhwc_to_bchw(as_rgb(photo_bhwc)),
            hidden_states[:, 1:].mT.unflatten(2, (rows, columns)),
            self.pose_encoder.states(pose_map),
        )

    def time_offset(self, fusion: Tensor) -> Tensor:
        """Fusion embedding (B, E) or (B, 1, E) -> (B, 4 C0), added to the time embedding."""
        if fusion.dim() == 3:
            fusion = fusion.squeeze(1)
        return self.class_embedding(fusion)

    def predict_noise(
        self,
        latents: Tensor,
        t: Tensor | int | float,
        tokens: Tensor,
        pose_features: Tensor,
        fusion: Tensor,
    ) -> Tensor:
        """The UNet's output (v for a v-prediction model) under all three conditions.

        Args: `latents` (B, 4, h, w); `t` one timestep or (B,); `tokens` (B, N, D);
        `pose_features` (B, C0, h, w); `fusion` (B, E). A condition that is off is a tensor of
        zeros. Returns (B, 4, h, w) in the dtype of `latents`.
        """
        unet = _present(self.unet, "UNet", "sd_model.unet")
        if pose_features.shape[-2:] != latents.shape[-2:]:
            raise ValueError(
                f"the pose features are {tuple(pose_features.shape[-2:])} cells, the latents "
                f"{tuple(latents.shape[-2:])}: draw the pose at the size of the picture"
            )
        dtype = unet.dtype
        offset = self.time_offset(fusion)
        with pose_added(unet, pose_features):
            output = unet(
                latents.to(dtype), t, tokens.to(dtype), class_labels=offset, return_dict=False
            )[0]
        return output.to(latents.dtype)

    def predict_guided(
        self,
        latents: Tensor,
        t: Tensor | int | float,
        tokens: Tensor,
        pose_features: Tensor,
        fusion: Tensor,
        w_source: float = 2.0,
        w_fusion: float = 2.0,
    ) -> Tensor:
        """`predict_noise` under cumulative guidance: three passes as one batch of 3 B.

        `t` is one timestep for the whole batch.
        """
        # Nothing; pose and source; pose, source and fusion.
        off, on = torch.zeros_like, lambda x: x
        e_none, e_source, e_full = self.predict_noise(
            latents.repeat(3, 1, 1, 1),
            t,
            torch.cat([off(tokens), on(tokens), on(tokens)]),
            torch.cat([off(pose_features), on(pose_features), on(pose_features)]),
            torch.cat([off(fusion), off(fusion), on(fusion)]),
        ).chunk(3)
        return cumulative_guidance(e_none, e_source, e_full, w_source, w_fusion)

    def forward(
        self,
        latents: Tensor,
        t: Tensor,
        hidden_states: Tensor,
        pose_map: Tensor,
        fusion: Tensor,
        keep_source: Tensor | None = None,
        keep_pose: Tensor | None = None,
        keep_fusion: Tensor | None = None,
    ) -> Tensor:
        """`predict_noise` from raw conditions, for training.

        `keep_*` (B,) are 1 or True where a sample keeps that condition; the source is zeroed
        behind its projection, the pose behind its encoder, the fusion embedding before its network,
        as in the released code. The UNet and all three networks of stage 2 take part in every call,
        so DDP needs no search for unused parameters where the other parts are frozen.
        """
        tokens = _keep(self.source_tokens(hidden_states), keep_source)
        pose_features = _keep(self.pose_features(pose_map), keep_pose)
        return self.predict_noise(latents, t, tokens, pose_features, _keep(fusion, keep_fusion))

    def embed_image(self, photo_bhwc: Tensor) -> Tensor:
        """Photo (B, H, W, 3) in [0, 1] -> image embedding (B, E), not normalised."""
        return self._embed(self.preprocess.embed_pixels(photo_bhwc))

    def embed_pose(self, pose_map_bhwc: Tensor) -> Tensor:
        """Drawn pose (B, H, W, 3) in [0, 1] -> pose embedding (B, E), not normalised."""
        return self._embed(self.preprocess.embed_pose_pixels(pose_map_bhwc))

    def source_hidden(self, image_bhwc: Tensor) -> Tensor:
        """Photo (B, H, W, 3) in [0, 1] -> the source tower's last states (B, N, C), CLS first."""
        tower = _present(self.source_tower, "source tower", "src_image_encoder")
        pixels = self.preprocess.source_pixels(image_bhwc)
        return tower(pixels.to(tower.device, tower.dtype)).last_hidden_state

    def fuse(self, source_bhwc: Tensor, pose_map_bhwc: Tensor) -> Tensor:
        """Photo and drawn pose, both (B, H, W, 3) in [0, 1] -> fusion embedding (B, E)."""
        return self.combine(self.embed_image(source_bhwc), self.embed_pose(pose_map_bhwc))

    def _embed(self, pixels: Tensor) -> Tensor:
        tower = _present(self.image_tower, "image tower", "fusion_model.img_encoder")
        return tower(pixels.to(tower.device, tower.dtype)).image_embeds

    def _check_widths(self) -> None:
        first_channels = self.pose_encoder.conv_out.out_channels
        token_width = self.source_projection.out_dim
        embed_width = self.class_embedding.in_dim
        pairs = [("class embedding's output", self.class_embedding.out_dim,
                  "4 x the pose encoder's channels", 4 * first_channels)]  # fmt: skip
        if self.combiner is not None:
            fusion_width = self.combiner.output_layer.out_features
            pairs.append(
                ("combiner's output", fusion_width, "class embedding's input", embed_width)
            )
        if self.image_tower is not None:
            pairs.append(("image tower's embedding", self.image_tower.config.projection_dim,
                          "class embedding's input", embed_width))  # fmt: skip
        if self.source_tower is not None:
            pairs.append(("source tower's width", self.source_tower.config.hidden_size,
                          "source projection's input", self.source_projection.in_dim))  # fmt: skip
        if self.unet is not None:
            config = self.unet.config
            pairs += [
                ("UNet's first width", config["block_out_channels"][0],
                 "pose encoder's output", first_channels),
                ("UNet's context width", config["cross_attention_dim"],
                 "source projection's output", token_width),
            ]  # fmt: skip
        if self.transport is not None:
            if not isinstance(self.pose_encoder, ConvPoseEncoder):
                raise ValueError("a transport needs a convolutional pose encoder, whose states it "
                                 "reads; take all parts from one model")  # fmt: skip
            config = self.transport.config
            pairs += [
                ("transport's source width", config.source_width,
                 "source projection's input", self.source_projection.in_dim),
                ("transport's pose width", config.pose_width,
                 "pose encoder's states", self.pose_encoder.config.hidden_size),
                ("transport's output", config.out_channels,
                 "pose encoder's output", first_channels),
            ]  # fmt: skip
        for left, got, right, expected in pairs:
            if got != expected:
                raise ValueError(
                    f"FPDM's parts do not fit: the {left} is {got}, the {right} is {expected}; "
                    "take all parts from one model"
                )


def _keep(x: Tensor, keep: Tensor | None) -> Tensor:
    if keep is None:
        return x
    return x * keep.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


def _present(part: Any | None, what: str, key: str) -> Any:
    if part is None:
        raise CheckpointError(
            f"This FPDM model has no {what}: its file holds no {key}.* tensors. Load the complete "
            "checkpoint, with stage 1's file as the fusion file if it holds no fusion model "
            "(in Python: fusion_path; a shared UNet goes into base_unet)."
        )
    return part
