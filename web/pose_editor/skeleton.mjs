// SPDX-License-Identifier: GPL-3.0-or-later
// What a person is made of: parts, joints, which joint hangs on which, names and colours.
//
// A joint's id is "part.index", as "body.4". Left and right are the person's own. The order of the
// points and the colours are OpenPose's, as in pose_transfer/pose/skeleton.py.

import { t } from "../texts.mjs";

export const PARTS = { body: 18, left_hand: 21, right_hand: 21, face: 70, feet: 6 };

export const BODY_LIMBS = [
  [1, 2], [1, 5], [2, 3], [3, 4], [5, 6], [6, 7], [1, 8], [8, 9], [9, 10],
  [1, 11], [11, 12], [12, 13], [1, 0], [0, 14], [14, 16], [0, 15], [15, 17],
];

// The last point of each.
const FACE_REGIONS = [
  [16, "jaw"], [21, "right_brow"], [26, "left_brow"], [30, "nose_bridge"], [35, "nose"],
  [41, "right_eye"], [47, "left_eye"], [59, "lips"], [67, "inner_lips"], [68, "right_pupil"],
  [69, "left_pupil"],
];

const BODY_COLOURS = [
  "#ff0000", "#ff5500", "#ffaa00", "#ffff00", "#aaff00", "#55ff00", "#00ff00", "#00ff55",
  "#00ffaa", "#00ffff", "#00aaff", "#0055ff", "#0000ff", "#5500ff", "#aa00ff", "#ff00ff",
  "#ff00aa", "#ff0055",
];

// Pure blue on black is hard to see and to hit; the editor shows these a little lighter. What the
// node puts out is drawn by the server in OpenPose's own colours.
const LIGHTER = { "#0000ff": "#3d4dff", "#5500ff": "#6a2bff", "#0055ff": "#1f6bff" };

// Tables, for these are asked some thousand times while a joint is dragged.
const PLACES = new Map();
const PARENT = new Map();
for (const [part, count] of Object.entries(PARTS)) {
  for (let index = 0; index < count; index += 1) PLACES.set(`${part}.${index}`, [part, index]);
}
const JOINTS = [...PLACES.keys()];
for (const [from, to] of BODY_LIMBS) PARENT.set(`body.${to}`, `body.${from}`);
for (const [hand, wrist] of [["left_hand", 7], ["right_hand", 4]]) {
  PARENT.set(`${hand}.0`, `body.${wrist}`);
  for (let index = 1; index < PARTS[hand]; index += 1) {
    PARENT.set(`${hand}.${index}`, `${hand}.${index % 4 === 1 ? 0 : index - 1}`);
  }
}
for (let index = 0; index < PARTS.face; index += 1) PARENT.set(`face.${index}`, "body.0");
for (let index = 0; index < PARTS.feet; index += 1) {
  PARENT.set(`feet.${index}`, index < 3 ? "body.13" : "body.10");
}

const CHILDREN = new Map(JOINTS.map((id) => [id, []]));
for (const [child, parent] of PARENT) CHILDREN.get(parent).push(child);

export const joints = () => JOINTS;

// [part, index] of an id.
export const split = (id) => PLACES.get(id);

// The joint that this one hangs on; undefined for the neck.
export const parentOf = (id) => PARENT.get(id);

// All joints that hang on this one, near ones first.
export function descendants(id) {
  const found = [...CHILDREN.get(id)];
  for (let at = 0; at < found.length; at += 1) found.push(...CHILDREN.get(found[at]));
  return found;
}

// What moves with a body joint in any case: the hand on its wrist, the face on the nose, the foot
// on the ankle.
export function attachments(id) {
  const others = CHILDREN.get(id).filter((child) => !child.startsWith("body."));
  return id.startsWith("body.") ? others.flatMap((child) => [child, ...descendants(child)]) : [];
}

// First and last point of a face's lines, and whether the last is joined to the first.
const FACE_LINES = [
  [0, 16], [17, 21], [22, 26], [27, 30], [31, 35], [36, 41, true], [42, 47, true], [48, 59, true],
  [60, 67, true],
];

