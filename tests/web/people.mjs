// SPDX-License-Identifier: GPL-3.0-or-later
// Figures to test on.

import { addPart, standing } from "../../web/pose_editor/templates.mjs";

// The A-pose with hands, face and feet: all 136 joints.
export function wholeScene() {
  const scene = standing();
  const parts = ["left_hand", "right_hand", "face", "feet"];
  const person = parts.reduce((grown, part) => addPart(grown, part, scene), scene.people[0]);
  return { ...scene, people: [person] };
}

export const wholePerson = () => wholeScene().people[0];

export const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
