// SPDX-License-Identifier: GPL-3.0-or-later
// What of the scene is under the pointer. By distance, not by element: small joints lie close
// together, and a finger is wide.

import { limbs, split } from "./skeleton.mjs";
import { jointsOf, pointOf } from "./scene.mjs";
import { toScreen } from "./viewport.mjs";

// px by which a joint counts as nearer: of the selected person, and of the body (a hand's first
// joint lies on the wrist, which is what one wants to drag).
const SELECTED_BONUS = 4;
const BODY_BONUS = 3;

// { person, joint } nearest to the screen's point within `reach` px, or null.
export function pickJoint({ scene, selection, shownParts }, view, at, reach) {
  let best = null;
  let shortest = reach;
  scene.people.forEach((person, index) => {
    for (const id of jointsOf(person)) {
      const [part] = split(id);
      if (!shownParts.has(part)) continue;
      const [x, y] = toScreen(view, pointOf(person, id));
      const apart = Math.hypot(x - at[0], y - at[1]);
      if (apart > reach) continue;
      const bonus = (index === selection.person ? SELECTED_BONUS : 0) +
        (part === "body" ? BODY_BONUS : 0);
      if (apart - bonus < shortest) {
        shortest = apart - bonus;
        best = { person: index, joint: id };
      }
    }
  });
  return best;
}

// The index of the person one of whose limbs passes within `reach` px, the selected one first; -1
// where there is none.
export function pickPerson({ scene, selection, shownParts }, view, at, reach) {
  const touches = (person) => limbs.some(({ from, to }) => {
    const [a, b] = [pointOf(person, from), pointOf(person, to)];
    return a && b && shownParts.has(split(to)[0]) &&
      distanceToSegment(at, toScreen(view, a), toScreen(view, b)) <= reach;
  });
  const selected = scene.people[selection.person];
  return selected && touches(selected) ? selection.person : scene.people.findIndex(touches);
}

function distanceToSegment([x, y], [x0, y0], [x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1);
  const nearest = Math.min(Math.max(along, 0), 1);
  return Math.hypot(x - x0 - nearest * dx, y - y0 - nearest * dy);
}