// Pairs of joints that a line connects, with its colour. Those of the face are for the eye only.
export const limbs = [
  ...BODY_LIMBS.map(([from, to], index) => ({
    from: `body.${from}`, to: `body.${to}`, colour: shown(BODY_COLOURS[index]),
  })),
  ...["left_hand", "right_hand"].flatMap((hand) =>
    Array.from({ length: 20 }, (_, index) => ({
      from: `${hand}.${index % 4 === 0 ? 0 : index}`,
      to: `${hand}.${index + 1}`,
      colour: `hsl(${index * 18} 100% 50%)`,
    })),
  ),
  ...FACE_LINES.flatMap(([first, last, closed]) =>
    Array.from({ length: last - first + (closed ? 1 : 0) }, (_, step) => ({
      from: `face.${first + step}`,
      to: `face.${first + step === last ? first : first + step + 1}`,
      colour: "#ffffff",
    })),
  ),
  ...["13", "10"].flatMap((ankle, side) =>
    [0, 1, 2].map((toe) => ({
      from: `body.${ankle}`, to: `feet.${3 * side + toe}`, colour: side ? "#00aaff" : "#5b6cff",
    })),
  ),
];

function shown(colour) {
  return LIGHTER[colour] ?? colour;
}

export function colourOf(id) {
  const [part, index] = split(id);
  if (part === "body") return shown(BODY_COLOURS[index]);
  if (part === "face") return "#ffffff";
  if (part === "feet") return index < 3 ? "#8f9bff" : "#66ccff";
  return "#5a7bff";
}

export function nameOf(id) {
  const [part, index] = split(id);
  if (part === "body") return t(id);
  if (part === "feet") {
    return t("foot", { side: t(index < 3 ? "left" : "right"), point: t(`foot.${index % 3}`) });
  }
  if (part === "face") {
    const region = FACE_REGIONS.findIndex(([last]) => index <= last);
    const first = region ? FACE_REGIONS[region - 1][0] + 1 : 0;
    const [last, name] = FACE_REGIONS[region];
    return t(last === first ? "face.point" : "face.point_of_many", {
      region: t(`face.${name}`), number: index - first + 1,
    });
  }
  const side = t(part === "left_hand" ? "left" : "right");
  if (index === 0) return t("hand.wrist", { side });
  return t("hand.finger", {
    side, finger: t(`finger.${(index - 1) >> 2}`), point: t(`finger_joint.${(index - 1) & 3}`),
  });
}

export const partName = (part) => t(`part.${part}`);

// Within a sentence.
export const partWord = (part) => partName(part).toLowerCase();

// The joint on the other side of the body; the same one for joints in the middle.
export function oppositeOf(id) {
  const [part, index] = split(id);
  if (part === "left_hand") return `right_hand.${index}`;
  if (part === "right_hand") return `left_hand.${index}`;
  if (part === "feet") return `feet.${(index + 3) % 6}`;
  if (part === "face") return `face.${FACE_OPPOSITE[index]}`;
  if (index < 2) return id;
  if (index < 14) return `body.${index < 5 || (index > 7 && index < 11) ? index + 3 : index - 3}`;
  return `body.${index % 2 ? index - 1 : index + 1}`;
}

const FACE_OPPOSITE = (() => {
  const other = Array.from({ length: PARTS.face }, (_, index) => index);
  const exchange = (a, b) => ([other[a], other[b]] = [b, a]);
  for (let index = 0; index < 8; index += 1) exchange(index, 16 - index); // jaw
  for (let index = 17; index < 22; index += 1) exchange(index, 43 - index); // brows
  for (const [a, b] of [
    [31, 35], [32, 34], [36, 45], [37, 44], [38, 43], [39, 42], [40, 47], [41, 46], // nose, eyes
    [48, 54], [49, 53], [50, 52], [55, 59], [56, 58], [60, 64], [61, 63], [65, 67], // mouth
    [68, 69], // pupils
  ]) exchange(a, b);
  return other;
})();
