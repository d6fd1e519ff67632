# SPDX-License-Identifier: GPL-3.0-or-later
"""`make test-scale`: 60 demo jobs on two servers, through a killed server and a killed driver.

Prints how fast it went. `--steps` and `--jobs` make it shorter.
"""

from __future__ import annotations

import argparse
import os
import runpy
import tempfile
from pathlib import Path
from types import SimpleNamespace

TESTS = Path(__file__).parents[1]
WORKFLOW = TESTS.parent / "workflows" / "api" / "fpdm_demo.json"
storm = SimpleNamespace(**runpy.run_path(str(TESTS / "storm.py")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=60, help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of the sampler (%(default)s)")
    asked = parser.parse_args()
    poses = ",".join(str(pose) for pose in range(asked.jobs))
    arguments = [str(WORKFLOW), "--comfyui", os.environ["COMFYUI_PATH"], "--keep", "Save result"]
    arguments += ["--vary", f"Person.target_pose={poses}", "--set", f"Steps.steps={asked.steps}"]
    with tempfile.TemporaryDirectory(prefix="pose-transfer-scale-") as folder:
        out = Path(folder) / "out"
        report = storm.storm(arguments, out, Path(folder) / "base", asked.jobs, patience=3600)
    seconds = [line["seconds"] for line in report.lines]
    print(
        f"{asked.jobs} results, each there once and whole.\n"
        f"Server killed after {report.until_server_killed:.0f} s, back after "
        f"{report.until_server_back:.0f} s more; driver killed {report.until_driver_killed:.0f} s "
        f"later; second run {report.second_run:.0f} s.\n"
        f"A job took {sum(seconds) / len(seconds):.1f} s on average, waiting for its turn included."
    )


if __name__ == "__main__":
    main()
