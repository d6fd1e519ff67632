# SPDX-License-Identifier: GPL-3.0-or-later
"""Where no optional package is installed, only what needs it stops working, and says so.

Packages are hidden from the host's process, not refused to it: who looks for one finds nothing, as
on a machine that never had it.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pose_transfer.client import ComfyServer, load_workflow

PACK = Path(__file__).resolve().parents[2]
WORKFLOW = PACK / "workflows" / "api" / "fpdm_demo.json"
OPTIONAL = (
    "accelerate",
    "controlnet_aux",
    "cv2",
    "insightface",
    "lpips",
    "matplotlib",
    "onnxruntime",
    "peft",
    "skimage",
    "torch_fidelity",
    "torchmetrics",
)
# Python runs a module of this name at its start.
SITECUSTOMIZE = f"""
import sys
from importlib.machinery import PathFinder

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            return None
        return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
"""


@pytest.fixture(scope="module")
def nothing_optional(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """New processes see none of the optional packages."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def bare_server(
    nothing_optional: None, comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    base = tmp_path_factory.mktemp("bare")
    with ComfyServer(comfyui, base, {"pose-transfer": PACK}) as running:
        yield running


@pytest.fixture(scope="module")
def bare(bare_server: ComfyServer, connect: Callable[[ComfyServer], Any]) -> Any:
    return connect(bare_server)


def ours(object_info: dict[str, Any]) -> set[str]:
    return {name for name in object_info if name.startswith("PoseTransfer")}


def test_the_packages_are_hidden_as_if_never_installed(nothing_optional: None) -> None:
    code = (
        "import importlib.util, json\n"
        f"found = [n for n in {OPTIONAL!r} if importlib.util.find_spec(n)]\n"
        "try:\n    import cv2\n    found.append('cv2 again')\n"
        "except ModuleNotFoundError as error:\n    pass\n"
        "import numpy\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_pack_loads_without_complaint(bare_server: ComfyServer) -> None:
    start = bare_server.log_text().partition("To see the GUI")[0]
    assert "Import times for custom nodes:" in start
    assert "IMPORT FAILED" not in start
    assert [name for name in OPTIONAL if f"No module named '{name}'" in start] == []


def test_every_node_is_offered(comfy: Any, bare: Any) -> None:
    assert ours(bare.object_info()) == ours(comfy.object_info()) != set()


def test_the_demo_re_poses_a_person(bare: Any) -> None:
    overrides = {"Steps": {"steps": 1}}
    result = bare.run(load_workflow(WORKFLOW), overrides, timeout=300)
    assert result.images["Save result"][0].startswith(b"\x89PNG")
    assert result.texts["Metrics"][0].startswith("result against truth: SSIM")


@pytest.mark.parametrize("name", ["pose_from_photo", "person_parsing", "retarget_pose"])
def test_the_demo_detectors_see_people(bare: Any, name: str) -> None:
    workflow = load_workflow(WORKFLOW.with_name(f"{name}.json"))
    result = bare.run(workflow, timeout=300)
    saved = {n["_meta"]["title"] for n in workflow.values() if n["class_type"] == "SaveImage"}
    assert saved and saved <= set(result.images)
    for title in saved:
        picture = Image.open(io.BytesIO(result.images[title][0])).convert("RGB")
        # Where nobody was found it would be of one colour.
        assert picture.getcolors(1) is None, title


def test_every_module_but_training_s_imports(
    nothing_optional: None, in_host: Callable[[str], str]
) -> None:
    """Optional packages are imported where they are used, never at the top of a module."""
    output = in_host(
        "import json, pkgutil\n"
        "from importlib import import_module\n"
        "failed, count = [], 0\n"
        "for part in ('nodes', 'pose_transfer'):\n"
        "    start = f'{_pack.__name__}.{part}'\n"
        "    folders = import_module(start).__path__\n"
        "    for module in pkgutil.walk_packages(folders, start + '.', onerror=failed.append):\n"
        "        if module.name.endswith('__main__') or '.training' in module.name:\n"
        "            continue\n"
        "        count += 1\n"
        "        try:\n"
        "            import_module(module.name)\n"
        "        except ImportError as error:\n"
        "            failed.append(f'{module.name}: {error}')\n"
        "print(json.dumps([count, failed]))"
    )
    count, failed = json.loads(output.splitlines()[-1])
    assert failed == []
    assert count > 50


def test_each_backend_says_what_to_install(
    nothing_optional: None, in_host: Callable[[str], str]
) -> None:
    output = in_host(
        "import json\n"
        "from pose_transfer_pack.pose_transfer import errors\n"
        "from pose_transfer_pack.pose_transfer.detectors import dwpose, face, openpose, schp\n"
        "said = {}\n"
        "for package, load in {\n"
        "    'onnxruntime': lambda: dwpose.load_dwpose('a', 'b'),\n"
        "    'onnxruntime ': lambda: schp.load_schp('a', schp.ATR),\n"
        "    'controlnet_aux': lambda: openpose.load_openpose('a'),\n"
        "    'insightface': lambda: face.load_insightface('a'),\n"
        "}.items():\n"
        "    try:\n"
        "        load()\n"
        "    except errors.MissingDependencyError as error:\n"
        "        said[package] = str(error)\n"
        "print(json.dumps(said))"
    )
    said = json.loads(output.splitlines()[-1])
    assert len(said) == 4
    for package, sentence in said.items():
        assert re.search(rf"'pip install [^']*{package.strip()}", sentence), sentence
