# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answers of a ComfyUI mean, in the words of the workflow."""

from __future__ import annotations

from typing import Any

from .errors import WorkflowError
from .workflow import Workflow, title_of


def texts_of(workflow: Workflow, outputs: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """The texts that nodes such as Preview as Text show, by node title."""
    texts: dict[str, list[str]] = {}
    for node_id, output in outputs.items():
        if "text" in output:
            texts.setdefault(title_of(workflow, node_id), []).extend(map(str, output["text"]))
    return texts


def refusal(workflow: Workflow, answer: dict[str, Any]) -> WorkflowError:
    """The first node error of an answer that refuses a prompt."""
    for node_id, report in (answer.get("node_errors") or {}).items():
        reasons = [f"{e['message']}: {e['details']}".rstrip(": ") for e in report["errors"]]
        return WorkflowError("; ".join(reasons), title_of(workflow, node_id), report["class_type"])
    error = answer["error"]
    if isinstance(error, str):
        return WorkflowError(error)
    return WorkflowError(f"{error['message']}: {error.get('details') or ''}".rstrip(": "))


def failure(workflow: Workflow, messages: list[tuple[str, dict[str, Any]]]) -> WorkflowError:
    """The error that ended a prompt, from its history's messages."""
    for event, report in messages:
        if event in ("execution_error", "execution_interrupted"):
            # Nodes of an expanded graph are called "parent.…"; the parent is in the workflow.
            node_id = str(report["node_id"])
            title = title_of(workflow, node_id if node_id in workflow else node_id.split(".")[0])
            text = report.get("exception_message", "was interrupted").strip()
            return WorkflowError(text, title, report["node_type"])
    return WorkflowError("The workflow failed; the server did not say why.")
