# SPDX-License-Identifier: GPL-3.0-or-later
"""Run workflows on a ComfyUI server from Python, and start such a server."""

from .client import ComfyClient
from .errors import ServerError, WorkflowError
from .result import Picture, Result
from .server import ComfyServer
from .workflow import Overrides, Workflow, load_workflow, title_of, with_overrides

__all__ = [
    "ComfyClient",
    "ComfyServer",
    "Overrides",
    "Picture",
    "Result",
    "ServerError",
    "Workflow",
    "WorkflowError",
    "load_workflow",
    "title_of",
    "with_overrides",
]
