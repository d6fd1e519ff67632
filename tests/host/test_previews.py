# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes send of their work to be shown on them. Seen in the browser: tests/browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_nodes_send_readable_pictures_of_their_work(
    run_in_host: Callable[..., dict[str, Any]],
) -> None:
    report = run_in_host("in_host_previews.py")

    assert report["equal"] and report["temporary"] == "temp"
    assert report["made smaller"] == [1536, 768, 3]
    first, few, many = report["chosen"]
    assert (first, few) == ([0], [0, 1, 2])
    assert len(many) == 16 and (many[0], many[-1]) == (0, 999)

    without, with_truth = report["keys"]
    names = {"source", "pose_map", "result", "sheet"}
    assert set(without) == {f"pose_transfer_{name}" for name in names}
    assert set(with_truth) - set(without) == {"pose_transfer_truth", "pose_transfer_metrics"}
    for name in ("source", "pose_map", "result", "truth"):
        assert report["counts"][f"pose_transfer_{name}"] == 2, "one for each of the batch"
        assert report["shapes"][f"pose_transfer_{name}"] == [32, 24, 3], "of the result's size"
    assert report["counts"]["pose_transfer_sheet"] == 1
    assert report["sheet is the output"] and report["metrics"]

    assert report["all there"]
    for height, width, _ in report["grids"][2:]:
        assert 0.5 < height / width < 2
    assert report["titled"][0] > 20 + 12

    assert report["palette"][0] > 512 and report["palette"][1] == 384
    assert report["legend"], "each label that occurs, and no other"
    assert report["wide"] == 17 * 600

    assert report["attention"] == [16, True]
    assert all(height > width * 0.4 for height, width, _ in report["tuning"])
    assert report["steps"] == [[20, 40, 60], [20, 40, 50], [60], [20, 31]]
