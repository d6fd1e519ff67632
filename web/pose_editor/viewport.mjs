// SPDX-License-Identifier: GPL-3.0-or-later
// Which part of the canvas is seen: screen = canvas * scale + (x, y), in px.

const SMALLEST = 0.05;
const LARGEST = 40;

// The whole canvas in the middle of a window of that size.
export function fit(canvas, window, margin = 40) {
  const room = [Math.max(window.width - 2 * margin, 20), Math.max(window.height - 2 * margin, 20)];
  const scale = limit(Math.min(room[0] / canvas.width, room[1] / canvas.height));
  return {
    scale,
    x: (window.width - canvas.width * scale) / 2,
    y: (window.height - canvas.height * scale) / 2,
  };
}

// Zoomed by a factor; what is at the screen's point (x, y) stays there.
export function zoom(view, factor, [x, y]) {
  const scale = limit(view.scale * factor);
  const real = scale / view.scale;
  return { scale, x: x - (x - view.x) * real, y: y - (y - view.y) * real };
}

export const pan = (view, dx, dy) => ({ ...view, x: view.x + dx, y: view.y + dy });

export const toScreen = (view, [x, y]) => [x * view.scale + view.x, y * view.scale + view.y];

export const toCanvas = (view, [x, y]) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

const limit = (scale) => Math.min(Math.max(scale, SMALLEST), LARGEST);
