# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the pose editor opens and follows the pointer, in the real front end.

    python tests/bench/bench_editor.py     # COMFYUI_PATH: ComfyUI's folder, CHROMIUM: the browser

A whole person of 136 joints, an arm dragged with its children for two seconds, in both of the front
end's renderers. Prints one line for each: the time until the editor is on the screen, the frames a
second, which 60 limits, and the script's own work in a frame. No graphics card is used, and other
programs that run on the machine take frames away; the work says what is left for them.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

PACK = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PACK))

from pose_transfer.client import ComfyServer  # noqa: E402

browser = SimpleNamespace(**runpy.run_path(str(PACK / "tests" / "front_end.py")))


def main() -> None:
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(comfyui, Path(base), {"pose-transfer": PACK}) as server,
    ):
        for renderer in ("canvas", "vue"):
            with browser.front_end_of(server, renderer) as front_end:
                editor = browser.EditorPage(front_end)
                editor.build()
                editor.open()
                speed = editor.speed()
            load = os.getloadavg()[0]
            print(
                f"{renderer}: opens in {speed['opened_ms']} ms, {speed['frames_per_s']} frames/s "
                f"while dragging, {speed['work_ms']} ms of work in a frame "
                f"(load of the machine {load:.1f} on {os.cpu_count()} processors)"
            )


if __name__ == "__main__":
    main()
