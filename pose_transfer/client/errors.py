# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong between a script and a ComfyUI server."""

from __future__ import annotations

from ..errors import PoseTransferError


class ServerError(PoseTransferError):
    """The server cannot be started or reached, or does not answer as a ComfyUI does."""


class WorkflowError(PoseTransferError):
    """A node refused its inputs or failed; `node_title` says which one of the workflow it was.

    `node_title` and `node_type` are empty where the server blames the workflow as a whole.
    """

    def __init__(self, message: str, node_title: str = "", node_type: str = ""):
        where = f"Node {node_title!r} ({node_type}): " if node_title else ""
        super().__init__(where + message)
        self.message = message
        self.node_title = node_title
        self.node_type = node_type
