# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a mannequin is: body, skin, hair, face and clothes, all drawn from one seed.

Only uniform doubles are taken from the generator, so that a seed names the same person on every
machine and NumPy version.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from .names import HELD_OUT_PATTERNS, PATTERNS

RGB = tuple[int, int, int]

# Well separated in RGB, each with a one-word name that the CLIP tokenizer knows.
PALETTE: dict[str, RGB] = {
    "red": (204, 44, 48),
    "orange": (238, 130, 36),
    "yellow": (244, 206, 62),
    "green": (58, 148, 74),
    "teal": (32, 140, 148),
    "blue": (46, 96, 196),
    "navy": (34, 44, 96),
    "purple": (122, 68, 164),
    "pink": (240, 138, 176),
    "brown": (124, 78, 48),
    "white": (244, 244, 240),
    "gray": (138, 142, 148),
    "black": (38, 38, 44),
    "khaki": (192, 172, 122),
}

SKIN_TONES: tuple[RGB, ...] = (
    (250, 220, 196),
    (238, 196, 164),
    (216, 166, 128),
    (178, 124, 88),
    (134, 88, 60),
    (96, 62, 44),
)
HAIR_COLOURS: tuple[RGB, ...] = (
    (34, 28, 28),
    (86, 54, 34),
    (148, 96, 52),
    (222, 184, 112),
    (172, 72, 40),
    (168, 168, 172),
    (214, 96, 142),
    (70, 110, 170),
)
EYE_COLOURS: tuple[RGB, ...] = ((70, 44, 28), (60, 100, 160), (64, 120, 76), (40, 40, 46))
BACKGROUNDS: tuple[RGB, ...] = (
    (236, 236, 232),
    (222, 230, 238),
    (238, 228, 214),
    (224, 236, 224),
    (236, 224, 230),
    (212, 216, 222),
)
HAIR_STYLES = ("short", "crop", "bob", "long", "ponytail", "bun", "afro")
LOGOS = ("disc", "ring", "diamond", "plus", "triangle")
UPPER_KINDS = ("shirt", "vest", "sweater")
LOWER_KINDS = ("trousers", "shorts", "skirt")


@dataclass(frozen=True)
class Garment:
    """One piece of clothing; lengths are in body heights, phases in periods."""

    kind: str
    pattern: str
    colour: RGB
    second_colour: RGB
    colour_name: str
    second_colour_name: str
    period: float
    phase: float
    direction: str
    logo: str


@dataclass(frozen=True)
class Face:
    """Face features as offsets and sizes in units of the head's half axes."""

    eye_colour: RGB
    eye_spacing: float
    eye_height: float
    eye_size: float
    brow: float
    nose: float
    mouth_width: float
    mouth_height: float
    lip_colour: RGB
    beard: bool
    glasses: bool


@dataclass(frozen=True)
class Identity:
    """Everything that stays the same while a person moves."""

    seed: int
    gender: str
    skin: RGB
    hair_style: str
    hair_colour: RGB
    parting: float
    face: Face
    upper: Garment
    lower: Garment
    shoe_colour: RGB
    shoe_name: str
    sole_colour: RGB
    background: RGB
    height: float
    bulk: float
    shoulders: float
    hips: float
    legs: float


class Dice:
    """Uniform draws from a seed."""

    def __init__(self, seed: int, stream: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64([int(seed), stream]))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._generator.random())

    def chance(self, probability: float) -> bool:
        return float(self._generator.random()) < probability

    def choose(self, options, weights=None):
        """One of `options`; `weights` are relative."""
        point = float(self._generator.random())
        if weights is None:
            return options[min(int(point * len(options)), len(options) - 1)]
        point *= sum(weights)
        for option, weight in zip(options, weights, strict=True):
            if point < weight:
                return option
            point -= weight
        return options[-1]


def _distance(first: RGB, second: RGB) -> int:
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


