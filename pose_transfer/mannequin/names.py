# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mannequin world calls its parts and patterns.

Apart from the renderer, so that the nodes' menus are known before anything is drawn.
"""

LABELS = ("background", "hair", "face", "upper", "lower", "arms", "legs", "shoes")

PATTERNS = ("plain", "stripes", "checks", "dots", "gradient", "logo")
HELD_OUT_PATTERNS = ("zigzag",)
"""Drawn by no seed, so no model has seen them in training."""
