# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs become jobs: the product, its names and ids; and what the command line says of them."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pose_transfer.client import Axis, Plan, file_axis, load_workflow, value_axis
from pose_transfer.client.inputs import find_loader, read_assignment, read_values
from pose_transfer.client.jobs import InputFile, seeds

fake = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "fake_comfyui.py")))
SHIPPED = Path(__file__).parents[2] / "workflows" / "api"


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def plan_of(*axes: Axis, **inputs: Any) -> Plan:
    workflow = {**fake.WORKFLOW, "3": {**fake.WORKFLOW["3"]}}
    workflow["3"]["inputs"] = {**workflow["3"]["inputs"], **inputs}
    return Plan(workflow, axes)


def test_every_source_meets_every_value_and_the_last_runs_fastest(tmp_path: Path) -> None:
    source = file_axis("Draw", "image", write(tmp_path, "b.png", "a/x.png", "no.txt"), (".png",))
    plan = plan_of(source, value_axis("Draw", "seed", [5, 7]))
    assert len(plan) == 4
    names = [job.name for job in plan]
    assert names == ["a_x/seed-5", "a_x/seed-7", "b/seed-5", "b/seed-7"]
    assert [seeds(plan.workflow, job.settings)["Draw.seed"] for job in plan] == [5, 7, 5, 7]


def test_ids_follow_content_and_workflow_but_not_the_folder(tmp_path: Path) -> None:
    def ids(folder: Path, **inputs: Any) -> list[str]:
        return [j.id for j in plan_of(file_axis("Draw", "image", folder, (".png",)), **inputs)]

    first = write(tmp_path / "1", "a.png", "b.png")
    second = write(tmp_path / "2", "a.png", "b.png")
    assert ids(first) == ids(second) and len(set(ids(first))) == 2
    assert not set(ids(first)) & set(ids(first, seconds=0.5))
    (second / "b.png").write_text("changed")
    assert ids(first)[0] == ids(second)[0] and ids(first)[1] != ids(second)[1]


def test_equal_files_of_two_names_are_two_jobs(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("same")
    jobs = list(plan_of(file_axis("Draw", "image", tmp_path, (".png",))))
    assert len({job.id for job in jobs}) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "a.jpg"),
        ("A.png", "a.jpg"),
        ("a b.png", "a_b.png"),
        ("a/b.png", "a_b.png"),
        ("x" * 200 + "1.png", "x" * 200 + "2.png"),
        ("é" * 70 + "1.png", "é" * 70 + "2.png"),
    ],
)
def test_labels_differ_on_every_disk(tmp_path: Path, names: tuple[str, str]) -> None:
    write(tmp_path, *names)
    axis = file_axis("Draw", "image", tmp_path, (".png", ".jpg"))
    labels = [choice.label for choice in axis.choices]
    assert len({label.casefold() for label in labels}) == 2
    assert all(
        len(label.encode()) < 100 and not set(label) & set('/\\:*?"<>| ') for label in labels
    )


def test_a_label_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    values = ["../../x", "..", ".", "/etc/passwd", "C:\\x"]
    axis = value_axis("Draw", "image", values)
    assert all(".." not in Path(c.label).parts and "/" not in c.label for c in axis.choices)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda _: value_axis("Draw", "seed", [1, 2, 1]), "has 1 twice"),
        (lambda _: value_axis("Draw", "seed", []), "is empty"),
        (lambda p: file_axis("Draw", "image", p, (".png",)), r"no file for 'Draw'.*\.png"),
        (lambda _: plan_of(value_axis("Nobody", "seed", [1])), "no node with the title"),
        (lambda _: plan_of(value_axis("Draw", "sead", [1])), "no input 'sead'"),
        (lambda _: plan_of(*[value_axis("Draw", "seed", [1])] * 2), "two lists"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(tmp_path: Path, make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make(tmp_path)


def test_a_shipped_workflow_s_loaders_are_found_by_their_titles() -> None:
    from pose_transfer.client import inputs

    photo = load_workflow(SHIPPED / "fpdm_photo.json")
    source = find_loader(photo, None, inputs.SOURCE_LOADERS, inputs.SOURCE_TITLE, "--source-node")
    poses = find_loader(photo, None, inputs.POSE_LOADERS, inputs.POSE_TITLE, "--poses-node")
    assert source[:2] == ("Photo of the person", "image") and ".webp" in source[2]
    assert poses[:2] == ("Photo with the pose", "image")
    chosen = find_loader(photo, "Photo with the pose", (), "", "--source-node")
    assert chosen[0] == "Photo with the pose"
    demo = load_workflow(SHIPPED / "fpdm_demo.json")
    with pytest.raises(ValueError, match=r"has none.*--source-node"):
        find_loader(demo, None, inputs.SOURCE_LOADERS, "", "--source-node")
    with pytest.raises(ValueError, match="reads no file"):
        find_loader(demo, "Noise", inputs.SOURCE_LOADERS, "", "--source-node")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Draw.seed=9,19", [9, 19]),
        ("Draw.seconds=1,2.5", [1.0, 2.5]),
        ("Draw.image=a,b=c", ["a", "b=c"]),
        ('Draw.image=["a,b", "c"]', ["a,b", "c"]),
        ("Draw.seed=x", "a whole number, not x"),
        ("Draw.seed=1.5", "a whole number, not 1.5"),
        ("Draw.seed=true", "a whole number, not true"),
        ("Draw.seed=[1,", "no JSON list"),
        ("Keep it.images=1", "is wired"),
        ("Draw.seed", "not of the form"),
        ("seed=1", "not of the form"),
        ("Draw.sead=1", "no input 'sead'"),
    ],
)
def test_values_are_read_as_the_input_takes_them(text: str, expected: Any) -> None:
    def read() -> list[Any]:
        title, name, values = read_assignment(fake.WORKFLOW, text)
        return read_values(fake.WORKFLOW, title, name, values)

    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            read()
    else:
        assert read() == expected
        assert [type(value) for value in read()] == [type(value) for value in expected]


def test_a_million_jobs_are_not_held_at_once() -> None:
    plan = plan_of(*(value_axis("Draw", name, range(1000)) for name in ("seed", "image")))
    assert len(plan) == 1_000_000
    assert next(iter(plan)).name == "seed-0/image-0"


def test_one_file_may_stand_for_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    (choice,) = file_axis("Draw", "image", tmp_path / "b.png", (".png",)).choices
    assert isinstance(choice.value, InputFile) and choice.value.name == "b.png"
