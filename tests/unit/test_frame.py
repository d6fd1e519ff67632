# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pack promises about itself, seen without a host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tomllib

PACK = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((PACK / "pyproject.toml").read_text())["project"]


def requirements() -> list[str]:
    lines = (PACK / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_pack_needs_no_torch_and_no_host():
    code = f"""
import importlib.util, sys, time
start = time.process_time()
spec = importlib.util.spec_from_file_location("a pack", {str(PACK / "__init__.py")!r})
pack = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = pack
spec.loader.exec_module(pack)
assert callable(pack.comfy_entrypoint)
print(time.process_time() - start < 0.3)
print([m for m in ("torch", "numpy", "comfy", "comfy_api", "diffusers") if m in sys.modules])
"""
    assert run(code).splitlines() == ["True", "[]"]


def test_the_library_imports_without_a_host():
    assert run("import pose_transfer.client, sys; print('comfy' in sys.modules)") == "False"


def test_both_lists_of_requirements_agree():
    assert PROJECT["dependencies"] == requirements()


def test_what_the_host_chooses_is_not_required():
    names = {line.split(">")[0].split("=")[0].strip().lower() for line in requirements()}
    assert not names & {"torch", "torchvision", "torchaudio", "numpy", "transformers"}
