// SPDX-License-Identifier: GPL-3.0-or-later

import assert from "node:assert/strict";
import test from "node:test";

import * as actions from "../../web/pose_editor/actions.mjs";
import { History } from "../../web/pose_editor/history.mjs";
import { pickJoint, pickPerson } from "../../web/pose_editor/pick.mjs";
import { jointsOf, pointOf } from "../../web/pose_editor/scene.mjs";
import { joints, nameOf, oppositeOf } from "../../web/pose_editor/skeleton.mjs";
import { Store } from "../../web/pose_editor/store.mjs";
import { press } from "../../web/pose_editor/shortcuts.mjs";
import { PRESETS, standing } from "../../web/pose_editor/templates.mjs";
import { fit, pan, toCanvas, toScreen, zoom } from "../../web/pose_editor/viewport.mjs";
import { apart, wholeScene } from "./people.mjs";

function opened(scene = wholeScene()) {
  const committed = [];
  const store = new Store(new History(scene), (value) => committed.push(value));
  return { store, committed };
}

test("undo and redo have no limit", () => {
  const history = new History(0);
  for (let step = 1; step <= 5000; step += 1) history.commit(step, `step ${step}`);
  for (let step = 0; step < 5000; step += 1) history.undo();
  assert.equal(history.present, 0);
  assert.equal(history.canUndo, false);
  history.undo();
  assert.equal(history.redoLabel, "step 1");
  for (let step = 0; step < 5001; step += 1) history.redo();
  assert.equal(history.present, 5000);
  assert.equal(history.canRedo, false);
});

test("a new step after undo drops what was undone; no change is no step", () => {
  const history = new History("a");
  history.commit("b", "to b");
  history.undo();
  history.commit("c", "to c");
  assert.equal(history.canRedo, false);
  history.commit("c", "nothing");
  assert.equal(history.undoLabel, "to c");
});

test("a history is moved to the nearest state that is looked for", () => {
  const history = new History("a");
  for (const state of ["b", "c", "b", "d"]) history.commit(state, state);
  assert.ok(history.seek((state) => state === "b"));
  assert.equal(history.redoLabel, "d");
  assert.ok(history.seek((state) => state === "d"));
  assert.equal(history.canRedo, false);
  assert.ok(history.seek((state) => state === "a"));
  assert.ok(history.seek((state) => state === "c"));
  assert.equal(history.seek((state) => state === "z"), false);
  assert.equal(history.present, "c");
});

test("a gesture is one step, and none when it is dropped", () => {
  const { store, committed } = opened();
  const before = store.scene;
  for (let x = 0; x < 50; x += 1) store.draft({ ...before, width: 600 + x });
  assert.equal(committed.length, 0);
  store.settle("Drag");
  assert.deepEqual(committed.map((scene) => scene.width), [649]);
  store.draft({ ...before, width: 9 });
  store.cancel();
  assert.equal(store.scene.width, 649);
  store.undo();
  assert.equal(store.scene, before);
  assert.equal(committed.length, 2);
});

test("what is selected is always there", () => {
  const { store } = opened();
  actions.addPerson(store);
  store.select(1, "body.4");
  actions.remove(store);
  assert.deepEqual(store.selection, { person: 1, joint: null });
  assert.equal(pointOf(store.person, "body.4"), undefined);
  actions.remove(store);
  assert.deepEqual(store.selection, { person: 0, joint: null });
  actions.deletePerson(store);
  assert.equal(store.person, undefined);
  actions.mirror(store); // nothing to do, and no error
  store.undo();
  assert.equal(store.scene.people.length, 1);
});

test("removing a person's last joint removes the person", () => {
  const { store } = opened(standing());
  for (const id of jointsOf(store.person)) {
    store.select(0, id);
    actions.remove(store);
  }
  assert.equal(store.scene.people.length, 0);
});

test("lock, hide and their opposites", () => {
  const { store } = opened();
  store.select(0, "body.4");
  const before = pointOf(store.person, "body.4");
  actions.toggleLock(store);
  actions.moveJoint(store, [1, 1]);
  assert.deepEqual(pointOf(store.person, "body.4"), before);
  assert.match(store.message, /right wrist is locked/);
  actions.toggleLock(store);
  actions.toggleHidden(store);
  assert.equal(pointOf(store.person, "body.4")[2], 0);
  actions.toggleHidden(store);
  assert.deepEqual(pointOf(store.person, "body.4"), before);
});

test("a person is placed and sized by numbers", () => {
  const { store } = opened();
  actions.placePerson(store, { height: 300 });
  actions.placePerson(store, { x: 100 });
  actions.placePerson(store, { y: 200 });
  const ys = jointsOf(store.person).map((id) => pointOf(store.person, id)[1]);
  const xs = jointsOf(store.person).map((id) => pointOf(store.person, id)[0]);
  assert.ok(Math.abs(Math.max(...ys) - Math.min(...ys) - 300) < 0.1);
  assert.ok(Math.abs((Math.max(...xs) + Math.min(...xs)) / 2 - 100) < 0.1);
  assert.ok(Math.abs((Math.max(...ys) + Math.min(...ys)) / 2 - 200) < 0.1);
});

test("a canvas like the photo takes the figures along", () => {
  const { store } = opened();
  actions.fitCanvas(store, 1024, 1536);
  const before = pointOf(wholeScene().people[0], "body.4");
  assert.ok(apart(pointOf(store.person, "body.4"), before.map((value) => 2 * value)) < 0.02);
});

