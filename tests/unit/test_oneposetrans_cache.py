# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of tuned LoRAs, and their files: found again, listed, pruned, never half there."""

from __future__ import annotations

import functools
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pose_transfer.oneposetrans import cache
from pose_transfer.oneposetrans.cache import TunedLoRA
from pose_transfer.oneposetrans.fingerprint import Fingerprint

NEW, OLD, OLDEST = (digit * 32 for digit in "a1f")  # as keys are


def tuned(frames: int = 2) -> TunedLoRA:
    generator = torch.Generator().manual_seed(0)
    return TunedLoRA(
        {"lora_unet_x.lora_up.weight": torch.randn(4, 2, generator=generator).half()},
        (0.5, 0.25),
        torch.rand(frames, 8, 6, 3, generator=generator),
        {"caption": "A woman with face, a red shirt."},
    )


def test_what_was_saved_is_found_again(tmp_path: Path) -> None:
    assert cache.load(tmp_path, "k") is None
    cache.save(tmp_path / "new", "k", tuned())
    found = cache.load(tmp_path / "new", "k")
    assert found is not None
    assert found.loss == (0.5, 0.25) and found.about == {"caption": tuned().about["caption"]}
    assert found.tensors.keys() == tuned().tensors.keys()
    assert all(torch.equal(x, tuned().tensors[name]) for name, x in found.tensors.items())
    torch.testing.assert_close(found.previews, tuned().previews, atol=0.5 / 255 + 1e-6, rtol=0)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["k.png", "k.safetensors"]


def test_a_lost_preview_does_not_lose_the_lora(tmp_path: Path) -> None:
    cache.save(tmp_path, "k", tuned()).with_suffix(".png").unlink()
    found = cache.load(tmp_path, "k")
    assert found is not None and found.previews.shape[-1] == 3


