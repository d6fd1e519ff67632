# SPDX-License-Identifier: GPL-3.0-or-later
"""Teaching cross-attention where to look: the renderer knows which cells show the same place.

FPDM's attention finds the source cell that belongs to a target cell by itself, given millions of
pairs. The mannequin world gives the answer, so a few thousand are enough: the first head of the
attention at full latent size is pulled towards the true correspondence. The network itself
is not changed by this, and inference knows nothing of it.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from ..demo.architecture import UNET
from ..fpdm import FPDM
from ..libraries import AttentionLayers, set_processor
from ..mannequin import LABELS
from .batches import Batches
from .towers import PLACE_WIDTH

_SHARPNESS = 0.018
"""Width of the wanted attention around the true place, body heights; a cell is about 0.037."""
_OWN_SHARPNESS = 0.012
"""The same around the place that the towers take for the same."""
_REACH = 0.07
"""Target places farther than this from everything that the source shows are left alone."""


def wanted_attention(
    target: Tensor, source: Tensor, sharpness: float = _SHARPNESS
) -> tuple[Tensor, Tensor]:
    """True correspondence of cells, from places on the body (B, C, h, w) that are 0 outside.

    Returns the wanted distribution (B, N_t, N_s) over the source's cells and a mask (B, N_t) of the
    target cells that have one.
    """
    target, source = target.flatten(2).mT, source.flatten(2).mT  # (B, N, C)
    squared = torch.cdist(target, source).square()
    outside = source.abs().sum(-1) == 0
    squared = squared.masked_fill(outside[:, None], 1e3)
    known = (squared.amin(-1) < _REACH**2) & (target.abs().sum(-1) > 0)
    return torch.softmax(squared * (-0.5 / sharpness**2), dim=-1), known


def agreed_attention(
    target: Tensor, source: Tensor, guessed_target: Tensor, guessed_source: Tensor
) -> tuple[Tensor, Tensor]:
    """As `wanted_attention`, but by the places (B, C, h, w) that the towers guess.

    Attention sees the towers' states alone. Told the truth, it spreads over all places that might
    be meant, and blurs garment patterns away; told what the states say, it can be sharp, and a
    pattern comes over whole, if a little off its true place. The truth still says for which cells
    there is something to find.
    """
    _, known = wanted_attention(target, source)
    inside = [(x.abs().sum(1, keepdim=True) > 0) for x in (target, source)]
    wanted, near = wanted_attention(
        guessed_target * inside[0], guessed_source * inside[1], _OWN_SHARPNESS
    )
    return wanted, known & near


class Correspondence:
    """Where samples find their cells in others, by what the frozen towers' states say.

    `of_source` and `of_pose` read `towers.place_features` off states: (B, N, C) -> (B, N, P) and
    (B, C, h, w) -> (B, P, h, w).
    """

    def __init__(self, data: Batches, of_source: nn.Module, of_pose: nn.Module) -> None:
        self.data = data
        self.of_source, self.of_pose = of_source, of_pose

    @torch.no_grad()
    def __call__(
        self, target: Tensor, source: Tensor, pose_states: Tensor, source_states: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`agreed_attention` of samples `target` (B,) on samples `source` (B,).

        `pose_states` (B, C, h, w) are the targets', `source_states` (B, 1 + h w, C) the sources'.
        """
        # In bfloat16 places would be rounded by a tenth of a cell.
        with torch.autocast(pose_states.device.type, enabled=False):
            seen = self.of_source(source_states[:, 1:]).mT.unflatten(2, pose_states.shape[-2:])
            meant = self.of_pose(pose_states)
        return agreed_attention(
            self.data.cloth(target), self.data.cloth(source), meant[:, :4], seen[:, :4]
        )


class TaughtAttention:
    """Attention processor that also compares its first head with what it was told.

    Set `wanted` and `known` (see `wanted_attention`) before a forward pass; `loss` is then the
    cross-entropy. The first token of the context is the whole picture and not part of it.
    """

    def __init__(self) -> None:
        self.wanted: Tensor | None = None
        self.known: Tensor | None = None
        self.loss: Tensor | None = None

    def __call__(
        self,
        attn: AttentionLayers,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, heads, N, d)

        query = heads(attn.to_q(hidden_states))
        key = heads(attn.to_k(encoder_hidden_states))
        value = heads(attn.to_v(encoder_hidden_states))
        out = F.scaled_dot_product_attention(query, key, value)
        if self.wanted is not None and self.known is not None:
            logits = query[:, 0] @ key[:, 0, 1:].mT * attn.scale
            entropy = -(self.wanted * torch.log_softmax(logits.float(), dim=-1)).sum(-1)
            self.loss = (entropy * self.known).sum() / self.known.sum().clamp_min(1)
        out = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return attn.to_out[1](out)


def teach(unet: UNet2DConditionModel) -> list[TaughtAttention]:
    """Put taught processors into the cross-attentions at full latent size."""
    taught = []
    for name, layer in unet.get_submodule("down_blocks.0.attentions").named_modules():
        if name.endswith("attn2"):
            processor = TaughtAttention()
            set_processor(layer, processor)
            taught.append(processor)
    return taught


class FirstBlockTask(nn.Module):
    """FPDM cut off behind the UNet's first attention, with a head for what the target shows.

    A cheap start: pose encoder, source projection and the first layers learn to bring the source's
    cells to their places before the whole UNet is trained.
    """

    def __init__(self, fpdm: FPDM) -> None:
        super().__init__()
        assert fpdm.unet is not None
        block = fpdm.unet.get_submodule("down_blocks.0")
        self.pose_encoder = fpdm.pose_encoder
        self.source_projection = fpdm.source_projection
        self.conv_in = fpdm.unet.conv_in
        self.resnet = block.get_submodule("resnets.0")
        self.attention = block.get_submodule("attentions.0")
        processor = TaughtAttention()
        set_processor(self.attention.get_submodule("transformer_blocks.0.attn2"), processor)
        self._taught = [processor]
        width = UNET["block_out_channels"][0]
        self.time = nn.Parameter(torch.zeros(1, 4 * width))
        self.pose_head = nn.Conv2d(width, len(LABELS) + PLACE_WIDTH, 1)
        self.head = nn.Conv2d(width, UNET["in_channels"], 1)

    def forward(
        self, noisy: Tensor, source: Tensor, pose: Tensor, wanted: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted clean latents, parsing logits with places, and the attention's loss."""
        features = self.pose_encoder.conv_out(pose)
        tokens = self.source_projection(source)
        x = self.resnet(self.conv_in(noisy) + features, self.time.expand(len(noisy), -1))
        taught = self._taught[0]
        taught.wanted, taught.known = wanted, known
        x_before = x
        x = self.attention(x, encoder_hidden_states=tokens, return_dict=False)[0]
        taught.wanted = None
        assert taught.loss is not None
        return self.head(x), self.pose_head(x_before), taught.loss
