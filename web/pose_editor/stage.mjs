// SPDX-License-Identifier: GPL-3.0-or-later
// The drawing area: the scene as SVG in which every joint is an element of its own.
//
// Drawn in px of the screen, so that joints keep their size at any zoom. An element is touched only
// when its point, the view or its looks changed.

import { t } from "../texts.mjs";
import { set, svg } from "./dom.mjs";
import { boundsOf, isLocked, pointOf } from "./scene.mjs";
import { colourOf, joints, limbs, nameOf, split } from "./skeleton.mjs";
import { fit, pan, toScreen } from "./viewport.mjs";

const RADIUS = { body: 6, feet: 4, left_hand: 3.2, right_hand: 3.2, face: 2.2 };
const FRAME_MARGIN = 18;
const EDGE = 12; // px; a joint nearer to the window's edge counts as out of sight
const HANDLES = ["nw", "ne", "sw", "se"];

export class Stage {
  #people = [];
  #photo = svg("image", { class: "pt-photo", preserveAspectRatio: "xMidYMid meet" });
  #paper = svg("rect", { class: "pt-paper" });
  #size = svg("text", { class: "pt-canvas-size" });
  #figures = svg("g");
  #label = svg("g", { class: "pt-label" }, svg("rect", { rx: 4 }), svg("text"));
  #frame = new Frame();