def write_metadata(path: Path, metadata: dict[str, str]) -> None:
    save_file({"x": torch.zeros(1)}, path, metadata=metadata)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "empty": lambda path: path.write_bytes(b""),
    "no metadata": lambda path: write_metadata(path, {}),
    "half the metadata": lambda path: write_metadata(path, {"pose_transfer_tuning": '{"loss": '}),
    "other metadata": lambda path: write_metadata(path, {"pose_transfer_tuning": "[1]"}),
    "no loss": lambda path: write_metadata(path, {"pose_transfer_tuning": "{}"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_replaced_by_the_next_tuning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = cache.save(tmp_path, NEW, tuned())
    DAMAGE[damage](path)
    assert cache.load(tmp_path, NEW) is None
    assert str(path) in caplog.text
    assert cache.main(["list", str(tmp_path)]) == 0
    cache.save(tmp_path, NEW, tuned())
    assert cache.load(tmp_path, NEW) is not None


def test_a_file_whose_time_cannot_be_set_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("a folder of somebody else's")

    cache.save(tmp_path, "k", tuned())
    monkeypatch.setattr(os, "utime", refuse)
    assert cache.load(tmp_path, "k") is not None


def test_listing_and_pruning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for age, key in enumerate((NEW, OLD, OLDEST)):
        path = cache.save(tmp_path, key, tuned())
        used = time.time() - 100 * age
        os.utime(path, (used, used))
    dead, alive = f".{OLD}.safetensors.x1_a.part", f".{OLD}.png.y.part"
    (tmp_path / dead).write_bytes(b"half")
    os.utime(tmp_path / dead, (0, 0))
    (tmp_path / alive).write_bytes(b"being written")
    orphan = tmp_path / f"{'b' * 32}.png"
    orphan.write_bytes(b"its LoRA was deleted by hand")
    os.utime(orphan, (0, 0))

    assert cache.main(["list", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [NEW, OLD, OLDEST]
    assert "red shirt" in lines[1] and "0.2500" in lines[1]

    assert cache.load(tmp_path, OLDEST) is not None  # used now: it is the newest
    assert cache.main(["prune", str(tmp_path), "--keep", "2"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [alive, *(f"{key}.{kind}" for key in (NEW, OLDEST) for kind in ("png", "safetensors"))]
    )
    assert cache.main(["list", str(tmp_path / "nowhere")]) == 1


def test_pruning_touches_nothing_but_the_cache_s_own_files(tmp_path: Path) -> None:
    for name in (
        ".bashrc", ".dead.safetensors.x", f".{OLD}", "ComfyUI_00001_.png", f"{OLD}.txt", "anna.png",
        f"{OLD}0.png", f"{NEW}.safetensors",
    ):  # fmt: skip
        (tmp_path / name).write_bytes(b"not ours")
    cache.save(tmp_path, "anna", tuned())  # a copy under another name is somebody's
    for name in (".git", f"{OLDEST}.png", f".{OLDEST}.png.x.part", f"{OLDEST}.safetensors"):
        (tmp_path / name).mkdir()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    before = sorted(path.name for path in tmp_path.iterdir())

    assert cache.prune(tmp_path, 0) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == before


KILLED = """
import sys, threading
from pathlib import Path
import torch
from pose_transfer.oneposetrans import cache
lora = cache.TunedLoRA(
    {str(i): torch.zeros(1000, 1000) for i in range(50)}, (1.0,), torch.zeros(1, 8, 8, 3), {}
)
print("ready", flush=True)
while True:
    cache.save(Path(sys.argv[1]), "k", lora)
"""


def test_a_kill_while_writing_leaves_no_half_file(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    while not any(tmp_path.glob(".k.safetensors.*")):  # a file is being written
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert any(tmp_path.glob(".k.*")), "it was killed while writing"
    found = cache.load(tmp_path, "k")
    assert found is not None or not cache.lora_path(tmp_path, "k").exists(), "a half one is none"
    assert found is None or len(found.tensors) == 50


def key(**values: Any) -> str:
    made = Fingerprint()
    for name, value in values.items():
        made.add(name, value)
    return made.key


class Patch:
    def __init__(self, strength: float, weights: tuple[torch.Tensor, ...]) -> None:
        self.strength, self.weights = strength, weights


def scaled(factor: float) -> Any:
    return lambda x: x * factor


def powered(*, exponent: int) -> Any:
    def power(x: Any, *, to: int = exponent) -> Any:
        return x**to

    return power


def written(text: str) -> Any:
    """The same function but for what its text says."""
    names: dict[str, Any] = {}
    exec(f"def f(x):\n    return {text}", names)
    return names["f"]


class Slotted:
    __slots__ = ("__hidden", "left", "right")

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right, self.__hidden = left, right, left


class Net(nn.Module):
    def __init__(self, stride: Any) -> None:
        super().__init__()
        self.inner = nn.AvgPool2d(stride)
        self.register_buffer("kept", torch.zeros(1), persistent=False)


def with_buffer(value: float) -> nn.Module:
    net = Net(2)
    net.kept.fill_(value)  # type: ignore[operator]
    return net


def nested(depth: int, innermost: Any) -> Any:
    for _ in range(depth):
        innermost = [innermost]
    return innermost


A, B = Patch(1.0, ()), Patch(2.0, ())


def test_equal_things_have_one_key() -> None:
    def make() -> dict[str, Any]:
        return {
            "image": torch.arange(6.0),
            "function": scaled(2.0),
            "patch": [Patch(0.5, (torch.ones(2, 2),))],
            "options": {"b": 1, "a": None},
            "set": {"x", "y", "z", (1, "w")},
            "array": np.arange(6.0).reshape(2, 3),
            "partial": functools.partial(scaled, factor=2.0),
            "method": Patch(0.5, ()).__init__,
            "slots": Slotted(1, [2]),
            "module": with_buffer(1.0),
            "class": Patch,
            "built in": (math.sin, torch.sin, [].append),
            "device": torch.device("cpu"),
        }

    assert key(**make()) == key(**make())
    reordered = {**make(), "options": {"a": None, "b": 1}}
    assert key(**make()) == key(**reordered)


@pytest.mark.parametrize(
    "one, other",
    [
        (torch.zeros(4), torch.tensor([0.0, 0.0, 0.0, 1e-7])),
        (torch.zeros(4), torch.zeros(2, 2)),
        (torch.zeros(4), torch.zeros(4).half()),
        (scaled(1.0), scaled(2.0)),
        (Patch(1.0, ()), Patch(0.5, ())),
        (Patch(1.0, (torch.zeros(2),)), Patch(1.0, (torch.ones(2),))),
        ({"a": 1}, {"a": True}),
        (1, 1.0),
        (["ab"], ["a", "b"]),
        (nn.Linear(2, 2), nn.Linear(2, 2)),
        ([["a"], "b"], [["a", "b"]]),
        ([A, B, A], [A, B, B]),
        ([[A], [A]], [[A], [B]]),
        ({1, 2}, {1, 3}),
        ({1: "a", "1": "b"}, {1: "b", "1": "a"}),
        (frozenset("ab"), frozenset("ac")),
        (np.zeros(3), np.array([0.0, 0.0, 1e-12])),
        (np.zeros(3), np.zeros((3, 1))),
        (np.zeros(3, np.float32), np.zeros(3, np.int32)),
        (np.array([1, "a"], object), np.array([1, "b"], object)),
        (np.float32(1), np.float32(2)),
        (functools.partial(scaled, 1.0), functools.partial(scaled, 2.0)),
        (functools.partial(scaled, factor=1.0), functools.partial(scaled, factor=2.0)),
        (functools.partial(scaled, 1.0), functools.partial(nested, 1)),
        (Slotted(1, 2), Slotted(1, 3)),
        (written("x * 2"), written("x * 3")),
        (written("x.sin()"), written("x.cos()")),
        (written("[y * 2 for y in x]"), written("[y * 3 for y in x]")),
        (powered(exponent=2), powered(exponent=3)),
        (math.sin, math.cos),
        ([1].append, [2].append),
        (int, float),
        (torch.float16, torch.float32),
        (slice(1, 2), slice(1, 3)),
        (deque([1]), deque([2])),
        (A.__init__, B.__init__),
        (Net(2), Net(3)),
        (Net((2, 2)), Net((2, 3))),
        (with_buffer(1.0), with_buffer(2.0)),
        (torch.zeros(2, device="meta"), torch.zeros(3, device="meta")),
        (nested(60, 1), nested(60, 2)),
        (torch.ones(2).to_sparse(), torch.zeros(2).to_sparse()),
        (re.compile("a"), re.compile("b")),
    ],
)
def test_what_differs_has_another_key(one: Any, other: Any) -> None:
    assert key(value=one) != key(value=other)


@pytest.mark.parametrize(
    "value, name",
    [(threading.Lock(), "lock"), (nested(60, 1), "list"), (torch.ones(2).to_sparse(), "Tensor")],
)
def test_what_cannot_be_looked_into_is_never_taken_for_another(value: Any, name: str) -> None:
    made = Fingerprint()
    made.add("value", [value])
    assert [name] == [found.rpartition(".")[2] for found in made.unsure]
    assert key(value=[value]) != key(value=[value])


def test_a_key_is_the_same_in_another_process() -> None:
    code = (
        "from pose_transfer.oneposetrans.fingerprint import Fingerprint\n"
        "f = Fingerprint()\n"
        "f.add('x', {'s': {'a', 'b', 'c'}, 't': lambda x: x in {'a', 'b'}, ('u', 1): [None]})\n"
        "print(f.key)"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(keys) == 1


def test_a_module_that_is_described_already_counts_by_where_it_is() -> None:
    def known_key(net: nn.Module, used: Any) -> str:
        made = Fingerprint()
        made.know("net", net)
        made.add("used", used)
        return made.key

    one, other = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), Net(2)
    same = known_key(one, one[0].forward)
    with torch.no_grad():
        one.get_parameter("0.weight").add_(1)  # as loading it with a LoRA does
    assert known_key(one, one[0].forward) == same
    assert known_key(one, one[1].forward) != same
    assert known_key(one, other.forward) != same


def test_loops_between_objects_end() -> None:
    one, other = Patch(1.0, ()), Patch(2.0, ())
    one.friend, other.friend = other, one  # type: ignore[attr-defined]
    assert len(key(value=one)) == 32


def test_weights_are_told_apart_by_a_sample_of_all_tensors() -> None:
    def weights_key(**weights: torch.Tensor) -> str:
        made = Fingerprint()
        made.add_weights("model", weights)
        return made.key

    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 300, 300, generator=generator)
    same = weights_key(a=a, b=b)
    assert weights_key(b=b.clone(), a=a.clone()) == same
    assert weights_key(a=a, b=b + 1e-3) != same, "trained on"
    assert weights_key(a=b, b=a) != same, "exchanged"
    assert weights_key(a=a, b=b.bfloat16()) != same, "converted"


def test_a_full_size_model_takes_no_second() -> None:
    weights = {str(i): torch.empty(1280, 1280) for i in range(300)}
    start = time.perf_counter()
    Fingerprint().add_weights("model", weights)
    assert time.perf_counter() - start < 1.0
