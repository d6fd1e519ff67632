// SPDX-License-Identifier: GPL-3.0-or-later
// Undo and redo without limit.

export class History {
  #past = [];
  #future = [];

  constructor(present) {
    this.present = present;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  // What Undo and Redo would take back or do again, in words.
  get undoLabel() {
    return this.#past.at(-1)?.label;
  }

  get redoLabel() {
    return this.#future.at(-1)?.label;
  }

  commit(next, label) {
    if (next === this.present) return;
    this.#past.push({ state: this.present, label });
    this.#future = [];
    this.present = next;
  }

  undo() {
    this.#step(this.#past, this.#future);
  }

  redo() {
    this.#step(this.#future, this.#past);
  }

  // Goes to the nearest state that passes the test, back or forth; false where there is none.
  seek(passes) {
    if (passes(this.present)) return true;
    const back = this.#past.findLastIndex(({ state }) => passes(state));
    const forth = this.#future.findLastIndex(({ state }) => passes(state));
    if (back < 0 && forth < 0) return false;
    const stepsBack = back < 0 ? Infinity : this.#past.length - back;
    const stepsForth = forth < 0 ? Infinity : this.#future.length - forth;
    for (let step = 0; step < Math.min(stepsBack, stepsForth); step += 1) {
      if (stepsBack <= stepsForth) this.undo();
      else this.redo();
    }
    return true;
  }

  #step(from, to) {
    const step = from.pop();
    if (!step) return;
    to.push({ state: this.present, label: step.label });
    this.present = step.state;
  }
}
