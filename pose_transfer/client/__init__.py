# SPDX-License-Identifier: GPL-3.0-or-later
"""Run workflows on a ComfyUI server from Python, and start such a server."""

from .batch import run_batch
from .client import ComfyClient
from .cluster import ClusterPlan, run_cluster
from .errors import ServerError, WorkflowError
from .jobs import Axis, Job, Plan, file_axis, value_axis
from .keeper import Keeper
from .progress import Progress
from .result import Picture, Result
from .retry import Backoff
from .server import ComfyServer
from .server_actor import ServerPlan
from .work import Failure, Order, Outcome
from .workflow import Overrides, Workflow, load_workflow, title_of, with_overrides

__all__ = [
    "Axis",
    "Backoff",
    "ClusterPlan",
    "ComfyClient",
    "ComfyServer",
    "Failure",
    "Job",
    "Keeper",
    "Order",
    "Outcome",
    "Overrides",
    "Picture",
    "Plan",
    "Progress",
    "Result",
    "ServerError",
    "ServerPlan",
    "Workflow",
    "WorkflowError",
    "file_axis",
    "load_workflow",
    "run_batch",
    "run_cluster",
    "title_of",
    "value_axis",
    "with_overrides",
]
