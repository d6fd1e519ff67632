# SPDX-License-Identifier: GPL-3.0-or-later
"""ComfyUI Pose Transfer: what the host reads when it loads the pack.

Nothing of the host and no torch is imported until the host calls `comfy_entrypoint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> ComfyExtension:
    """The pack's nodes, as the host's V3 interface wants them."""
    from comfy_api.latest import ComfyExtension, io

    from .nodes import NODES

    class PoseTransferExtension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return list(NODES)

    return PoseTransferExtension()
