# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: how they are spread over processes, and a real ComfyUI with the pack.

No test process imports ComfyUI, for our `nodes` package and the host's `nodes.py` share a name:
the host runs as a server or in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pose_transfer.client import ComfyClient, ComfyServer, Overrides, Result, Workflow

PACK = Path(__file__).resolve().parents[1]
PACK_NAME = "pose-transfer"

# Runs before the code of `in_host`: the host's modules first on the path, the pack under the name
# `pose_transfer_pack`, as the host itself would load it from a folder.
IN_HOST = """
import sys
sys.argv = ["main.py", "--cpu", "--base-directory", {base!r}]
sys.path[:] = [{comfyui!r}] + [p for p in sys.path if p not in ("", {pack!r})]
import comfy.options
comfy.options.enable_args_parsing()
import importlib.util
_spec = importlib.util.spec_from_file_location("pose_transfer_pack", {pack!r} + "/__init__.py")
_pack = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _pack
_spec.loader.exec_module(_pack)
"""


def pytest_configure(config: pytest.Config) -> None:
    """Parts the processor among the workers: threads that wait for each other's core are slow."""
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The ComfyUI folder under test."""
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        pytest.fail("COMFYUI_PATH is not set: run these tests by `make test` or `make test-host`.")
    return Path(path)


@pytest.fixture(scope="session")
def server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """The session's server; the pack is linked into it."""
    base = tmp_path_factory.mktemp("comfyui")
    with ComfyServer(comfyui, base, {PACK_NAME: PACK}) as running:
        yield running


class Comfy:
    """`ComfyClient` for tests without async."""

    def __init__(self, address: str):
        self.address = address

    def run(
        self, workflow: Workflow | str | Path, overrides: Overrides | None = None,
        timeout: float = 120.0,
    ) -> Result:  # fmt: skip
        return self._call(lambda client: client.run(workflow, overrides, timeout))

    def object_info(self) -> dict[str, Any]:
        return self._call(lambda client: client.object_info())

    def upload_image(self, name: str, data: bytes) -> str:
        return self._call(lambda client: client.upload_image(name, data))

    def _call(self, ask: Callable[[ComfyClient], Any]) -> Any:
        async def connected() -> Any:
            async with ComfyClient(self.address) as client:
                return await ask(client)

        return asyncio.run(connected())


@pytest.fixture(scope="session")
def comfy(server: ComfyServer) -> Comfy:
    """A client of the session's server."""
    return Comfy(server.address)


@pytest.fixture(scope="session")
def connect() -> Callable[[ComfyServer], Comfy]:
    """Makes a client of any server."""
    return lambda running: Comfy(running.address)


@pytest.fixture
def in_host(comfyui: Path, tmp_path: Path) -> Callable[[str], str]:
    """`in_host(code)`: runs code in a process of the host without a server; returns its stdout.

    The pack is importable there as `pose_transfer_pack`.
    """

    def run(code: str) -> str:
        start = IN_HOST.format(comfyui=str(comfyui), pack=str(PACK), base=str(tmp_path))
        done = subprocess.run(
            [sys.executable, "-c", start + code],
            capture_output=True,
            text=True,
            cwd=comfyui,
            timeout=300,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
