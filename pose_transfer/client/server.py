# SPDX-License-Identifier: GPL-3.0-or-later
"""A ComfyUI server of one's own: for demos, tests, and each GPU of a cluster."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import ServerError

FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")
LOOPBACK = "127.0.0.1"
LONGEST_ANSWER = 2**20
"""Bytes that a server's account of itself may have."""

END_WITH_STARTER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; it outlives execv
if os.getppid() == int(sys.argv[1]):  # else the starter has ended already
    os.execv(sys.argv[2], sys.argv[2:])
"""


class ComfyServer:
    """Context manager: runs ComfyUI on a free port with a base directory of its own.

    Args:
        comfyui: folder of the ComfyUI to run.
        base_directory: where this server keeps models, input, output, user data and custom nodes.
        custom_nodes: packs to load, as `{name in custom_nodes: folder}`; each is linked.
        python: the interpreter that has ComfyUI's requirements.
        arguments: further arguments for ComfyUI.
        start_timeout: seconds until ServerError when it does not answer.
        ends_with_starter: on Linux the server is killed when the thread that started it ends,
            however hard that end is. Elsewhere it has no effect.

    It runs on the GPU where one is usable, else on the CPU, and is ended by its process id.
    """

    def __init__(
        self,
        comfyui: Path,
        base_directory: Path,
        custom_nodes: Mapping[str, Path],
        python: str = sys.executable,
        arguments: Sequence[str] = (),
        start_timeout: float = 300.0,
        ends_with_starter: bool = False,
    ):
        if not (comfyui / "main.py").is_file():
            raise ServerError(
                f"{comfyui} is no ComfyUI folder (it has no main.py). `make host` makes one; or "
                "set COMFYUI_PATH."
            )
        self.comfyui = comfyui
        self.base_directory = base_directory
        self.python = python
        self.start_timeout = start_timeout
        self.log = base_directory / "server.log"
        self.address = ""
        self._custom_nodes = dict(custom_nodes)
        self._arguments = tuple(arguments)
        self._ends_with_starter = ends_with_starter and sys.platform == "linux"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyServer:
        for folder in FOLDERS:
            (self.base_directory / folder).mkdir(parents=True, exist_ok=True)
        for name, folder in self._custom_nodes.items():
            link = self.base_directory / "custom_nodes" / name
            if link.is_symlink():
                link.unlink()
            link.symlink_to(folder.resolve(), target_is_directory=True)
        port = free_port()
        self.address = f"http://{LOOPBACK}:{port}"
        database = self.base_directory / "user" / "comfyui.db"
        command = [self.python]
        if self._ends_with_starter:
            command += ["-c", END_WITH_STARTER, str(os.getpid()), self.python]
        command += ["main.py", "--listen", LOOPBACK, "--port", str(port)]
        command += ["--base-directory", str(self.base_directory.resolve())]
        command += ["--database-url", f"sqlite:///{database.resolve()}"]
        command += ["--disable-auto-launch", "--disable-api-nodes"]
        if not gpu_is_usable(self.python):
            command.append("--cpu")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                cwd=self.comfyui,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server; does nothing when it has ended."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def is_running(self) -> bool:
        """Whether its process is there; it may be too busy to answer."""
        return self._process is not None and self._process.poll() is None

    def log_text(self) -> str:
        """All that the server has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _wait_until_it_answers(self) -> None:
        assert self._process
        deadline = time.monotonic() + self.start_timeout
        while not answers(self.address):
            if self._process.poll() is not None:
                what = f"ended with status {self._process.returncode} while it started"
            elif time.monotonic() > deadline:
                what = f"did not answer within {self.start_timeout:g} s"
            else:
                time.sleep(0.1)
                continue
            tail = "\n".join(self.log_text().splitlines()[-25:])
            raise ServerError(f"ComfyUI {what}. The end of {self.log}:\n{tail}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def answers(address: str, seconds: float = 5.0) -> bool:
    """Whether a ComfyUI there gives one whole answer within so many seconds.

    `urllib` would start its clock anew with each byte, so that a server that drips could hold it.
    """
    place = urllib.parse.urlsplit(address)
    host, port = place.hostname or LOOPBACK, place.port or 80
    ask = f"GET /system_stats HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
    deadline = time.monotonic() + seconds
    answer = bytearray()
    try:
        with socket.create_connection((host, port), seconds) as connection:
            connection.sendall(ask.encode())
            while len(answer) < LONGEST_ANSWER and (left := deadline - time.monotonic()) > 0:
                connection.settimeout(left)
                received = connection.recv(65536)
                if not received:
                    return re.match(rb"HTTP/1\.\d 200 ", answer) is not None
                answer += received
    except OSError:  # a time limit that passed is one, too
        pass
    return False


def gpu_is_usable(python: str) -> bool:
    """Whether torch finds a GPU; ComfyUI refuses to start without `--cpu` where it does not."""
    if sys.platform == "darwin":
        return True
    if not shutil.which("nvidia-smi"):
        return False
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0