test("all presets are whole figures on their canvas, each under a name of its own", () => {
  assert.ok(PRESETS.length >= 13);
  assert.equal(PRESETS[0].name, "A-pose");
  assert.equal(new Set(PRESETS.map(({ name }) => name)).size, PRESETS.length);
  const { width, height } = standing();
  for (const { name, body } of PRESETS) {
    assert.equal(body.length, 18, name);
    const there = body.filter(([, , confidence]) => confidence > 0);
    assert.ok(there.length >= 15, name);
    assert.ok(there.every(([x, y]) => x > 0 && y > 0 && x < width && y < height), name);
  }
});

test("a preset keeps the person's ground and size", () => {
  const { store } = opened();
  for (const preset of PRESETS) actions.choosePreset(store, preset);
  actions.choosePreset(store, PRESETS[0]);
  const ground = Math.max(...store.person.body.map(([, y]) => y));
  const before = wholeScene().people[0];
  assert.ok(Math.abs(ground - Math.max(...jointsOf(before).map((id) => pointOf(before, id)[1]))) < 1);
});

test("a joint that is added comes back to where it was, about", () => {
  for (const id of ["body.4", "body.10", "body.0", "body.16", "body.8"]) {
    const { store } = opened(standing());
    const before = pointOf(store.person, id);
    store.select(0, id);
    actions.remove(store);
    actions.restoreJoint(store, id);
    assert.ok(apart(pointOf(store.person, id), before) < 12, nameOf(id));
    assert.equal(store.selection.joint, id);
  }
});

test("added hands sit at the wrists and point away from the elbows", () => {
  const person = wholeScene().people[0];
  for (const [hand, wrist, elbow] of [["left_hand", 7, 6], ["right_hand", 4, 3]]) {
    const at = pointOf(person, `body.${wrist}`);
    assert.ok(apart(pointOf(person, `${hand}.0`), at) < 0.02);
    const tip = pointOf(person, `${hand}.12`);
    assert.ok(apart(tip, pointOf(person, `body.${elbow}`)) > apart(at, pointOf(person, `body.${elbow}`)));
  }
});

test("every joint has a name of its own and an opposite whose opposite it is", () => {
  assert.equal(joints().length, 136);
  assert.equal(new Set(joints().map(nameOf)).size, 136);
  for (const id of joints()) {
    assert.equal(oppositeOf(oppositeOf(id)), id);
    assert.equal(nameOf(oppositeOf(id)).includes("left"), nameOf(id).includes("right"), id);
  }
});

test("the view keeps the point under the pointer when it zooms, and screen and canvas agree", () => {
  const view = fit({ width: 512, height: 768 }, { width: 900, height: 800 });
  const at = [123, 456];
  const near = zoom(view, 3, at);
  assert.ok(apart(toCanvas(near, at), toCanvas(view, at)) < 1e-9);
  assert.ok(apart(toScreen(near, toCanvas(near, [5, 6])), [5, 6]) < 1e-9);
  assert.equal(pan(view, 5, 6).x, view.x + 5);
  assert.ok(zoom({ scale: 40, x: 0, y: 0 }, 9, at).scale === 40);
});

test("the nearest joint is under the pointer, of the selected person first, and no hidden part", () => {
  const { store } = opened();
  actions.duplicatePerson(store);
  const view = { scale: 1, x: 0, y: 0 };
  const wrist = pointOf(store.scene.people[1], "body.4");
  assert.deepEqual(pickJoint(store, view, wrist, 12), { person: 1, joint: "body.4" });
  store.togglePart("body");
  assert.deepEqual(pickJoint(store, view, wrist, 12), { person: 1, joint: "right_hand.0" });
  assert.equal(pickJoint(store, view, [2, 2], 12), null);
  store.togglePart("body");
  const [a, b] = ["body.8", "body.9"].map((id) => pointOf(store.scene.people[0], id));
  const thigh = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  assert.equal(pickPerson(store, view, thigh, 5), 0);
  assert.equal(pickPerson(store, view, [2, 2], 5), -1);
});

test("a canvas is no larger than the server draws", () => {
  const { store } = opened();
  actions.resizeCanvas(store, 1e9, store.scene.height);
  assert.equal(store.scene.width, 16384);
  actions.resizeCanvas(store, store.scene.width, 16384);
  assert.deepEqual([store.scene.width, store.scene.height], [16384, 8192]);
  actions.fitCanvas(store, 16320, 12240);
  const { width, height } = store.scene;
  assert.ok(width * height <= 2 ** 27 && width * height > 0.999 * 2 ** 27);
  assert.ok(Math.abs(width / height - 4 / 3) < 1e-3);
});

test("keys make a person wider and taller about their middle", () => {
  const { store } = opened();
  const size = () => {
    const xs = jointsOf(store.person).map((id) => pointOf(store.person, id)[0]);
    const ys = jointsOf(store.person).map((id) => pointOf(store.person, id)[1]);
    return [Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys)];
  };
  const near = (found, wanted) =>
    found.forEach((value, axis) => assert.ok(Math.abs(value - wanted[axis]) < 0.05));
  const [width, height] = size();
  const hit = (key, shiftKey = false) => assert.ok(press({ store }, { key, shiftKey }));
  hit("w");
  near(size(), [1.05 * width, height]);
  hit("T", true);
  near(size(), [1.05 * width, height / 1.05]);
  hit("W", true);
  hit("t");
  near(size(), [width, height]);
});

test("keys move the view", () => {
  const asked = [];
  const editor = { panBy: (...way) => asked.push(way) };
  for (const key of ["Home", "End", "PageUp", "PageDown"]) assert.ok(press(editor, { key }));
  assert.deepEqual(asked, [[-0.1, 0], [0.1, 0], [0, -0.1], [0, 0.1]]);
});
