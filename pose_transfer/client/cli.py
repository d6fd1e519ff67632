# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.client queue WORKFLOW --source DIR --poses DIR --out DIR`.

Runs a workflow (API format) for every source times every pose, on one ComfyUI server, or on many by
--ray. Give the same command again to go on: it does only what is missing. See docs/api.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from tqdm import tqdm

from .batch import run_batch
from .client import ComfyClient
from .cluster import ClusterPlan, run_cluster
from .errors import ServerError
from .inputs import (
    POSE_LOADERS,
    POSE_TITLE,
    SOURCE_LOADERS,
    SOURCE_TITLE,
    find_loader,
    read_assignment,
    read_value,
    read_values,
)
from .jobs import Job, Plan, file_axis, value_axis
from .keeper import Keeper
from .progress import Progress
from .retry import Backoff
from .server_actor import ServerPlan
from .versions import PACK
from .work import Order, Outcome
from .workflow import load_workflow, with_overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status: 0 if every result is there, 1 if not, 130 if stopped."""
    asked = _parser().parse_args(arguments)
    try:
        return _queue(asked)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Give the same command again to go on.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pose_transfer.client",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    queue = commands.add_parser("queue", help="run a workflow for many inputs")
    queue.add_argument("workflow", type=Path, help="in API format (File, Export (API))")
    queue.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the results")

    inputs = queue.add_argument_group("inputs; each list times each other list is run")
    inputs.add_argument("--source", type=Path, metavar="DIR", help="pictures of the person")
    inputs.add_argument("--poses", type=Path, metavar="DIR", help="keypoint files or pictures")
    inputs.add_argument("--source-node", metavar="TITLE", help="the node that loads the source")
    inputs.add_argument("--poses-node", metavar="TITLE", help="the node that loads the pose")
    inputs.add_argument(
        "--vary", action="append", default=[], metavar="TITLE.INPUT=A,B,...",
        help="values for any input, such as seeds",
    )  # fmt: skip
    inputs.add_argument(
        "--set", action="append", default=[], metavar="TITLE.INPUT=VALUE",
        help="one value for all jobs",
    )  # fmt: skip
    inputs.add_argument(
        "--keep", action="append", default=[], metavar="TITLE",
        help="nodes whose pictures are wanted (all that save into the output folder)",
    )  # fmt: skip

    run = queue.add_argument_group("how it is run")
    run.add_argument("--server", default="http://127.0.0.1:8188", metavar="URL", help="%(default)s")
    run.add_argument(
        "--in-flight", type=_at_least(1), default=2, metavar="N",
        help="jobs queued on a server at a time (%(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS",
        help="for one try of one job (%(default)g)",
    )  # fmt: skip
    run.add_argument(
        "--retries", type=_at_least(0), default=4, metavar="N",
        help="further tries after trouble with a server (%(default)s)",
    )  # fmt: skip

    ray = queue.add_argument_group("many servers, started by Ray")
    ray.add_argument(
        "--ray", metavar="ADDRESS", help="local, auto or HOST:PORT, instead of --server"
    )
    ray.add_argument("--servers", type=_at_least(1), metavar="N", help="(one for each GPU, or one)")
    ray.add_argument(
        "--cpus-per-server", type=float, default=1.0, metavar="N", help="(%(default)g)"
    )
    ray.add_argument("--gpus-per-server", type=float, metavar="N", help="(1 if there are any)")
    ray.add_argument(
        "--silence", type=_at_least(5), default=90, metavar="SECONDS",
        help="without an answer, until a server is started anew (%(default)s)",
    )  # fmt: skip
    ray.add_argument("--comfyui", type=Path, metavar="DIR", help="(COMFYUI_PATH)")
    ray.add_argument("--models", type=Path, metavar="DIR", help="(ComfyUI's own)")
    ray.add_argument(
        "--custom-node", type=Path, action="append", default=[], metavar="DIR",
        help="a further pack to load",
    )  # fmt: skip
    ray.add_argument("--base", type=Path, metavar="DIR", help="servers' folders (a temporary one)")
    return parser


def _queue(asked: argparse.Namespace) -> int:
    plan = _plan(asked)
    order = Order(plan.workflow, tuple(asked.keep), asked.timeout)
    with_overrides(plan.workflow, {title: {} for title in order.keep})  # each is there
    servers = _servers(asked) if asked.ray else None
    backoff = Backoff(retries=asked.retries)
    with Keeper(asked.out, plan) as keeper:
        missing, jobs = keeper.missing()
        bar = tqdm(total=len(plan), initial=len(plan) - missing, unit="job", smoothing=0.05)
        failed = 0

        def keep(job: Job, outcome: Outcome, attempts: int) -> None:
            nonlocal failed
            keeper.keep(job, outcome, attempts)
            if outcome.failure:
                failed += 1
                node = outcome.failure.node_title
                where = f"{node!r} ({outcome.failure.node_type}): " if node else ""
                bar.write(f"FAILED {job.name}: {where}{outcome.failure.text}", file=sys.stderr)
            bar.update()

        with bar:
            if servers:
                cluster = ClusterPlan(
                    asked.ray,
                    asked.servers or 0,
                    asked.cpus_per_server,
                    asked.gpus_per_server,
                    asked.in_flight,
                )
                if missing:
                    # Ray prints what it tries again, whatever it is told about logs; all that
                    # matters comes as an exception.
                    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                        run_cluster(jobs, order, servers, keep, cluster, backoff)
            else:
                asyncio.run(_on_one_server(asked, jobs, order, keep, backoff, bar))
    print(
        f"{missing - failed} made, {len(plan) - missing} were there, {failed} failed; "
        f"{keeper.manifest_path}"
    )
    return 1 if failed else 0


async def _on_one_server(
    asked: argparse.Namespace,
    jobs: Iterator[Job],
    order: Order,
    keep: Callable[[Job, Outcome, int], None],
    backoff: Backoff,
    bar: tqdm,
) -> None:
    def show(progress: Progress) -> None:
        bar.set_postfix_str(
            f"{progress.node_title} {progress.value:g}/{progress.maximum:g}", refresh=True
        )

    async with ComfyClient(asked.server, min(60.0, asked.timeout)) as client:
        await run_batch(client, jobs, order, keep, asked.in_flight, backoff, show)


def _plan(asked: argparse.Namespace) -> Plan:
    workflow = load_workflow(asked.workflow)
    for text in asked.set:
        title, name, value = read_assignment(workflow, text)
        own = {name: read_value(workflow, title, name, value)}
        workflow = with_overrides(workflow, {title: own})
    axes = []
    for folder, title, classes, usual, option in (
        (asked.source, asked.source_node, SOURCE_LOADERS, SOURCE_TITLE, "--source-node TITLE"),
        (asked.poses, asked.poses_node, POSE_LOADERS, POSE_TITLE, "--poses-node TITLE"),
    ):
        if folder is not None:
            title, name, suffixes = find_loader(workflow, title, classes, usual, option)
            axes.append(file_axis(title, name, folder, suffixes))
    for text in asked.vary:
        title, name, values = read_assignment(workflow, text)
        axes.append(value_axis(title, name, read_values(workflow, title, name, values)))
    return Plan(workflow, tuple(axes))


def _servers(asked: argparse.Namespace) -> ServerPlan:
    inside = PACK.parents[1] if PACK.parent.name == "custom_nodes" else None
    comfyui = asked.comfyui or (
        Path(os.environ["COMFYUI_PATH"]) if "COMFYUI_PATH" in os.environ else inside
    )
    if comfyui is None:
        raise ServerError("Which ComfyUI shall the servers run? Give --comfyui DIR.")
    packs = [folder.resolve() for folder in (PACK, *asked.custom_node)]
    for pack in packs:
        if not (pack / "__init__.py").is_file():
            raise ServerError(f"{pack} is no pack of nodes: it has no __init__.py.")
    if asked.models and not asked.models.is_dir():
        raise ServerError(f"There is no folder {asked.models} of models.")
    models = asked.models or comfyui / "models"
    return ServerPlan(
        comfyui.resolve(),
        tuple((pack.name, pack) for pack in packs),
        models.resolve() if models.is_dir() else None,
        asked.base.resolve() if asked.base else None,
        silence=asked.silence,
    )


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return number