  constructor(store) {
    this.store = store;
    this.view = { scale: 1, x: 0, y: 0 };
    this.photo = null; // { url, opacity }
    this.element = svg("svg", {
      class: "pt-stage", role: "group", "aria-label": t("stage.label"),
    }, this.#paper, this.#photo, this.#size, this.#frame.element, this.#figures, this.#label);
    store.subscribe(() => this.render());
  }

  get size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight };
  }

  look(view) {
    this.view = view;
    this.render();
  }

  fit() {
    this.look(fit(this.store.scene, this.size));
  }

  // Moves the view if the joint lies outside of it, as one may that Tab came to.
  reveal(person, id) {
    const { width, height } = this.size;
    const [x, y] = toScreen(this.view, pointOf(this.store.scene.people[person], id));
    const inside = x > EDGE && y > EDGE && x < width - EDGE && y < height - EDGE;
    if (!inside) this.look(pan(this.view, width / 2 - x, height / 2 - y));
  }

  // The circle of a joint, which can have the focus.
  circle(person, id) {
    return this.#people[person]?.circle(id);
  }

  render() {
    const { scene, selection, shownParts, hovered } = this.store;
    this.#renderCanvas(scene);
    while (this.#people.length > scene.people.length) this.#people.pop().element.remove();
    scene.people.forEach((person, index) => {
      const figure = (this.#people[index] ??= new Figure(index, this.#figures));
      figure.render(person, this.view, {
        selected: index === selection.person,
        joint: index === selection.person ? selection.joint : null,
        hovered: hovered?.person === index ? hovered.joint : null,
        shownParts,
      });
    });
    this.#frame.render(this.store.person, this.view, selection.person);
    this.#renderLabel(hovered ?? selection);
  }

  #renderCanvas(scene) {
    const [x, y] = toScreen(this.view, [0, 0]);
    const box = {
      x, y, width: scene.width * this.view.scale, height: scene.height * this.view.scale,
    };
    set(this.#paper, box);
    set(this.#photo, {
      ...box, opacity: this.photo?.opacity ?? 0, href: this.photo?.url ?? "",
      display: this.photo ? "inline" : "none",
    });
    set(this.#size, { x: x + box.width, y: y + box.height + 16 });
    const text = `${scene.width} × ${scene.height} px`;
    if (this.#size.textContent !== text) this.#size.textContent = text;
  }

  #renderLabel({ person, joint }) {
    const point = joint && this.store.scene.people[person] &&
      pointOf(this.store.scene.people[person], joint);
    set(this.#label, { display: point ? "inline" : "none" });
    if (!point) return;
    const [x, y] = toScreen(this.view, point);
    const [box, text] = this.#label.children;
    const name = nameOf(joint);
    if (text.textContent !== name) {
      text.textContent = name;
      set(text, { x: 7, y: 14 });
      set(box, { width: text.getComputedTextLength() + 14, height: 20 });
    }
    set(this.#label, { transform: `translate(${Math.round(x) + 12} ${Math.round(y) - 28})` });
  }
}

// One person: a line for each limb, a circle for each joint that is there.
class Figure {
  #lines = new Map();
  #circles = new Map();
  #seen = {};

  constructor(index, layer) {
    this.index = index;
    this.lines = svg("g", { class: "pt-limbs" });
    this.circles = svg("g", { class: "pt-joints" });
    this.element = svg("g", { class: "pt-person" }, this.lines, this.circles);
    layer.append(this.element);
  }

  circle(id) {
    return this.#circles.get(id)?.element;
  }

  render(person, view, looks) {
    const before = this.#seen;
    if (before.person === person && before.view === view && before.selected === looks.selected &&
        before.joint === looks.joint && before.hovered === looks.hovered &&
        before.shown === looks.shownParts.size) return;
    this.#seen = { person, view, ...looks, shown: looks.shownParts.size };
    set(this.element, { class: `pt-person${looks.selected ? " pt-selected" : ""}` });
    limbs.forEach((limb) => this.#renderLimb(person, view, looks, limb));
    // In the joints' order, in which Tab goes through them.
    let last = null;
    for (const id of joints()) last = this.#renderJoint(person, view, looks, id, last) ?? last;
  }

  #renderLimb(person, view, looks, limb) {
    const key = limb.from + limb.to;
    const [a, b] = [pointOf(person, limb.from), pointOf(person, limb.to)];
    let line = this.#lines.get(key);
    if (!a || !b || !looks.shownParts.has(split(limb.to)[0])) {
      line?.element.remove();
      this.#lines.delete(key);
      return;
    }
    if (!line) {
      line = { element: svg("line", { stroke: limb.colour, "data-part": split(limb.to)[0] }) };
      this.#lines.set(key, line);
      this.lines.append(line.element);
    }
    if (line.a === a && line.b === b && line.view === view) return;
    Object.assign(line, { a, b, view });
    const [[x1, y1], [x2, y2]] = [toScreen(view, a), toScreen(view, b)];
    set(line.element, { x1, y1, x2, y2, class: a[2] > 0 && b[2] > 0 ? "" : "pt-hidden" });
  }

  // Returns the joint's element, which comes after `last`; undefined where there is none.
  #renderJoint(person, view, looks, id, last) {
    const point = pointOf(person, id);
    const [part] = split(id);
    let circle = this.#circles.get(id);
    if (!point || !looks.shownParts.has(part)) {
      circle?.element.remove();
      this.#circles.delete(id);
      return undefined;
    }
    if (!circle) {
      circle = { element: svg("circle", {
        fill: colourOf(id), stroke: colourOf(id), "data-joint": id, "data-person": this.index,
        role: "button",
      }) };
      this.#circles.set(id, circle);
      if (last) last.after(circle.element);
      else this.circles.prepend(circle.element);
    }
    const state = [
      point[2] > 0 ? "" : "pt-hidden", isLocked(person, id) ? "pt-locked" : "",
      looks.joint === id ? "pt-current" : "", looks.hovered === id ? "pt-hovered" : "",
    ].filter(Boolean).join(" ");
    if (circle.point === point && circle.view === view && circle.state === state &&
        circle.selected === looks.selected) return circle.element;
    Object.assign(circle, { point, view, state, selected: looks.selected });
    const [cx, cy] = toScreen(view, point);
    const label = state.includes("locked")
      ? "stage.joint_locked" : point[2] > 0 ? "stage.joint" : "stage.joint_hidden";
    set(circle.element, {
      cx, cy, r: RADIUS[part] + (looks.joint === id ? 1.5 : 0), class: state,
      tabindex: looks.selected ? 0 : -1,
      "aria-label": t(label, { joint: nameOf(id), number: this.index + 1 }),
    });
    return circle.element;
  }
}

// The frame around the selected person: dragged to move, at its corners to scale, above to turn.
class Frame {
  constructor() {
    const handle = (name, element, label = "") => {
      set(element, { "data-handle": name, role: "button", "aria-label": label });
      return element;
    };
    this.line = svg("rect", { class: "pt-frame-line", rx: 6 });
    this.border = handle("move", svg("rect", { class: "pt-frame-border", rx: 6, tabindex: 0 }));
    this.stem = svg("line", { class: "pt-frame-line" });
    this.knob = handle("turn", svg("circle", { class: "pt-knob", r: 6 }), t("stage.turn"));
    this.corners = HANDLES.map((name) =>
      handle(name, svg("rect", { class: "pt-corner", width: 10, height: 10, rx: 2 }),
        t("stage.scale")));
    this.element = svg("g", { class: "pt-frame" },
      this.line, this.border, this.stem, this.knob, this.corners);
  }

  render(person, view, index) {
    const bounds = person && boundsOf(person);
    set(this.element, { display: bounds ? "inline" : "none" });
    if (!bounds || (person === this.person && view === this.view)) return;
    Object.assign(this, { person, view });
    const [left, top] = toScreen(view, [bounds.left, bounds.top]).map((at) => at - FRAME_MARGIN);
    const [right, bottom] =
      toScreen(view, [bounds.right, bounds.bottom]).map((at) => at + FRAME_MARGIN);
    const box = { x: left, y: top, width: right - left, height: bottom - top };
    set(this.line, box);
    set(this.border, { ...box, "aria-label": t("stage.whole_person", { number: index + 1 }) });
    const middle = (left + right) / 2;
    set(this.stem, { x1: middle, y1: top, x2: middle, y2: top - 22 });
    set(this.knob, { cx: middle, cy: top - 22 });
    this.corners.forEach((corner, at) =>
      set(corner, { x: (at % 2 ? right : left) - 5, y: (at < 2 ? top : bottom) - 5 }));
  }
}
