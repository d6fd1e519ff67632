// SPDX-License-Identifier: GPL-3.0-or-later
// Mouse, pen and fingers on the stage.

import { t } from "../texts.mjs";
import { dragJoint, scalePerson, shiftPerson, turnPerson } from "./edit.mjs";
import { pickJoint, pickPerson } from "./pick.mjs";
import { boundsOf, centreOf, isLocked, pointOf, withPerson } from "./scene.mjs";
import { nameOf } from "./skeleton.mjs";
import { pan, toCanvas, zoom } from "./viewport.mjs";

const REACH = { mouse: 12, pen: 14, touch: 24 }; // px
const STILL = { mouse: 2, pen: 3, touch: 6 }; // px that a click may wander
const TURN_STEP = Math.PI / 12; // with Shift
const OPPOSITE = { nw: ["right", "bottom"], ne: ["left", "bottom"], sw: ["right", "top"], se: ["left", "top"] };

export class Gestures {
  #pointers = new Map(); // id -> [x, y] on the stage
  #drag = null; // { move(at, event), label, start, type, pointer }
  #pinch = null;
  #box = { left: 0, top: 0 }; // of the stage on the page

  constructor(store, stage) {
    this.store = store;
    this.stage = stage;
    this.spaceHeld = false;
    const { element } = stage;
    element.addEventListener("pointerenter", () => this.#measure());
    element.addEventListener("pointerdown", (event) => this.#down(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    element.addEventListener("pointerup", (event) => this.#up(event));
    element.addEventListener("pointercancel", (event) => this.#up(event, true));
    element.addEventListener("pointerleave", () => store.hover(null));
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    element.addEventListener("dblclick", (event) => {
      if (!this.#under(this.#at(event), "mouse")) stage.fit();
    });
  }

  get isActive() {
    return this.#drag !== null;
  }

  get isPressed() {
    return this.#pointers.size > 0;
  }

  // Drops the gesture that goes on, as if it had never begun.
  cancel() {
    this.#drag = null;
    this.store.cancel();
  }

  // Measuring makes the browser lay the page out, which is too slow for every move of a drag.
  #measure() {
    this.#box = this.stage.element.getBoundingClientRect();
  }

  #at(event) {
    return [event.clientX - this.#box.left, event.clientY - this.#box.top];
  }

  #under(at, type) {
    return pickJoint(this.store, this.stage.view, at, REACH[type] ?? REACH.mouse);
  }

  #down(event) {
    // The default would take the focus away from the joint that gets it below.
    event.preventDefault();
    this.#measure();
    const at = this.#at(event);
    this.#pointers.set(event.pointerId, at);
    this.stage.element.setPointerCapture(event.pointerId);
    if (this.#pointers.size === 2) return this.#startPinch();
    if (this.#pointers.size > 2) return;
    const drag = event.button === 1 || this.spaceHeld
      ? this.#panning(at)
      : event.button === 0 ? this.#dragging(event, at) : null;
    if (drag) this.#drag = { start: at, type: event.pointerType, pointer: event.pointerId, ...drag };
  }

  #dragging(event, at) {
    const { store, stage } = this;
    const handle = event.target.dataset?.handle;
    if (handle && handle !== "move") return this.#handle(handle, at);
    const found = this.#under(at, event.pointerType);
    if (found) {
      store.select(found.person, found.joint);
      stage.circle(found.person, found.joint)?.focus({ preventScroll: true });
      return this.#joint(found, at);
    }
    const person = handle
      ? store.selection.person
      : pickPerson(store, stage.view, at, REACH[event.pointerType] / 2);
    if (person >= 0) {
      store.select(person);
      return this.#person(t("step.move_person"), at, (start, [dx, dy]) => shiftPerson(start, dx, dy));
    }
    return { ...this.#panning(at), click: () => store.select(store.selection.person) };
  }

  #joint({ person, joint }, at) {
    const { store } = this;
    const scene = store.scene;
    const before = scene.people[person];
    if (isLocked(before, joint)) {
      store.say(t("joint.is_locked", { joint: nameOf(joint) }));
      return null;
    }
    const [x, y] = pointOf(before, joint);
    const grip = toCanvas(this.stage.view, at);
    return {
      label: t("step.move", { joint: nameOf(joint) }),
      move: (now, event) => {
        const [px, py] = toCanvas(this.stage.view, now);
        // The keys turn what the buttons say round, so that either hand will do.
        const follow = store.options.follow !== event.altKey;
        const rigid = store.options.rigid !== event.shiftKey;
        const to = [x + px - grip[0], y + py - grip[1]];
        store.draft(withPerson(scene, person, dragJoint(before, joint, to, { follow, rigid })));
      },
    };
  }

  // A gesture that changes the whole selected person by how far the pointer went, in canvas px.
  #person(label, at, change) {
    const { store } = this;
    const scene = store.scene;
    const index = store.selection.person;
    const grip = toCanvas(this.stage.view, at);
    return {
      label,
      move: (now, event) => {
        const place = toCanvas(this.stage.view, now);
        const way = [place[0] - grip[0], place[1] - grip[1]];
        const changed = change(scene.people[index], way, { grip, place, event });
        store.draft(withPerson(scene, index, changed));
      },
    };
  }

  #handle(name, at) {
    const bounds = boundsOf(this.store.person);
    const centre = centreOf(bounds);
    if (name === "turn") {
      return this.#person(t("step.turn_person"), at, (start, _, { grip, place, event }) => {
        const angle = ([x, y]) => Math.atan2(y - centre[1], x - centre[0]);
        const turn = angle(place) - angle(grip);
        const steps = event.shiftKey ? Math.round(turn / TURN_STEP) * TURN_STEP : turn;
        return turnPerson(start, centre, steps);
      });
    }
    const [across, along] = OPPOSITE[name];
    return this.#person(t("step.scale_person"), at, (start, _, { grip, place, event }) => {
      const anchor = event.altKey ? centre : [bounds[across], bounds[along]];
      const [gx, gy] = [grip[0] - anchor[0], grip[1] - anchor[1]];
      const [px, py] = [place[0] - anchor[0], place[1] - anchor[1]];
      // Freely with Shift, else by how far the pointer is along the diagonal.
      const even = Math.max((gx * px + gy * py) / (gx * gx + gy * gy || 1), 0.02);
      const factors = event.shiftKey
        ? [Math.max(px / (gx || 1), 0.02), Math.max(py / (gy || 1), 0.02)] : [even, even];
      return scalePerson(start, anchor, ...factors);
    });
  }

  #panning(at) {
    const view = this.stage.view;
    return { move: (now) => this.stage.look(pan(view, now[0] - at[0], now[1] - at[1])) };
  }

  #move(event) {
    const at = this.#at(event);
    if (!this.#pointers.has(event.pointerId)) {
      if (event.pointerType !== "touch") this.#hover(event, at);
      return;
    }
    this.#pointers.set(event.pointerId, at);
    if (this.#pinch) return this.#continuePinch();
    const drag = this.#drag;
    if (!drag || drag.pointer !== event.pointerId) return;
    const way = Math.hypot(at[0] - drag.start[0], at[1] - drag.start[1]);
    if (!drag.moving && way <= (STILL[drag.type] ?? STILL.mouse)) return;
    drag.moving = true;
    this.store.hover(null);
    drag.move(at, event);
  }

  #hover(event, at) {
    const found = this.#under(at, event.pointerType);
    this.store.hover(found);
    const limb = !found && pickPerson(this.store, this.stage.view, at, REACH.mouse / 2) >= 0;
    this.stage.element.dataset.over = this.spaceHeld ? "pan" : found ? "joint" : limb ? "limb" : "";
  }

  #up(event, cancelled = false) {
    if (!this.#pointers.delete(event.pointerId)) return;
    if (this.#pointers.size < 2) this.#pinch = null;
    const drag = this.#drag;
    if (drag?.pointer !== event.pointerId) return;
    this.#drag = null;
    if (cancelled) this.store.cancel();
    else if (!drag.moving) drag.click?.();
    else if (drag.label) this.store.settle(drag.label);
  }

  #wheel(event) {
    event.preventDefault();
    this.#measure();
    const unit = event.deltaMode === 1 ? 16 : 1; // lines or px
    const factor = Math.exp(-event.deltaY * unit * (event.ctrlKey ? 0.01 : 0.0015));
    this.stage.look(zoom(this.stage.view, factor, this.#at(event)));
  }

  #startPinch() {
    this.cancel();
    this.#pinch = { view: this.stage.view, from: [...this.#pointers.values()] };
  }

  #continuePinch() {
    const { view, from } = this.#pinch;
    const to = [...this.#pointers.values()];
    const middle = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const span = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
    const [before, now] = [middle(from), middle(to)];
    const zoomed = zoom(view, span(to) / span(from), before);
    this.stage.look(pan(zoomed, now[0] - before[0], now[1] - before[1]));
  }
}
