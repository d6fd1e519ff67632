// SPDX-License-Identifier: GPL-3.0-or-later
// Natural places for joints that are added, and the presets.

import { joints, oppositeOf, parentOf, split } from "./skeleton.mjs";
import { boundsOf, emptyPerson, isThere, pointOf, withPoint } from "./scene.mjs";

// A relaxed open hand of length 1: the wrist in the origin, the fingers towards +x.
const HAND = [
  [0, 0],
  [0.18, -0.13], [0.34, -0.24], [0.46, -0.32], [0.55, -0.38],
  [0.48, -0.13], [0.66, -0.16], [0.77, -0.18], [0.87, -0.19],
  [0.5, -0.03], [0.7, -0.03], [0.83, -0.03], [0.95, -0.03],
  [0.47, 0.06], [0.65, 0.08], [0.77, 0.09], [0.88, 0.1],
  [0.43, 0.14], [0.56, 0.18], [0.65, 0.2], [0.73, 0.22],
];
const HAND_TO_FOREARM = 0.72;

// Toes and heel below the ankle of a left foot; the unit is the shin.
const FOOT = [[0.05, 0.2], [0.17, 0.17], [-0.02, 0.07]];

// A face from the front: the right eye at (-0.5, 0), the left one at (0.5, 0).
const FACE = (() => {
  const jaw = Array.from({ length: 17 }, (_, index) => {
    const turn = Math.PI * (1 - index / 16);
    return [1.12 * Math.cos(turn), 1.75 * Math.sin(turn) ** 0.9];
  });
  const brow = [[-0.85, -0.38], [-0.7, -0.5], [-0.52, -0.53], [-0.35, -0.48], [-0.2, -0.4]];
  const eye = [[-0.72, 0], [-0.6, -0.1], [-0.42, -0.1], [-0.28, 0.02], [-0.42, 0.08], [-0.6, 0.08]];
  const across = (points) => points.map(([x, y]) => [-x, y]);
  const outer = across(eye);
  return [
    ...jaw,
    ...brow, ...across(brow).reverse(),
    [0, 0], [0, 0.22], [0, 0.44], [0, 0.66],
    [-0.28, 0.82], [-0.14, 0.87], [0, 0.9], [0.14, 0.87], [0.28, 0.82],
    ...eye, outer[3], outer[2], outer[1], outer[0], outer[5], outer[4],
    [-0.45, 1.22], [-0.28, 1.12], [-0.1, 1.08], [0, 1.1], [0.1, 1.08], [0.28, 1.12], [0.45, 1.22],
    [0.28, 1.36], [0.1, 1.42], [0, 1.43], [-0.1, 1.42], [-0.28, 1.36],
    [-0.38, 1.22], [-0.1, 1.19], [0, 1.2], [0.1, 1.19], [0.38, 1.22], [0.1, 1.27], [0, 1.28],
    [-0.1, 1.27],
    [-0.5, -0.01], [0.5, -0.01],
  ];
})();

const REFERENCE_HEIGHT = 570; // px, of the first preset's figure
const SMALLEST_BONE = 4; // px; shorter ones tell no direction

const { width, height, presets } = await (
  globalThis.document
    ? fetch(new URL("./presets.json", import.meta.url)).then((answer) => answer.json())
    : import("node:fs/promises")
        .then((fs) => fs.readFile(new URL("./presets.json", import.meta.url), "utf8"))
        .then(JSON.parse)
);

export const PRESETS = presets;

// The scene that an untouched node stands for; the server has the same.
export const standing = () => ({
  width, height, people: [{ ...emptyPerson(), body: presets[0].body }], underlay: null,
});

// Puts the person into a preset's pose, as tall and on the same ground; a new one (null) becomes as
// tall as the canvas allows. Hands and face are left out: they belonged to the old pose.
export function takePreset(preset, person, canvas) {
  const figure = { ...emptyPerson(), body: preset.body };
  const own = boundsOf(figure);
  const size = bodyLength(preset.body);
  let factor = 0.86 * Math.min(
    canvas.height / (own.bottom - own.top), canvas.width / (own.right - own.left),
  );
  let ground = [canvas.width / 2, canvas.height * 0.95];
  const before = person && boundsOf(person);
  if (before) {
    factor = bodyLength(person.body) / size || factor;
    ground = [(before.left + before.right) / 2, before.bottom];
  }
  const middle = (own.left + own.right) / 2;
  for (const [index, [x, y, c]] of preset.body.entries()) {
    if (!c) continue;
    const place = [ground[0] + factor * (x - middle), ground[1] + factor * (y - own.bottom), c];
    Object.assign(figure, withPoint(figure, `body.${index}`, place));
  }
  return figure;
}

