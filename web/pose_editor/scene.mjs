// SPDX-License-Identifier: GPL-3.0-or-later
// The value that is edited. Never changed in place: an edit makes a new scene that shares what
// stayed the same, so that undo keeps as many as the artist likes.
//
// scene  { width, height (px), people, underlay: null | { name, opacity } }
// person { body, left_hand, right_hand, face, feet: points or null (body: always), locked: [id] }
// points [[x px, y px, confidence 0..1], ...]; absent is [0, 0, 0], hidden has confidence 0 and a
//        place

import { PARTS, joints, split } from "./skeleton.mjs";

// Of a canvas; the server draws no larger one, for a picture of it would fill the memory.
export const LARGEST_SIDE = 16384; // px
export const LARGEST_AREA = 2 ** 27; // px, for all frames together

const ABSENT = Object.freeze([0, 0, 0]);

export const emptyPoints = (part) => Array.from({ length: PARTS[part] }, () => ABSENT);

export const emptyPerson = () => ({
  body: emptyPoints("body"), left_hand: null, right_hand: null, face: null, feet: null, locked: [],
});

// Coordinates are kept to a hundredth of a pixel, in which the text form is exact.
export const round = (value) => Math.round(value * 100) / 100 || 0;

export const isThere = (point) => point[2] > 0 || point[0] !== 0 || point[1] !== 0;

// The point of that joint, or undefined when the person has none there.
export function pointOf(person, id) {
  const [part, index] = split(id);
  const point = person[part]?.[index];
  return point && isThere(point) ? point : undefined;
}

// The ids of the joints that the person has, hidden ones too.
export const jointsOf = (person) => joints().filter((id) => pointOf(person, id));

export const isLocked = (person, id) => person.locked.includes(id);

// The person with `change(point, id)` for each joint that is there and not locked. `change`
// returns the same point where nothing happens.
export function mapJoints(person, change) {
  const changed = { ...person };
  for (const part of Object.keys(PARTS)) {
    if (!person[part]) continue;
    let points = person[part];
    for (let index = 0; index < points.length; index += 1) {
      const id = `${part}.${index}`;
      const point = person[part][index];
      if (!isThere(point) || isLocked(person, id)) continue;
      const next = change(point, id);
      if (next === point) continue;
      if (points === person[part]) points = [...points];
      points[index] = placed(next);
    }
    changed[part] = points;
  }
  return changed;
}

// The person with one point set, locked or not.
export function withPoint(person, id, point) {
  const [part, index] = split(id);
  const points = [...(person[part] ?? emptyPoints(part))];
  points[index] = placed(point);
  return { ...person, [part]: points };
}

// A point exactly in the corner would read as absent.
function placed([x, y, confidence]) {
  const point = [round(x), round(y), confidence];
  if (confidence === 0 && point[0] === 0 && point[1] === 0) return ABSENT;
  return point;
}

export function withPerson(scene, index, person) {
  return { ...scene, people: scene.people.map((other, at) => (at === index ? person : other)) };
}

// { left, top, right, bottom } in px around the joints that are there, or null.
export function boundsOf(person, ids = jointsOf(person)) {
  const points = ids.map((id) => pointOf(person, id)).filter(Boolean);
  if (!points.length) return null;
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  return {
    left: Math.min(...xs), top: Math.min(...ys), right: Math.max(...xs), bottom: Math.max(...ys),
  };
}

export function centreOf(bounds) {
  return [(bounds.left + bounds.right) / 2, (bounds.top + bounds.bottom) / 2];
}
