// SPDX-License-Identifier: GPL-3.0-or-later
// Scene <-> the text that a workflow keeps: OpenPose JSON in pixels, with the editor's own notes
// (locked joints, picture underneath) under a key that other readers pass over.

import { t } from "../texts.mjs";
import { PARTS, split } from "./skeleton.mjs";
import {
  emptyPerson, emptyPoints, isThere, LARGEST_AREA, LARGEST_SIDE, round,
} from "./scene.mjs";

const KEYS = {
  body: "pose_keypoints_2d",
  left_hand: "hand_left_keypoints_2d",
  right_hand: "hand_right_keypoints_2d",
  face: "face_keypoints_2d",
  feet: "foot_keypoints_2d",
};
const NOTES = "pose_transfer_editor";

// A figure whose every coordinate is this small is given in fractions of its canvas.
const LARGEST_FRACTION = 2;

// OpenPose's 25 points: the body without the middle of the hips, then the feet.
const BODY_25 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18];
const FEET_25 = [19, 20, 21, 22, 23, 24];

export const DEFAULT_OPACITY = 0.6;

// The text of a scene. `plain` leaves the editor's notes out and writes all parts in full, as other
// programs want them.
export function format(scene, { plain = false } = {}) {
  const people = scene.people.map((person) => {
    const entry = {};
    for (const part of Object.keys(PARTS)) {
      if (!person[part] && !plain) continue;
      entry[KEYS[part]] = (person[part] ?? emptyPoints(part)).flat();
    }
    return entry;
  });
  const frame = { canvas_width: scene.width, canvas_height: scene.height, people };
  if (!plain) {
    const notes = {};
    if (scene.people.some((person) => person.locked.length)) {
      notes.locked = scene.people.map((person) => person.locked);
    }
    if (scene.underlay) notes.underlay = scene.underlay;
    if (Object.keys(notes).length) frame[NOTES] = notes;
  }
  return JSON.stringify([frame]);
}

// The scene of a text; of several frames the first. `canvas` is what a pose without a canvas is
// put on. Throws an Error whose message says what to do.
export function parse(text, canvas) {
  let frame;
  try {
    frame = JSON.parse(text);
  } catch (error) {
    throw new Error(t("parse.no_json", { reason: error.message }));
  }
  while (Array.isArray(frame) && !isPerson(frame[0])) frame = frame[0];
  if (Array.isArray(frame)) frame = { people: frame };
  else if (isPerson(frame)) frame = { ...frame, people: [frame] };
  if (!frame || typeof frame !== "object" || !("people" in frame)) {
    throw new Error(t("parse.no_people"));
  }
  const people = [frame.people ?? []].flat().map(readPerson);
  const size = canvasOf(frame, people, canvas);
  const notes = frame[NOTES] ?? {};
  return {
    ...size,
    people: inPixels(people, size).map((person, index) => ({
      ...person, locked: readLocks(notes.locked?.[index]),
    })),
    underlay: readUnderlay(notes.underlay),
  };
}

const isPerson = (entry) =>
  entry !== null && typeof entry === "object" && Object.values(KEYS).some((key) => key in entry);

function readPerson(entry) {
  if (!isPerson(entry)) {
    throw new Error(t("parse.no_body", { key: KEYS.body }));
  }
  const person = emptyPerson();
  for (const [part, key] of Object.entries(KEYS)) {
    const rows = readRows(entry[key], key);
    if (!rows) continue;
    if (part === "body" && rows.length === 25) {
      person.body = BODY_25.map((at) => rows[at]);
      person.feet = FEET_25.map((at) => rows[at]);
    } else if (part === "face" && rows.length === 68) {
      person.face = [...rows, [0, 0, 0], [0, 0, 0]];
    } else if (rows.length !== PARTS[part]) {
      throw new Error(t("parse.points", { key, count: rows.length, expected: PARTS[part] }));
    } else {
      person[part] = rows;
    }
  }
  for (const part of Object.keys(PARTS)) {
    if (part !== "body" && person[part] && !person[part].some(isThere)) person[part] = null;
  }
  return person;
}

function readRows(values, key) {
  if (values === null || values === undefined || values.length === 0) return null;
  if (!Array.isArray(values) || values.length % 3) {
    throw new Error(t("parse.no_list", { key }));
  }
  const rows = [];
  for (let at = 0; at < values.length; at += 3) {
    const [x, y, confidence] = values.slice(at, at + 3).map(Number);
    const absent = ![x, y, confidence].every(Number.isFinite) || (x === -1 && y === -1);
    rows.push(absent ? [0, 0, 0] : [x, y, Math.min(Math.max(confidence, 0), 1)]);
  }
  return rows;
}

function canvasOf(frame, people, canvas) {
  const size = { width: Math.round(frame.canvas_width), height: Math.round(frame.canvas_height) };
  if (size.width >= 1 && size.height >= 1) return drawable(size);
  const points = allPoints(people);
  const inside = points.every(([x, y]) => x <= canvas.width && y <= canvas.height);
  if (inside) return { width: canvas.width, height: canvas.height };
  // As the server guesses: equal margins left and right, top and bottom.
  const side = (axis) => {
    const values = points.map((point) => point[axis]);
    const margin = Math.max(Math.min(...values), 0);
    return Math.min(Math.ceil(Math.max(...values) + margin), LARGEST_SIDE);
  };
  return drawable({ width: side(0), height: side(1) });
}

function drawable({ width, height }) {
  if (Math.max(width, height) <= LARGEST_SIDE && width * height <= LARGEST_AREA) {
    return { width, height };
  }
  const area = Math.floor(LARGEST_AREA / 1e6);
  throw new Error(t("parse.canvas", { width, height, side: LARGEST_SIDE, area }));
}

const allPoints = (people) =>
  people.flatMap((person) => Object.keys(PARTS).flatMap((part) => person[part] ?? []))
    .filter(isThere);

function inPixels(people, { width, height }) {
  const points = allPoints(people);
  const fractions = points.length > 0 &&
    points.every(([x, y]) => Math.max(Math.abs(x), Math.abs(y)) <= LARGEST_FRACTION);
  const [sx, sy] = fractions ? [width, height] : [1, 1];
  return people.map((person) => {
    const scaled = { ...person };
    for (const part of Object.keys(PARTS)) {
      scaled[part] = person[part]?.map(([x, y, c]) => [round(x * sx), round(y * sy), c]) ?? null;
    }
    return scaled;
  });
}

function readLocks(ids) {
  return Array.isArray(ids) ? ids.filter((id) => split(id)) : [];
}

function readUnderlay(value) {
  if (typeof value?.name !== "string") return null;
  const opacity = Number(value.opacity ?? DEFAULT_OPACITY);
  return { name: value.name, opacity: Math.min(Math.max(opacity || 0, 0), 1) };
}