@cache
def _apart(*limits: tuple[RGB, int]) -> tuple[str, ...]:
    """Palette names whose colours are at least so far from every given colour."""
    return tuple(
        name
        for name, value in PALETTE.items()
        if all(_distance(value, colour) >= least for colour, least in limits)
    )


def _garment(dice: Dice, kind: str, weights: tuple[float, ...], taken: RGB, ground: RGB) -> Garment:
    pattern = dice.choose(PATTERNS, weights)
    name = dice.choose(_apart((taken, 110), (ground, 90)))
    second = dice.choose(_apart((PALETTE[name], 230), (ground, 60)))
    return Garment(
        kind=kind,
        pattern=pattern,
        colour=PALETTE[name],
        second_colour=PALETTE[second],
        colour_name=name,
        second_colour_name=second,
        period=dice.uniform(0.112, 0.142),
        phase=dice.uniform(0.0, 1.0),
        direction=dice.choose(("across", "along")),
        logo=dice.choose(LOGOS),
    )


def sample_identity(seed: int) -> Identity:
    """The person named by `seed` (any non-negative integer)."""
    if seed < 0:
        raise ValueError(f"identity seed must not be negative, got {seed}")
    dice = Dice(seed, 1)
    gender = dice.choose(("man", "woman"))
    woman = gender == "woman"
    background = dice.choose(BACKGROUNDS)
    skin = dice.choose(SKIN_TONES)
    style = dice.choose(HAIR_STYLES, (1, 1, 2, 3, 2, 2, 1) if woman else (4, 3, 1, 1, 1, 1, 1))
    face = Face(
        eye_colour=dice.choose(EYE_COLOURS),
        eye_spacing=dice.uniform(0.33, 0.43),
        eye_height=dice.uniform(-0.08, 0.04),
        eye_size=dice.uniform(0.12, 0.16),
        brow=dice.uniform(0.035, 0.07),
        nose=dice.uniform(0.08, 0.13),
        mouth_width=dice.uniform(0.2, 0.32),
        mouth_height=dice.uniform(0.05, 0.085),
        lip_colour=dice.choose(((176, 74, 74), (150, 62, 66), (206, 92, 104), (160, 96, 84))),
        beard=not woman and dice.chance(0.3),
        glasses=dice.chance(0.2),
    )
    kind = dice.choose(UPPER_KINDS, (5, 2, 4))
    upper = _garment(dice, kind, (0.18, 0.24, 0.18, 0.17, 0.13, 0.10), skin, background)
    kind = dice.choose(LOWER_KINDS, (4, 3, 4) if woman else (5, 4, 0))
    lower = _garment(dice, kind, (0.36, 0.2, 0.16, 0.14, 0.14, 0.0), upper.colour, background)
    shoes = dice.choose(_apart((background, 120)))
    return Identity(
        seed=seed,
        gender=gender,
        skin=skin,
        hair_style=style,
        hair_colour=dice.choose(HAIR_COLOURS),
        parting=dice.uniform(-0.5, 0.5),
        face=face,
        upper=upper,
        lower=lower,
        shoe_colour=PALETTE[shoes],
        shoe_name=shoes,
        sole_colour=(240, 240, 236) if dice.chance(0.6) else (60, 56, 54),
        background=background,
        height=dice.uniform(0.95, 1.03),
        bulk=dice.uniform(0.95, 1.2),
        shoulders=dice.uniform(0.92, 1.0) if woman else dice.uniform(1.02, 1.12),
        hips=dice.uniform(1.02, 1.12) if woman else dice.uniform(0.92, 1.0),
        legs=dice.uniform(0.96, 1.06),
    )


def with_upper_pattern(identity: Identity, pattern: str) -> Identity:
    """The same person, with another pattern on the upper garment."""
    if pattern not in PATTERNS + HELD_OUT_PATTERNS:
        raise ValueError(f"no pattern {pattern!r}: {', '.join(PATTERNS + HELD_OUT_PATTERNS)}")
    return replace(identity, upper=replace(identity.upper, pattern=pattern))
