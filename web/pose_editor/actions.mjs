// SPDX-License-Identifier: GPL-3.0-or-later
// Everything that can be done to the scene by a button or a key, each a function of the editor.

import { t } from "../texts.mjs";
import {
  boneOf, dragJoint, hideJoint, lockJoint, mirrorPerson, personCentre, removeJoint, removePart,
  scalePerson, setBone, shiftPerson, swapSides, turnPerson,
} from "./edit.mjs";
import {
  boundsOf, centreOf, isLocked, jointsOf, LARGEST_AREA, LARGEST_SIDE, pointOf,
} from "./scene.mjs";
import { nameOf, partWord, split } from "./skeleton.mjs";
import { addJoint, addPart, PRESETS, takePreset } from "./templates.mjs";

// How far beside the chosen person a copy and a new person stand, of the canvas' width.
const COPY_APART = 0.06;
const NEW_APART = 0.25;

export function choosePreset(store, preset) {
  const { scene, selection, person } = store;
  const label = t("step.preset", { preset: t(`preset.${preset.name}`) });
  if (person) {
    store.edit(label, () => takePreset(preset, person, scene));
  } else {
    store.apply(label, {
      ...scene, people: [...scene.people, takePreset(preset, null, scene)],
    });
    store.select(selection.person);
  }
}

export function addPerson(store) {
  const person = takePreset(PRESETS[1], store.person ?? null, store.scene);
  const shift = store.person ? NEW_APART * store.scene.width : 0;
  append(store, t("step.add_person"), shiftPerson(person, shift, 0));
}

export function duplicatePerson(store) {
  if (!store.person) return;
  const shift = COPY_APART * store.scene.width;
  append(store, t("step.duplicate_person"), shiftPerson({ ...store.person, locked: [] }, shift, 0));
}

function append(store, label, person) {
  const people = [...store.scene.people, person];
  store.apply(label, { ...store.scene, people });
  store.select(people.length - 1);
}

export function deletePerson(store, index = store.selection.person) {
  const people = store.scene.people.filter((_, at) => at !== index);
  if (people.length < store.scene.people.length) {
    store.apply(t("step.delete_person"), { ...store.scene, people });
  }
}

export function nextPerson(store, step) {
  const count = store.scene.people.length;
  if (count) store.select((store.selection.person + step + count) % count);
}

export const mirror = (store) => store.edit(t("step.mirror_person"), mirrorPerson);
export const swap = (store) => store.edit(t("step.swap_sides"), swapSides);

export const turn = (store, degrees) =>
  store.edit(t("step.turn_person"), (person) =>
    turnPerson(person, personCentre(person) ?? [0, 0], (degrees * Math.PI) / 180));

export const scale = (store, factorX, factorY = factorX) =>
  store.edit(t("step.scale_person"), (person) =>
    scalePerson(person, personCentre(person) ?? [0, 0], factorX, factorY));

export const shift = (store, dx, dy) =>
  store.edit(t("step.move_person"), (person) => shiftPerson(person, dx, dy));

export function moveJoint(store, to, options = {}) {
  const { joint } = store.selection;
  if (!joint) return;
  if (isLocked(store.person, joint)) {
    store.say(t("joint.is_locked", { joint: nameOf(joint) }));
    return;
  }
  store.edit(t("step.move", { joint: nameOf(joint) }), (person) =>
    dragJoint(person, joint, to, options));
}

export function changeBone(store, change) {
  const { joint } = store.selection;
  const bone = joint && boneOf(store.person, joint);
  if (bone) {
    store.edit(t("step.bone", { joint: nameOf(joint) }), (person) =>
      setBone(person, joint, { ...bone, ...change }));
  }
}

export function toggleLock(store) {
  const { joint } = store.selection;
  if (!joint) return;
  const locked = isLocked(store.person, joint);
  store.edit(t(locked ? "step.unlock" : "step.lock", { joint: nameOf(joint) }), (person) =>
    lockJoint(person, joint, !locked));
}

export function toggleHidden(store) {
  const { joint } = store.selection;
  if (!joint) return;
  const hidden = pointOf(store.person, joint)[2] === 0;
  store.edit(t(hidden ? "step.show" : "step.hide", { joint: nameOf(joint) }), (person) =>
    hideJoint(person, joint, !hidden));
}

export function remove(store) {
  const { joint, person } = store.selection;
  if (!joint) return deletePerson(store);
  const rest = removeJoint(store.person, joint);
  if (jointsOf(rest).length === 0) return deletePerson(store, person);
  store.edit(t("step.remove", { what: nameOf(joint) }), () => rest);
}

export function restoreJoint(store, id) {
  store.edit(t("step.add", { what: nameOf(id) }), (person) => addJoint(person, id, store.scene));
  store.select(store.selection.person, id);
}

export const growPart = (store, part) =>
  store.edit(t("step.add", { what: partWord(part) }), (person) =>
    addPart(person, part, store.scene));

export function dropPart(store, part) {
  const rest = store.person && removePart(store.person, part);
  if (rest && jointsOf(rest).some((id) => split(id)[0] !== part)) {
    store.edit(t("step.remove", { what: partWord(part) }), () => rest);
  }
}

// Another canvas around the same figures; a side that is too long becomes the longest that can be.
export function resizeCanvas(store, width, height) {
  const side = (value, other) =>
    Math.min(Math.max(Math.round(value) || 1, 1), LARGEST_SIDE, Math.floor(LARGEST_AREA / other));
  const size = { width: side(width, store.scene.height) };
  size.height = side(height, size.width);
  if (size.width !== store.scene.width || size.height !== store.scene.height) {
    store.apply(t("step.canvas_size"), { ...store.scene, ...size });
  }
}

// Another canvas, the figures as large on it as they were and as far in its middle; one of the same
// shape where it cannot be so large.
export function fitCanvas(store, photoWidth, photoHeight) {
  const { scene } = store;
  const less = Math.min(1, LARGEST_SIDE / Math.max(photoWidth, photoHeight),
    Math.sqrt(LARGEST_AREA / photoWidth / photoHeight));
  const [width, height] =
    [photoWidth, photoHeight].map((side) => Math.max(Math.floor(side * less), 1));
  if (width === scene.width && height === scene.height) return;
  const factor = Math.min(width / scene.width, height / scene.height);
  const [dx, dy] = [(width - scene.width * factor) / 2, (height - scene.height * factor) / 2];
  const people = scene.people.map((person) => {
    const free = scalePerson({ ...person, locked: [] }, [0, 0], factor);
    return { ...shiftPerson(free, dx, dy), locked: person.locked };
  });
  store.apply(t("step.canvas_like_photo"), { ...scene, width, height, people });
}

// People of another scene in the place of ours, on their canvas.
export function replaceAll(store, label, other) {
  store.apply(label, { ...other, underlay: store.scene.underlay });
  store.select(0);
}

// Moves and scales the person so that its centre and height are those; null leaves one alone.
export function placePerson(store, { x = null, y = null, height = null }) {
  const bounds = store.person && boundsOf(store.person);
  if (!bounds) return;
  const [cx, cy] = centreOf(bounds);
  if (height !== null) {
    const tall = bounds.bottom - bounds.top;
    if (tall > 0 && height > 0) scale(store, height / tall);
  } else {
    shift(store, (x ?? cx) - cx, (y ?? cy) - cy);
  }
}
