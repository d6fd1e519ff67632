// SPDX-License-Identifier: GPL-3.0-or-later
// Where the divider is: a share of the picture's width from the left, 0 to 1.

const STEP = 0.01;
const BIG_STEP = 0.1;

const limit = (at) => Math.min(1, Math.max(0, at));

// At a pointer over a picture that lies so on the page; also where the graph is zoomed.
export const atPointer = (x, { left, width }) => limit((x - left) / (width || 1));

// After a key, or null for one that does not move it.
export function afterKey(at, key, isBig = false) {
  const step = isBig ? BIG_STEP : STEP;
  // In hundredths: sums of 0.01 drift away from what is shown.
  const moved = (by) => limit(Math.round((at + by) * 100) / 100);
  switch (key) {
    case "ArrowLeft": case "ArrowDown": return moved(-step);
    case "ArrowRight": case "ArrowUp": return moved(step);
    case "PageDown": return moved(-BIG_STEP);
    case "PageUp": return moved(BIG_STEP);
    case "Home": return 0;
    case "End": return 1;
    default: return null;
  }
}
