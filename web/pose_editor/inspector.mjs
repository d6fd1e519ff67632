// SPDX-License-Identifier: GPL-3.0-or-later
// The panel on the right: people, the chosen joint, parts.

import * as actions from "./actions.mjs";
import { button, html, icon, set } from "./dom.mjs";
import { boneOf } from "./edit.mjs";
import { numberField, section } from "./fields.mjs";
import { boundsOf, centreOf, isLocked, isThere, jointsOf, pointOf } from "./scene.mjs";
import { colourOf, joints, nameOf, PART_NAMES, PARTS, split } from "./skeleton.mjs";

const capital = (text) => text[0].toUpperCase() + text.slice(1);

export function peoplePanel({ store }) {
  const list = html("div", { class: "pt-list", role: "listbox", "aria-label": "People" });
  const x = numberField({ label: "X", title: "Middle of the person, from the left",
    change: (value) => actions.placePerson(store, { x: value }) });
  const y = numberField({ label: "Y", title: "Middle of the person, from the top",
    change: (value) => actions.placePerson(store, { y: value }) });
  const height = numberField({ label: "Height", title: "Height of the person",
    change: (value) => actions.placePerson(store, { height: value }) });
  const angle = numberField({ label: "Turn by", unit: "°", title: "Turn the person by",
    change: (value) => value && actions.turn(store, value) });
  const buttons = [
    button({ symbol: "mirror", text: "Mirror", title: "Mirror the person (M)",
      onclick: () => actions.mirror(store) }),
    button({ symbol: "swap", text: "Swap sides", onclick: () => actions.swap(store),
      title: "Swap left and right: who faced the camera turns away (X)" }),
    button({ symbol: "duplicate", text: "Duplicate", title: "Duplicate the person (Ctrl+D)",
      onclick: () => actions.duplicatePerson(store) }),
    button({ symbol: "remove", text: "Delete", title: "Delete the person",
      onclick: () => actions.deletePerson(store) }),
  ];
  const element = section("People", list,
    button({ symbol: "add", text: "Add person", title: "Add a person (A)", class: "pt-wide",
      onclick: () => actions.addPerson(store) }),
    html("div", { class: "pt-fields" }, x.element, y.element, height.element, angle.element),
    html("div", { class: "pt-buttons" }, buttons));
  let seen;
  const render = () => {
    const { people } = store.scene;
    const key = `${people.map((person) => jointsOf(person).length)}|${store.selection.person}`;
    if (seen !== key) {
      seen = key;
      list.replaceChildren(...people.map((person, index) =>
        button({
          text: `Person ${index + 1}`, title: "Choose this person", role: "option",
          class: "pt-row", "aria-selected": String(index === store.selection.person),
          "data-count": `${jointsOf(person).length} joints`, onclick: () => store.select(index),
        })));
    }
    const bounds = store.person && boundsOf(store.person);
    const [cx, cy] = bounds ? centreOf(bounds) : [null, null];
    x.show(cx);
    y.show(cy);
    height.show(bounds ? bounds.bottom - bounds.top : null);
    angle.show(bounds ? 0 : null);
    for (const each of buttons) each.disabled = !bounds;
  };
  return { element, render };
}

export function jointPanel({ store }) {
  const name = html("div", { class: "pt-joint-name" }, html("i"), html("span"));
  const moved = (axis) => (value) => {
    const point = pointOf(store.person, store.selection.joint);
    actions.moveJoint(store, axis ? [point[0], value] : [value, point[1]], {
      follow: store.options.follow,
    });
  };
  const x = numberField({ label: "X", title: "Joint, from the left", change: moved(0) });
  const y = numberField({ label: "Y", title: "Joint, from the top", change: moved(1) });
  const length = numberField({ label: "Bone", title: "Length of the bone to its parent",
    change: (value) => value > 0 && actions.changeBone(store, { length: value }) });
  const angle = numberField({ label: "Angle", unit: "°",
    title: "Direction of the bone: 0 is right, 90 down",
    change: (value) => actions.changeBone(store, { angle: value }) });
  const lock = button({ symbol: "lock", text: "Lock", class: "pt-toggle",
    title: "The joint stays where it is (L)", onclick: () => actions.toggleLock(store) });
  const hide = button({ symbol: "hidden", text: "Hide", class: "pt-toggle",
    title: "The joint is left out of the result (H)", onclick: () => actions.toggleHidden(store) });
  const remove = button({ symbol: "remove", text: "Remove", title: "Remove the joint (Delete)",
    onclick: () => actions.remove(store) });
  const hint = html("p", { class: "pt-hint" },
    "Click a joint, or press Tab, to see and enter its numbers.");
  const body = html("div", {}, name,
    html("div", { class: "pt-fields" }, x.element, y.element, length.element, angle.element),
    html("div", { class: "pt-buttons" }, lock, hide, remove));
  const element = section("Joint", hint, body);
  const render = () => {
    const { joint } = store.selection;
    const point = joint && pointOf(store.person, joint);
    hint.hidden = Boolean(point);
    body.hidden = !point;
    if (!point) return;
    name.firstChild.style.background = colourOf(joint);
    const words = capital(nameOf(joint));
    if (name.lastChild.textContent !== words) name.lastChild.textContent = words;
    const locked = isLocked(store.person, joint);
    const bone = boneOf(store.person, joint);
    x.show(locked ? null : point[0]);
    y.show(locked ? null : point[1]);
    length.show(bone && !locked ? bone.length : null);
    angle.show(bone && !locked ? bone.angle : null);
    set(lock, { "aria-pressed": locked });
    set(hide, { "aria-pressed": point[2] === 0 });
  };
  return { element, render };
}

export function partsPanel({ store }) {
  const rows = Object.keys(PARTS).map((part) => {
    const count = html("span", { class: "pt-unit" });
    const eye = button({ symbol: "eye", title: `Show the ${PART_NAMES[part].toLowerCase()} here`,
      class: "pt-toggle", onclick: () => store.togglePart(part) });
    const add = button({ symbol: "add", title: `Add what the ${PART_NAMES[part].toLowerCase()} lacks`,
      onclick: () => actions.growPart(store, part) });
    const drop = button({ symbol: "remove", title: `Remove the ${PART_NAMES[part].toLowerCase()}`,
      onclick: () => actions.dropPart(store, part) });
    const element = html("div", { class: "pt-part", "data-part": part },
      eye, html("span", {}, PART_NAMES[part]), count, add, drop);
    return { part, element, count, eye, add, drop };
  });
  const missing = html("div", { class: "pt-chips", "aria-label": "Joints to add" });
  const element = section("Parts", rows.map((row) => row.element), missing);
  let seen;
  const render = () => {
    const key = store.person && jointsOf(store.person).join() + [...store.shownParts];
    if (seen === key) return;
    seen = key;
    for (const { part, count, eye, add, drop } of rows) {
      const there = (store.person?.[part] ?? []).filter(isThere).length;
      count.textContent = `${there} / ${PARTS[part]}`;
      set(eye, { "aria-pressed": store.shownParts.has(part) });
      add.disabled = !store.person || there === PARTS[part];
      drop.disabled = there === 0;
    }
    const absent = store.person
      ? joints().filter((id) => split(id)[0] === "body" && !pointOf(store.person, id)) : [];
    missing.replaceChildren(...absent.map((id) =>
      html("button", { type: "button", class: "pt-chip", title: `Add the ${nameOf(id)}`,
        onclick: () => actions.restoreJoint(store, id) }, icon("add"), nameOf(id))));
  };
  return { element, render };
}
