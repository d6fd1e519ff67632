// SPDX-License-Identifier: GPL-3.0-or-later
// What each key does. The same table answers the keyboard and fills the help.

import * as actions from "./actions.mjs";
import { pointOf } from "./scene.mjs";

const ARROWS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};
const FAR = 10; // px with Ctrl
// Where to look, in windows: a laptop has these keys on its arrows.
export const LOOKS = { home: [-0.1, 0], end: [0.1, 0], pageup: [0, -0.1], pagedown: [0, 0.1] };

// `keys` are compared with "Ctrl+" + event.key ("Ctrl" stands for the Mac's Command key as well);
// a letter's case does not matter. `run` gets the editor. `id` names the texts; what to press is
// `shown` where it is the same in every language.
export const SHORTCUTS = [
  { group: "joints", id: "tab", shown: "Tab" },
  { group: "joints", id: "arrows" },
  { group: "joints", id: "follow" },
  { group: "joints", id: "rigid" },
  { group: "joints", id: "always_follow", shown: "C", keys: ["c"],
    run: ({ store }) => store.setOption("follow", !store.options.follow) },
  { group: "joints", id: "always_rigid", shown: "B", keys: ["b"],
    run: ({ store }) => store.setOption("rigid", !store.options.rigid) },
  { group: "joints", id: "lock", shown: "L", keys: ["l"],
    run: ({ store }) => actions.toggleLock(store) },
  { group: "joints", id: "hide", shown: "H", keys: ["h"],
    run: ({ store }) => actions.toggleHidden(store) },
  { group: "joints", id: "remove", shown: "Delete", keys: ["delete", "backspace"],
    run: ({ store }) => actions.remove(store) },
  { group: "person", id: "whole_person", shown: "P", keys: ["p"],
    run: (editor) => editor.focusPerson() },
  { group: "person", id: "next_person", shown: "N", keys: ["n", "shift+n"],
    run: ({ store }, event) => actions.nextPerson(store, event.shiftKey ? -1 : 1) },
  { group: "person", id: "turn", shown: "R", keys: ["r", "shift+r"],
    run: ({ store }, event) => actions.turn(store, event.shiftKey ? -5 : 5) },
  { group: "person", id: "larger", shown: "S", keys: ["s", "shift+s"],
    run: ({ store }, event) => actions.scale(store, event.shiftKey ? 1 / 1.05 : 1.05) },
  { group: "person", id: "wider", shown: "W", keys: ["w", "shift+w"],
    run: ({ store }, event) => actions.scale(store, event.shiftKey ? 1 / 1.05 : 1.05, 1) },
  { group: "person", id: "taller", shown: "T", keys: ["t", "shift+t"],
    run: ({ store }, event) => actions.scale(store, 1, event.shiftKey ? 1 / 1.05 : 1.05) },
  { group: "person", id: "mirror", shown: "M", keys: ["m"],
    run: ({ store }) => actions.mirror(store) },
  { group: "person", id: "swap", shown: "X", keys: ["x"],
    run: ({ store }) => actions.swap(store) },
  { group: "person", id: "add_person", shown: "A", keys: ["a"],
    run: ({ store }) => actions.addPerson(store) },
  { group: "person", id: "duplicate", shown: "Ctrl + D", keys: ["ctrl+d"],
    run: ({ store }) => actions.duplicatePerson(store) },
  { group: "mouse", id: "drag_limb" },
  { group: "mouse", id: "drag_corner" },
  { group: "mouse", id: "drag_knob" },
  { group: "mouse", id: "wheel" },
  { group: "mouse", id: "drag_beside" },
  { group: "view", id: "zoom", shown: "+  −", keys: ["+", "=", "shift++"],
    run: (editor) => editor.zoomBy(1.25) },
  { keys: ["-", "_", "shift+_"], run: (editor) => editor.zoomBy(0.8) },
  { group: "view", id: "whole_canvas", keys: ["0"],
    run: (editor) => editor.stage.fit() },
  { group: "view", id: "look", shown: "Home, End, Page Up, Page Down", keys: Object.keys(LOOKS),
    run: (editor, event) => editor.panBy(...LOOKS[event.key.toLowerCase()]) },
  { group: "view", id: "region", shown: "F6", keys: ["f6"],
    run: (editor) => editor.nextRegion() },
  { group: "everything", id: "undo", shown: "Ctrl + Z", keys: ["ctrl+z"],
    run: ({ store }) => store.undo() },
  { group: "everything", id: "redo", shown: "Ctrl + Y", keys: ["ctrl+y", "ctrl+shift+z"],
    run: ({ store }) => store.redo() },
  { group: "everything", id: "copy", shown: "Ctrl + C, Ctrl + V" },
  { group: "everything", id: "help", shown: "?", keys: ["?", "shift+?", "f1"],
    run: (editor) => editor.help.toggle() },
  { group: "everything", id: "escape", shown: "Esc" },
];

const BY_KEY = new Map(
  SHORTCUTS.flatMap((shortcut) => (shortcut.keys ?? []).map((key) => [key, shortcut])),
);

// Does what the key says; false where it says nothing.
export function press(editor, event) {
  if (event.key in ARROWS) return arrow(editor, event);
  const control = event.ctrlKey || event.metaKey;
  const name = (control ? "ctrl+" : "") + (event.shiftKey ? "shift+" : "") +
    event.key.toLowerCase();
  const shortcut = BY_KEY.get(name);
  if (!shortcut) return false;
  shortcut.run(editor, event);
  return true;
}

function arrow({ store }, event) {
  const far = event.ctrlKey || event.metaKey ? FAR : 1;
  const [dx, dy] = ARROWS[event.key].map((step) => step * far);
  const { joint } = store.selection;
  if (!store.person) return false;
  if (!joint) {
    actions.shift(store, dx, dy);
    return true;
  }
  const [x, y] = pointOf(store.person, joint);
  actions.moveJoint(store, [x + dx, y + dy], {
    follow: store.options.follow !== event.altKey, rigid: store.options.rigid !== event.shiftKey,
  });
  return true;
}