// How long neck, torso and thighs and shins are that can be seen, in units of the whole.
function bodyLength(body) {
  const bones = [[1, 8], [8, 9], [9, 10], [1, 11], [11, 12], [12, 13], [2, 3], [5, 6]];
  const lengths = bones
    .filter(([a, b]) => isThere(body[a]) && isThere(body[b]))
    .map(([a, b]) => Math.hypot(body[a][0] - body[b][0], body[a][1] - body[b][1]));
  return lengths.length ? lengths.reduce((sum, length) => sum + length, 0) / lengths.length : 0;
}

// The person with one more joint, at a natural place.
export function addJoint(person, id, canvas) {
  if (pointOf(person, id)) return person;
  const [part, index] = split(id);
  if (part === "body") return withPoint(person, id, [...bodyPlace(person, id, canvas), 1]);
  return withPoint(person, id, [...partPlaces(person, part, canvas)[index], 1]);
}

// The person with all joints that the part lacks.
export function addPart(person, part, canvas) {
  return joints()
    .filter((id) => split(id)[0] === part)
    .reduce((grown, id) => addJoint(grown, id, canvas), person);
}

// Where the first preset has the joint relative to its parent, at the person's size and lean.
function bodyPlace(person, id, canvas) {
  const reference = { ...emptyPerson(), body: presets[0].body };
  const shared = joints().filter((at) => at.startsWith("body.") && pointOf(person, at));
  if (!shared.length) {
    return pointOf(takePreset(presets[0], null, canvas), id).slice(0, 2);
  }
  const anchor = [parentOf(id), oppositeOf(id)].find((at) => shared.includes(at)) ?? shared[0];
  const [cosine, sine] = similarity(
    shared.map((at) => pointOf(reference, at)), shared.map((at) => pointOf(person, at)),
    canvas.height / REFERENCE_HEIGHT / 2,
  );
  const from = pointOf(reference, anchor);
  const to = pointOf(reference, id);
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const [x, y] = pointOf(person, anchor);
  return [x + cosine * dx - sine * dy, y + sine * dx + cosine * dy];
}

// Scale times rotation, as [s cos, s sin], that brings the points nearest to the others (least
// squares, about their means). `fallback` is the scale where the points tell none.
function similarity(from, to, fallback) {
  const mean = (points, axis) =>
    points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  const [fx, fy, tx, ty] = [mean(from, 0), mean(from, 1), mean(to, 0), mean(to, 1)];
  let [along, across, size] = [0, 0, 0];
  from.forEach((point, index) => {
    const [ax, ay] = [point[0] - fx, point[1] - fy];
    const [bx, by] = [to[index][0] - tx, to[index][1] - ty];
    along += ax * bx + ay * by;
    across += ax * by - ay * bx;
    size += ax * ax + ay * ay;
  });
  return size && along * along + across * across ? [along / size, across / size] : [fallback, 0];
}

function partPlaces(person, part, canvas) {
  if (part === "face") return facePlaces(person, canvas);
  if (part === "feet") return [...footPlaces(person, true, canvas), ...footPlaces(person, false, canvas)];
  const left = part === "left_hand";
  const wrist = place(person, left ? "body.7" : "body.4", canvas);
  const elbow = place(person, left ? "body.6" : "body.3", canvas);
  // The thumb of a hanging hand points to the body.
  return mapped(HAND, wrist, direction(elbow, wrist, HAND_TO_FOREARM), left ? -1 : 1);
}

function footPlaces(person, left, canvas) {
  const ankle = place(person, left ? "body.13" : "body.10", canvas);
  const knee = place(person, left ? "body.12" : "body.9", canvas);
  const shin = Math.hypot(ankle[0] - knee[0], ankle[1] - knee[1]);
  return FOOT.map(([x, y]) => [ankle[0] + shin * (left ? x : -x), ankle[1] + shin * y]);
}

function facePlaces(person, canvas) {
  const right = place(person, "body.14", canvas);
  const left = place(person, "body.15", canvas);
  const middle = [(right[0] + left[0]) / 2, (right[1] + left[1]) / 2];
  return mapped(FACE, middle, direction(right, left, 1), 1);
}

const place = (person, id, canvas) =>
  (pointOf(person, id) ?? bodyPlace(person, id, canvas)).slice(0, 2);

function direction([x0, y0], [x1, y1], factor) {
  const [dx, dy] = [(x1 - x0) * factor, (y1 - y0) * factor];
  return Math.hypot(dx, dy) < SMALLEST_BONE ? [0, SMALLEST_BONE] : [dx, dy];
}

// The template's x axis put along (dx, dy) from `origin`; `flip` -1 mirrors it.
const mapped = (template, origin, [dx, dy], flip) =>
  template.map(([x, y]) => [
    origin[0] + dx * x - dy * y * flip, origin[1] + dy * x + dx * y * flip,
  ]);
