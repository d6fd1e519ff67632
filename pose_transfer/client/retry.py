# SPDX-License-Identifier: GPL-3.0-or-later
"""How often, and how soon, to try again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential back-off with jitter, so that many who failed together do not return together."""

    retries: int = 4
    """Tries after the first."""
    first: float = 1.0
    """Seconds after the first failure, at most."""
    factor: float = 2.0
    longest: float = 60.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures (1 or more): between half and all of its step."""
        step = min(self.longest, self.first * self.factor ** (failures - 1))
        return step * random.uniform(0.5, 1.0)
