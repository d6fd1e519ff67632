// SPDX-License-Identifier: GPL-3.0-or-later
// Edits of one person. Each returns a new person. A locked joint stays where it is, whatever else
// moves; only mirroring takes it along.

import { attachments, descendants, oppositeOf, parentOf, split, PARTS } from "./skeleton.mjs";
import {
  boundsOf, centreOf, emptyPoints, isLocked, mapJoints, pointOf, withPoint,
} from "./scene.mjs";

const about = ([cx, cy], cosine, sine) => ([x, y]) => [
  cx + cosine * (x - cx) - sine * (y - cy),
  cy + sine * (x - cx) + cosine * (y - cy),
];

// Puts a joint at `to` [x, y]. With `follow` all joints that hang on it move along; with `rigid`
// the bone to its parent keeps its length, so that the joint goes round the parent and what moves
// along turns with the bone. Hands, face and feet follow their joint in any case.
export function dragJoint(person, id, to, { follow = false, rigid = false } = {}) {
  const start = pointOf(person, id);
  if (!start || isLocked(person, id)) return person;
  const moving = new Set([id, ...attachments(id), ...(follow ? descendants(id) : [])]);
  const parent = rigid && parentOf(id) && pointOf(person, parentOf(id));
  let move = ([x, y]) => [x + to[0] - start[0], y + to[1] - start[1]];
  if (parent) {
    const before = Math.atan2(start[1] - parent[1], start[0] - parent[0]);
    const after = Math.atan2(to[1] - parent[1], to[0] - parent[0]);
    move = about(parent, Math.cos(after - before), Math.sin(after - before));
  }
  return mapJoints(person, (point, at) => {
    if (!moving.has(at)) return point;
    // What an artist placed is certain: no reader shall drop it as doubtful. Hidden stays hidden.
    const confidence = at === id && point[2] > 0 ? 1 : point[2];
    return [...move(point), confidence];
  });
}

export const shiftPerson = (person, dx, dy) =>
  mapJoints(person, ([x, y, c]) => [x + dx, y + dy, c]);

// Clockwise on the screen, in radians.
export function turnPerson(person, centre, angle) {
  const turn = about(centre, Math.cos(angle), Math.sin(angle));
  return mapJoints(person, (point) => [...turn(point), point[2]]);
}

export const scalePerson = (person, [cx, cy], factorX, factorY = factorX) =>
  mapJoints(person, ([x, y, c]) => [cx + factorX * (x - cx), cy + factorY * (y - cy), c]);

// The mirror image about the person's own middle: what was the left arm is the right one.
export function mirrorPerson(person) {
  const bounds = boundsOf(person);
  if (!bounds) return person;
  const axis = bounds.left + bounds.right;
  const mirrored = mapJoints({ ...person, locked: [] }, ([x, y, c]) => [axis - x, y, c]);
  return swapSides({ ...mirrored, locked: person.locked });
}

// Left and right exchanged without moving anything: who faced the camera now faces away.
export function swapSides(person) {
  const swapped = { ...person, locked: person.locked.map(oppositeOf) };
  for (const part of Object.keys(PARTS)) {
    const [from] = split(oppositeOf(`${part}.0`));
    swapped[part] = person[from] && person[from].map((_, index) => {
      const [, at] = split(oppositeOf(`${part}.${index}`));
      return person[from][at];
    });
  }
  return swapped;
}

export function hideJoint(person, id, hidden) {
  const point = pointOf(person, id);
  return point ? withPoint(person, id, [point[0], point[1], hidden ? 0 : 1]) : person;
}

export function removeJoint(person, id) {
  if (!pointOf(person, id)) return person;
  const rest = withPoint(person, id, [0, 0, 0]);
  return { ...rest, locked: person.locked.filter((other) => other !== id) };
}

export function lockJoint(person, id, locked) {
  const others = person.locked.filter((other) => other !== id);
  return { ...person, locked: locked ? [...others, id] : others };
}

export function removePart(person, part) {
  return {
    ...person,
    [part]: part === "body" ? emptyPoints(part) : null,
    locked: person.locked.filter((id) => split(id)[0] !== part),
  };
}

// Length in px and direction in degrees (0 to the right, 90 down) of the bone to the parent, or
// null when one of them is missing.
export function boneOf(person, id) {
  const point = pointOf(person, id);
  const parent = parentOf(id) && pointOf(person, parentOf(id));
  if (!point || !parent) return null;
  const [dx, dy] = [point[0] - parent[0], point[1] - parent[1]];
  return { length: Math.hypot(dx, dy), angle: (Math.atan2(dy, dx) * 180) / Math.PI };
}

// Gives the bone to the parent another length or direction; what hangs on the joint goes along.
export function setBone(person, id, { length, angle }) {
  const parent = pointOf(person, parentOf(id));
  const direction = (angle * Math.PI) / 180;
  const to = (reach) => [
    parent[0] + reach * Math.cos(direction), parent[1] + reach * Math.sin(direction),
  ];
  const turned = dragJoint(person, id, to(1), { follow: true, rigid: true });
  return dragJoint(turned, id, to(length), { follow: true });
}

export const personCentre = (person) => {
  const bounds = boundsOf(person);
  return bounds && centreOf(bounds);
};
