# SPDX-License-Identifier: GPL-3.0-or-later
"""The methods that can be trained. A new one is a settings dataclass, a task, and a line here."""

from __future__ import annotations

from .fpdm import FPDMSettings, FPDMTask
from .ipf import IPFSettings, IPFTask
from .task import Method
from .truepose import TruePoseSettings, TruePoseTask

METHODS = {
    "ipf": Method("FPDM's first stage: image tower and Combiner", IPFSettings, IPFTask),
    "fpdm": Method("FPDM's second stage: the diffusion model", FPDMSettings, FPDMTask),
    "truepose": Method("TruePose: SourceNet and TargetNet", TruePoseSettings, TruePoseTask),
}
