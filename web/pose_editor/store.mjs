// SPDX-License-Identifier: GPL-3.0-or-later
// What an open editor knows: the scene with its history, what is selected, how edits behave.

import { t } from "../texts.mjs";
import { History } from "./history.mjs";
import { PARTS } from "./skeleton.mjs";
import { pointOf, withPerson } from "./scene.mjs";

export class Store {
  #listeners = new Set();
  #draft = null;

  // `history` may go on from an earlier session; `onCommit(scene)` hears of every finished edit.
  constructor(history, onCommit) {
    this.history = history;
    this.onCommit = onCommit;
    this.selection = { person: 0, joint: null };
    this.options = { follow: false, rigid: false };
    this.shownParts = new Set(Object.keys(PARTS));
    this.hovered = null; // { person, joint } under the pointer
    this.message = ""; // what the last action has to say, for the status line
    this.#mendSelection();
  }

  get scene() {
    return this.#draft ?? this.history.present;
  }

  // The selected person, or undefined where the scene is empty.
  get person() {
    return this.scene.people[this.selection.person];
  }

  get isDragging() {
    return this.#draft !== null;
  }

  // Goes on with another history, or with this one that was moved from outside.
  replaceHistory(history) {
    this.#draft = null;
    this.history = history;
    this.#mendSelection();
    this.notify();
  }

  subscribe(listener) {
    this.#listeners.add(listener);
  }

  select(person, joint = null) {
    if (this.selection.person === person && this.selection.joint === joint) return;
    this.selection = { person, joint };
    this.#mendSelection();
    this.notify();
  }

  hover(hovered) {
    if (this.hovered?.person === hovered?.person && this.hovered?.joint === hovered?.joint) return;
    this.hovered = hovered;
    this.notify();
  }

  setOption(name, value) {
    this.options = { ...this.options, [name]: value };
    this.notify();
  }

  togglePart(part) {
    if (!this.shownParts.delete(part)) this.shownParts.add(part);
    this.notify();
  }

  say(message) {
    this.message = message;
    this.notify();
  }

  // Shows a scene while a gesture goes on; `settle` makes one step of it, `cancel` drops it.
  draft(scene) {
    this.#draft = scene;
    this.notify();
  }

  settle(label) {
    const scene = this.#draft;
    this.#draft = null;
    if (scene) this.apply(label, scene);
  }

  cancel() {
    this.#draft = null;
    this.notify();
  }

  // One finished edit.
  apply(label, scene) {
    this.#draft = null;
    if (scene !== this.history.present) {
      this.history.commit(scene, label);
      this.#finished(label);
    }
  }

  // One finished edit of the selected person: `change(person)` returns the new one.
  edit(label, change) {
    if (!this.person) return;
    const changed = change(this.person);
    if (changed !== this.person) {
      this.apply(label, withPerson(this.scene, this.selection.person, changed));
    }
  }

  undo() {
    this.#draft = null;
    if (!this.history.canUndo) return;
    const label = this.history.undoLabel;
    this.history.undo();
    this.#finished(t("step.undone", { step: label }));
  }

  redo() {
    this.#draft = null;
    if (!this.history.canRedo) return;
    const label = this.history.redoLabel;
    this.history.redo();
    this.#finished(t("step.done_again", { step: label }));
  }

  #finished(message) {
    this.message = message;
    this.#mendSelection();
    this.onCommit(this.scene);
    this.notify();
  }

  #mendSelection() {
    const last = this.scene.people.length - 1;
    const person = Math.max(Math.min(this.selection.person, last), 0);
    const joint = this.selection.joint;
    const there = joint && this.scene.people[person] && pointOf(this.scene.people[person], joint);
    this.selection = { person, joint: there ? joint : null };
  }

  notify() {
    for (const listener of this.#listeners) listener();
  }
}
