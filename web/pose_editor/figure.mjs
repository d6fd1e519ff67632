// SPDX-License-Identifier: GPL-3.0-or-later
// A scene as a still picture: the preview in the node and the pictures of the presets.

import { svg } from "./dom.mjs";
import { boundsOf, pointOf } from "./scene.mjs";
import { colourOf, limbs, split } from "./skeleton.mjs";

const THICKNESS = { body: 1, face: 0.12 }; // of a limb

const visible = (person, id) => {
  const point = pointOf(person, id);
  return point && point[2] > 0 ? point : null;
};

// `box` { left, top, width, height } in px of the canvas is what is shown; the whole canvas without.
export function figure(scene, { box, photo } = {}) {
  const { left, top, width, height } = box ?? { left: 0, top: 0, ...scene };
  const thickness = Math.min(width, height) / (box ? 34 : 60); // thicker in small pictures
  const layers = [];
  if (photo) {
    layers.push(svg("image", {
      href: photo.url, width: scene.width, height: scene.height, opacity: photo.opacity,
    }));
  }
  for (const person of scene.people) {
    for (const { from, to, colour } of limbs) {
      const [a, b] = [visible(person, from), visible(person, to)];
      if (!a || !b) continue;
      layers.push(svg("line", {
        x1: a[0], y1: a[1], x2: b[0], y2: b[1], stroke: colour, "stroke-opacity": 0.8,
        "stroke-width": thickness * (THICKNESS[split(to)[0]] ?? 0.3),
        "stroke-linecap": "round",
      }));
    }
    for (const part of ["body", "face"]) {
      (person[part] ?? []).forEach((point, index) => {
        if (!(point[2] > 0)) return;
        const id = `${part}.${index}`;
        layers.push(svg("circle", {
          cx: point[0], cy: point[1], fill: colourOf(id),
          r: thickness * (part === "body" ? 0.8 : 0.2),
        }));
      });
    }
  }
  return svg("svg", {
    viewBox: `${left} ${top} ${width} ${height}`, class: "pt-figure", "aria-hidden": "true",
  }, layers);
}

// The box around one person, with a margin, in the proportions width : height.
export function portrait(person, proportion) {
  const bounds = boundsOf(person);
  const tall = (bounds.bottom - bounds.top) * 1.14;
  const wide = (bounds.right - bounds.left) * 1.2;
  const height = Math.max(tall, wide / proportion);
  const width = height * proportion;
  return {
    left: (bounds.left + bounds.right - width) / 2, top: (bounds.top + bounds.bottom - height) / 2,
    width, height,
  };
}
