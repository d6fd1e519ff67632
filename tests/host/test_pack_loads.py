# SPDX-License-Identifier: GPL-3.0-or-later
"""The pack loads in the real host, however its folder is called and however it got there."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from pose_transfer.client import ComfyServer, WorkflowError

PACK = Path(__file__).resolve().parents[2]
PARTS = ("__init__.py", "nodes", "pose_transfer", "web", "workflows", "locales", "pyproject.toml")
COPY, DOTTED = "Pose Transfer copy", "pose.transfer-v0.1"
CORE_NODES = {"KSampler", "SaveImage"}


def our_nodes(object_info: dict) -> set[str]:
    return {name for name in object_info if name.startswith("PoseTransfer")}


def complaints(log: str, names: tuple[str, ...]) -> list[str]:
    """Lines of the host's log, up to its readiness, that find fault with the pack."""
    start = log.partition("To see the GUI")[0]
    assert "Import times for custom nodes:" in start
    failed = [line for line in start.splitlines() if "IMPORT FAILED" in line]
    words = ("warning", "error", "cannot", "unable", "skip", "traceback", "deprecat")
    about = [
        line
        for line in start.splitlines()
        if any(name in line for name in names) and any(word in line.lower() for word in words)
    ]
    return failed + about


def empty_image(width: int = 64) -> dict:
    """A workflow of stock nodes: a plain image, saved."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": width, "height": 48, "batch_size": 1, "color": 0x102030},
            "_meta": {"title": "Plain"},
        },
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": "plain"},
            "_meta": {"title": "Save"},
        },
    }


@pytest.fixture(scope="module")
def second_server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory):
    """A server beside the session's, with a copy of the pack whose folder has a space in its
    name and is no link, and a link with dots."""
    base = tmp_path_factory.mktemp("second")
    copy = base / "custom_nodes" / COPY
    for part in PARTS:
        source = PACK / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, copy / part, ignore=ignored, symlinks=True)
        elif source.exists():
            copy.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy / part)
    with ComfyServer(comfyui, base, {DOTTED: PACK}) as running:
        yield running


def test_every_node_of_the_catalogue_is_offered(comfy, in_host):
    listed = in_host(
        "from pose_transfer_pack.nodes import NODES; import json\n"
        "print(json.dumps([n.GET_SCHEMA().node_id for n in NODES]))"
    )
    expected = set(json.loads(listed.splitlines()[-1]))
    assert expected
    assert our_nodes(comfy.object_info()) == expected


def test_every_node_is_in_the_pack_s_menu(comfy):
    info = comfy.object_info()
    groups = {info[name]["category"].split("/")[0] for name in our_nodes(info)}
    assert groups == {"pose transfer"}


def test_nothing_of_the_host_is_overridden(comfy):
    info = comfy.object_info()
    assert set(info) >= CORE_NODES
    modules = {name: info[name]["python_module"] for name in CORE_NODES}
    assert not any(module.startswith("custom_nodes") for module in modules.values()), modules


def test_a_linked_pack_loads_without_complaint(server: ComfyServer):
    assert complaints(server.log_text(), ("pose-transfer", "pose_transfer", str(PACK))) == []


def test_any_folder_name_loads_without_complaint(second_server: ComfyServer):
    assert complaints(second_server.log_text(), (COPY, DOTTED, "pose_transfer")) == []


def test_two_servers_offer_the_same_nodes(
    server: ComfyServer, second_server: ComfyServer, connect: Callable
):
    first, second = (connect(each).object_info() for each in (server, second_server))
    assert our_nodes(first)
    assert our_nodes(first) == our_nodes(second)


def test_two_servers_run_workflows_side_by_side(
    server: ComfyServer, second_server: ComfyServer, connect: Callable
):
    for running in (server, second_server):
        result = connect(running).run(empty_image())
        assert list(result.images) == ["Save"]
        assert result.images["Save"][0].startswith(b"\x89PNG")
        assert list((running.base_directory / "output").glob("plain_*.png"))


def test_templates_are_served_under_the_folder_s_name(second_server: ComfyServer):
    """Not asked of the folder with a space: the host lists its files but answers 404 for them."""
    templates = read_json(f"{second_server.address}/workflow_templates")
    assert "fpdm_demo" in templates[COPY]
    assert "fpdm_demo" in templates[DOTTED]
    place = f"{second_server.address}/api/workflow_templates/{DOTTED}"
    assert "nodes" in read_json(f"{place}/fpdm_demo.json")
    with urllib.request.urlopen(f"{place}/fpdm_demo.jpg") as thumbnail:
        assert thumbnail.read(3) == b"\xff\xd8\xff"


def test_every_node_has_its_help_page(server: ComfyServer, comfy):
    names = our_nodes(comfy.object_info())
    assert names
    for name in sorted(names):
        page = f"{server.address}/extensions/pose-transfer/docs/{name}.md"
        with urllib.request.urlopen(page) as answer:
            assert answer.read().strip(), name


def test_a_refused_input_names_the_node(comfy):
    with pytest.raises(WorkflowError, match=r"'Plain'.*width") as caught:
        comfy.run(empty_image(), {"Plain": {"width": -5}})
    assert caught.value.node_type == "EmptyImage"


def test_a_failing_node_is_named_and_the_server_lives_on(comfy):
    workflow = empty_image()
    workflow["3"] = {
        "class_type": "ImageFromBatch",
        "inputs": {"image": ["1", 0], "batch_index": 0, "length": 1},
        "_meta": {"title": "Pick"},
    }
    workflow["4"] = {
        "class_type": "ImageStitch",
        "inputs": {
            "image1": ["3", 0], "direction": "right", "match_image_size": True,
            "spacing_width": 0, "spacing_color": "no such colour",
        },
        "_meta": {"title": "Stitch"},
    }  # fmt: skip
    workflow["2"]["inputs"]["images"] = ["4", 0]
    with pytest.raises(WorkflowError, match="'Stitch'"):
        comfy.run(workflow)
    assert comfy.run(empty_image(width=80)).images["Save"]


def read_json(address: str) -> dict:
    with urllib.request.urlopen(address) as answer:
        return json.load(answer)
