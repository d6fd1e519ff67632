# SPDX-License-Identifier: GPL-3.0-or-later
"""The inputs about FPDM's guidance, which several nodes have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..pose_transfer.errors import PoseTransferError

if TYPE_CHECKING:
    from ..pose_transfer.fpdm.guidance import Guidance, Term

MAX_WEIGHT = 20.0
PAPERS_WEIGHT = 2.0


def weight_inputs() -> list[io.Input]:
    """The two weights of the paper."""
    return [
        _weight(
            "source_weight",
            "How strongly pose and source's details are followed. 1 is the model's own opinion, "
            "the paper's value is 2.",
        ),
        _weight(
            "fusion_weight",
            "How strongly the fusion embedding is followed on top of that. 0 leaves it out, the "
            "paper's value is 2. With equal weights a third of the work is saved, because one of "
            "the three predictions cancels.",
        ),
    ]


def more_inputs() -> list[io.Input]:
    """What the paper does not have: optional, so that workflows made before them go on."""
    return [
        io.Boolean.Input(
            "separate_pose",
            optional=True,
            default=False,
            advanced=True,
            tooltip="Guide the pose by a weight of its own. It takes a fourth prediction a step, "
            "unless the weights are equal. Off: pose and source share the source's weight.",
        ),
        _weight(
            "pose_weight",
            "How strongly the pose is followed where it is guided separately; source_weight is "
            "then for the source's details alone.",
            more=True,
        ),
        _percent("source_start", 0.0, "From where on in sampling source_weight holds"),
        _percent("source_end", 1.0, "Up to where in sampling source_weight holds"),
        _percent("fusion_start", 0.0, "From where on in sampling fusion_weight holds"),
        _percent("fusion_end", 1.0, "Up to where in sampling fusion_weight holds"),
        _percent("pose_start", 0.0, "From where on in sampling pose_weight holds"),
        _percent("pose_end", 1.0, "Up to where in sampling pose_weight holds"),
        io.Float.Input(
            "rescale",
            optional=True,
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            round=0.01,
            advanced=True,
            tooltip="Takes back the contrast that high weights add: 0 not at all, 0.7 mostly, 1 "
            "wholly. For pictures that come out glaring.",
        ),
    ]


def read_guidance(
    source_weight: float,
    fusion_weight: float,
    separate_pose: bool = False,
    pose_weight: float = PAPERS_WEIGHT,
    source_start: float = 0.0,
    source_end: float = 1.0,
    fusion_start: float = 0.0,
    fusion_end: float = 1.0,
    pose_start: float = 0.0,
    pose_end: float = 1.0,
    rescale: float = 0.0,
) -> Guidance:
    """The inputs' values; PoseTransferError for a range that ends before it starts."""
    from ..pose_transfer.fpdm.guidance import Guidance  # its package takes a moment to import

    return Guidance(
        source=_term("source", source_weight, source_start, source_end),
        fusion=_term("fusion", fusion_weight, fusion_start, fusion_end),
        pose=_term("pose", pose_weight, pose_start, pose_end) if separate_pose else None,
        rescale=rescale,
    )


def _term(name: str, weight: float, start: float, end: float) -> Term:
    from ..pose_transfer.fpdm.guidance import Term

    if start >= end:
        raise PoseTransferError(
            f"{name}_start is {start:g} and {name}_end is {end:g}, expected a start before the "
            f"end. To guide it nowhere, set {name}_weight to 1."
        )
    return Term(weight, start, end)


def _weight(name: str, tooltip: str, more: bool = False) -> io.Float.Input:
    return io.Float.Input(
        name,
        optional=more,
        default=PAPERS_WEIGHT,
        min=0.0,
        max=MAX_WEIGHT,
        step=0.1,
        round=0.01,
        advanced=more,
        tooltip=tooltip,
    )


def _percent(name: str, default: float, what: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        optional=True,
        default=default,
        min=0.0,
        max=1.0,
        step=0.01,
        advanced=True,
        tooltip=f"{what}: 0 is pure noise, 1 the picture. Outside of the range the weight counts "
        "as 1: followed, not exaggerated.",
    )
