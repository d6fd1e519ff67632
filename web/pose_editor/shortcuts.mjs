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
// a letter's case does not matter. `run` gets the editor.
export const SHORTCUTS = [
  { group: "Joints", shown: "Tab", text: "Next joint (Shift: the one before)" },
  { group: "Joints", shown: "Arrows", text: "Move joint or person by 1 px (Ctrl: 10 px)" },
  { group: "Joints", shown: "Alt + drag or arrows", text: "What hangs on the joint comes along" },
  { group: "Joints", shown: "Shift + drag or arrows", text: "The bone keeps its length" },
  { group: "Joints", shown: "C", keys: ["c"], text: "Children always come along (Alt then: not)",
    run: ({ store }) => store.setOption("follow", !store.options.follow) },
  { group: "Joints", shown: "B", keys: ["b"], text: "Bones always keep their length (Shift then: not)",
    run: ({ store }) => store.setOption("rigid", !store.options.rigid) },
  { group: "Joints", shown: "L", keys: ["l"], text: "Lock the joint in its place, or free it",
    run: ({ store }) => actions.toggleLock(store) },
  { group: "Joints", shown: "H", keys: ["h"], text: "Hide the joint from the result, or show it",
    run: ({ store }) => actions.toggleHidden(store) },
  { group: "Joints", shown: "Delete", keys: ["delete", "backspace"],
    text: "Remove the joint, or the person where none is chosen",
    run: ({ store }) => actions.remove(store) },
  { group: "Person", shown: "P", keys: ["p"], text: "The whole person instead of one joint",
    run: (editor) => editor.focusPerson() },
  { group: "Person", shown: "N", keys: ["n", "shift+n"], text: "Next person (Shift: the one before)",
    run: ({ store }, event) => actions.nextPerson(store, event.shiftKey ? -1 : 1) },
  { group: "Person", shown: "R", keys: ["r", "shift+r"], text: "Turn by 5° (Shift: the other way)",
    run: ({ store }, event) => actions.turn(store, event.shiftKey ? -5 : 5) },
  { group: "Person", shown: "S", keys: ["s", "shift+s"], text: "Larger by 5 % (Shift: smaller)",
    run: ({ store }, event) => actions.scale(store, event.shiftKey ? 1 / 1.05 : 1.05) },
  { group: "Person", shown: "W", keys: ["w", "shift+w"], text: "Wider by 5 % (Shift: narrower)",
    run: ({ store }, event) => actions.scale(store, event.shiftKey ? 1 / 1.05 : 1.05, 1) },
  { group: "Person", shown: "T", keys: ["t", "shift+t"], text: "Taller by 5 % (Shift: shorter)",
    run: ({ store }, event) => actions.scale(store, 1, event.shiftKey ? 1 / 1.05 : 1.05) },
  { group: "Person", shown: "M", keys: ["m"], text: "Mirror",
    run: ({ store }) => actions.mirror(store) },
  { group: "Person", shown: "X", keys: ["x"], text: "Swap left and right: front becomes back",
    run: ({ store }) => actions.swap(store) },
  { group: "Person", shown: "A", keys: ["a"], text: "Add a person",
    run: ({ store }) => actions.addPerson(store) },
  { group: "Person", shown: "Ctrl + D", keys: ["ctrl+d"], text: "Duplicate the person",
    run: ({ store }) => actions.duplicatePerson(store) },
  { group: "Mouse", shown: "Drag a limb or the frame", text: "Move the person" },
  { group: "Mouse", shown: "Drag a corner", text: "Scale (Shift: freely, Alt: about the middle)" },
  { group: "Mouse", shown: "Drag the knob", text: "Turn (Shift: in steps of 15°)" },
  { group: "Mouse", shown: "Wheel or pinch", text: "Zoom" },
  { group: "Mouse", shown: "Drag beside the figure", text: "Move the view (or Space, middle button)" },
  { group: "View", shown: "+  −", keys: ["+", "=", "shift++"], text: "Zoom in, zoom out",
    run: (editor) => editor.zoomBy(1.25) },
  { keys: ["-", "_", "shift+_"], run: (editor) => editor.zoomBy(0.8) },
  { group: "View", shown: "0 or double click", keys: ["0"], text: "The whole canvas",
    run: (editor) => editor.stage.fit() },
  { group: "View", shown: "Home, End, Page Up, Page Down", keys: Object.keys(LOOKS),
    text: "Move the view left, right, up, down",
    run: (editor, event) => editor.panBy(...LOOKS[event.key.toLowerCase()]) },
  { group: "View", shown: "F6", keys: ["f6"], text: "From the figure to the panels and back",
    run: (editor) => editor.nextRegion() },
  { group: "Everything", shown: "Ctrl + Z", keys: ["ctrl+z"], text: "Undo, without limit",
    run: ({ store }) => store.undo() },
  { group: "Everything", shown: "Ctrl + Y", keys: ["ctrl+y", "ctrl+shift+z"], text: "Redo",
    run: ({ store }) => store.redo() },
  { group: "Everything", shown: "Ctrl + C, Ctrl + V", text: "Copy, paste OpenPose JSON" },
  { group: "Everything", shown: "?", keys: ["?", "shift+?", "f1"], text: "This help",
    run: (editor) => editor.help.toggle() },
  { group: "Everything", shown: "Esc", text: "Drop a drag, close the help, close the editor" },
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
