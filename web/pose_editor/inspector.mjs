// SPDX-License-Identifier: GPL-3.0-or-later
// The panel on the right: people, the chosen joint, parts.

import { t } from "../texts.mjs";
import * as actions from "./actions.mjs";
import { button, html, icon, set } from "./dom.mjs";
import { boneOf } from "./edit.mjs";
import { numberField, section } from "./fields.mjs";
import { boundsOf, centreOf, isLocked, isThere, jointsOf, pointOf } from "./scene.mjs";
import { colourOf, joints, nameOf, PARTS, partName, partWord, split } from "./skeleton.mjs";

const capital = (text) => text[0].toUpperCase() + text.slice(1);

export function peoplePanel({ store }) {
  const list = html("div", { class: "pt-list", role: "listbox", "aria-label": t("people") });
  const x = numberField({ label: t("field.x"), title: t("people.x"),
    change: (value) => actions.placePerson(store, { x: value }) });
  const y = numberField({ label: t("field.y"), title: t("people.y"),
    change: (value) => actions.placePerson(store, { y: value }) });
  const height = numberField({ label: t("field.height"), title: t("people.height"),
    change: (value) => actions.placePerson(store, { height: value }) });
  const angle = numberField({ label: t("field.turn_by"), unit: "°", title: t("people.turn"),
    change: (value) => value && actions.turn(store, value) });
  const buttons = [
    button({ symbol: "mirror", text: t("people.mirror"), title: t("people.mirror.title"),
      onclick: () => actions.mirror(store) }),
    button({ symbol: "swap", text: t("people.swap"), title: t("people.swap.title"),
      onclick: () => actions.swap(store) }),
    button({ symbol: "duplicate", text: t("people.duplicate"), title: t("people.duplicate.title"),
      onclick: () => actions.duplicatePerson(store) }),
    button({ symbol: "remove", text: t("people.delete"), title: t("people.delete.title"),
      onclick: () => actions.deletePerson(store) }),
  ];
  const element = section(t("people"), list,
    button({ symbol: "add", text: t("people.add"), title: t("people.add.title"), class: "pt-wide",
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
          text: t("people.person", { number: index + 1 }), title: t("people.choose"), role: "option",
          class: "pt-row", "aria-selected": String(index === store.selection.person),
          "data-count": t("people.joints", { count: jointsOf(person).length }), onclick: () => store.select(index),
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
  const x = numberField({ label: t("field.x"), title: t("joint.x"), change: moved(0) });
  const y = numberField({ label: t("field.y"), title: t("joint.y"), change: moved(1) });
  const length = numberField({ label: t("field.bone"), title: t("joint.bone"),
    change: (value) => value > 0 && actions.changeBone(store, { length: value }) });
  const angle = numberField({ label: t("field.angle"), unit: "°", title: t("joint.angle"),
    change: (value) => actions.changeBone(store, { angle: value }) });
  const lock = button({ symbol: "lock", text: t("joint.lock"), class: "pt-toggle",
    title: t("joint.lock.title"), onclick: () => actions.toggleLock(store) });
  const hide = button({ symbol: "hidden", text: t("joint.hide"), class: "pt-toggle",
    title: t("joint.hide.title"), onclick: () => actions.toggleHidden(store) });
  const remove = button({ symbol: "remove", text: t("joint.remove"), title: t("joint.remove.title"),
    onclick: () => actions.remove(store) });
  const hint = html("p", { class: "pt-hint" }, t("joint.hint"));
  const body = html("div", {}, name,
    html("div", { class: "pt-fields" }, x.element, y.element, length.element, angle.element),
    html("div", { class: "pt-buttons" }, lock, hide, remove));
  const element = section(t("joint"), hint, body);
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
    const eye = button({ symbol: "eye", title: t("parts.show", { part: partWord(part) }),
      class: "pt-toggle", onclick: () => store.togglePart(part) });
    const add = button({ symbol: "add", title: t("parts.add", { part: partWord(part) }),
      onclick: () => actions.growPart(store, part) });
    const drop = button({ symbol: "remove", title: t("parts.remove", { part: partWord(part) }),
      onclick: () => actions.dropPart(store, part) });
    const element = html("div", { class: "pt-part", "data-part": part },
      eye, html("span", {}, partName(part)), count, add, drop);
    return { part, element, count, eye, add, drop };
  });
  const missing = html("div", { class: "pt-chips", "aria-label": t("parts.missing") });
  const element = section(t("parts"), rows.map((row) => row.element), missing);
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
      html("button", { type: "button", class: "pt-chip", title: t("parts.add_joint", { joint: nameOf(id) }),
        onclick: () => actions.restoreJoint(store, id) }, icon("add"), nameOf(id))));
  };
  return { element, render };
}
