// SPDX-License-Identifier: GPL-3.0-or-later

import assert from "node:assert/strict";
import test from "node:test";

import {
  boneOf, dragJoint, hideJoint, lockJoint, mirrorPerson, removeJoint, removePart, scalePerson,
  setBone, shiftPerson, swapSides, turnPerson,
} from "../../web/pose_editor/edit.mjs";
import { boundsOf, jointsOf, pointOf } from "../../web/pose_editor/scene.mjs";
import { attachments, descendants, joints } from "../../web/pose_editor/skeleton.mjs";
import { apart, wholePerson } from "./people.mjs";

const ELBOW = "body.6";
const WRIST = "body.7";
const HALF_A_HUNDREDTH = 0.015;

const movedJoints = (before, after) =>
  jointsOf(before).filter((id) => apart(pointOf(before, id), pointOf(after, id)) > 0.02);

const near = (a, b, within = HALF_A_HUNDREDTH) => assert.ok(apart(a, b) <= within, `${a} is not ${b}`);

test("a dragged joint goes where it is put and takes only what is attached to it", () => {
  const person = wholePerson();
  const after = dragJoint(person, ELBOW, [300, 300]);
  near(pointOf(after, ELBOW), [300, 300]);
  assert.deepEqual(movedJoints(person, after), [ELBOW]);
  const wrist = dragJoint(person, WRIST, [300, 300]);
  assert.deepEqual(movedJoints(person, wrist).sort(), [WRIST, ...attachments(WRIST)].sort());
});

test("with its children a joint takes along all that hangs on it, by the same way", () => {
  const person = wholePerson();
  const from = pointOf(person, ELBOW);
  const after = dragJoint(person, ELBOW, [from[0] + 30, from[1] - 20], { follow: true });
  assert.deepEqual(movedJoints(person, after).sort(), [ELBOW, ...descendants(ELBOW)].sort());
  for (const id of descendants(ELBOW)) {
    const [x, y] = pointOf(person, id);
    near(pointOf(after, id), [x + 30, y - 20]);
  }
});

test("a rigid bone keeps its length and turns what moves along", () => {
  const person = wholePerson();
  const after = dragJoint(person, ELBOW, [400, 80], { follow: true, rigid: true });
  for (const id of [ELBOW, ...descendants(ELBOW)]) {
    assert.ok(Math.abs(boneOf(after, id).length - boneOf(person, id).length) < 0.03, id);
  }
  const shoulder = pointOf(person, "body.5");
  const wanted = Math.atan2(80 - shoulder[1], 400 - shoulder[0]) * 180 / Math.PI;
  assert.ok(Math.abs(boneOf(after, ELBOW).angle - wanted) < 0.05);
  assert.deepEqual(pointOf(after, "body.5"), shoulder);
});

test("the neck has no bone that could be rigid", () => {
  const after = dragJoint(wholePerson(), "body.1", [10, 20], { rigid: true });
  near(pointOf(after, "body.1"), [10, 20]);
});

test("a locked joint stays, whatever moves around it", () => {
  const person = lockJoint(wholePerson(), WRIST, true);
  const wrist = pointOf(person, WRIST);
  for (const after of [
    dragJoint(person, WRIST, [1, 1]),
    dragJoint(person, "body.1", [1, 1], { follow: true }),
    shiftPerson(person, 50, 50),
    turnPerson(person, [0, 0], 1),
    scalePerson(person, [0, 0], 2),
  ]) assert.deepEqual(pointOf(after, WRIST), wrist);
  near(pointOf(dragJoint(lockJoint(person, WRIST, false), WRIST, [1, 1]), WRIST), [1, 1]);
});

test("a placed joint is certain, a hidden one stays hidden", () => {
  const doubtful = { ...wholePerson() };
  doubtful.body = doubtful.body.map(([x, y]) => [x, y, 0.05]);
  assert.equal(pointOf(dragJoint(doubtful, WRIST, [9, 9]), WRIST)[2], 1);
  assert.equal(pointOf(shiftPerson(doubtful, 1, 1), WRIST)[2], 0.05);
  const hidden = hideJoint(wholePerson(), WRIST, true);
  assert.equal(pointOf(hidden, WRIST)[2], 0);
  assert.equal(pointOf(dragJoint(hidden, WRIST, [9, 9]), WRIST)[2], 0);
  assert.equal(pointOf(hideJoint(hidden, WRIST, false), WRIST)[2], 1);
});

test("turning and scaling about a point are undone by their opposite", () => {
  const person = wholePerson();
  const centre = [256, 400];
  const turned = turnPerson(turnPerson(person, centre, 0.7), centre, -0.7);
  const scaled = scalePerson(scalePerson(person, centre, 1.6), centre, 1 / 1.6);
  for (const id of joints()) {
    near(pointOf(turned, id), pointOf(person, id), 0.03);
    near(pointOf(scaled, id), pointOf(person, id), 0.03);
  }
  near(pointOf(turnPerson(person, pointOf(person, ELBOW), 3), ELBOW), pointOf(person, ELBOW));
});

test("a quarter turn goes clockwise on the screen", () => {
  const person = dragJoint(wholePerson(), "body.0", [100, 0]);
  near(pointOf(turnPerson(person, [0, 0], Math.PI / 2), "body.0"), [0, 100]);
});

test("a mirrored person keeps their place, and left arm becomes right arm", () => {
  const person = lockJoint(wholePerson(), WRIST, true);
  const after = mirrorPerson(person);
  assert.deepEqual(boundsOf(after), boundsOf(person));
  const { left, right } = boundsOf(person);
  const [x, y] = pointOf(person, WRIST);
  near(pointOf(after, "body.4"), [left + right - x, y]);
  assert.deepEqual(after.locked, ["body.4"]);
  const twice = mirrorPerson(after);
  for (const id of joints()) near(pointOf(twice, id), pointOf(person, id));
});

test("swapping sides moves nothing and is its own opposite", () => {
  const person = wholePerson();
  const swapped = swapSides(person);
  assert.deepEqual(pointOf(swapped, "body.4"), pointOf(person, WRIST));
  assert.deepEqual(swapped.right_hand, person.left_hand);
  assert.deepEqual(swapSides(swapped), person);
});

test("a removed joint is gone with its lock, a removed part as a whole", () => {
  const person = lockJoint(wholePerson(), WRIST, true);
  const after = removeJoint(person, WRIST);
  assert.equal(pointOf(after, WRIST), undefined);
  assert.deepEqual(after.locked, []);
  assert.equal(removePart(person, "face").face, null);
  assert.equal(jointsOf(removePart(person, "body")).length, jointsOf(person).length - 18);
});

test("a bone takes the length and direction that are entered", () => {
  const after = setBone(wholePerson(), ELBOW, { length: 55, angle: 90 });
  const [x, y] = pointOf(after, "body.5");
  near(pointOf(after, ELBOW), [x, y + 55], 0.03);
  assert.ok(Math.abs(boneOf(after, WRIST).length - boneOf(wholePerson(), WRIST).length) < 0.03);
});

test("edits leave what they were given alone and share what stayed the same", () => {
  const person = wholePerson();
  const copy = structuredClone(person);
  const after = dragJoint(person, ELBOW, [1, 1], { follow: true });
  assert.deepEqual(person, copy);
  assert.equal(after.face, person.face);
  assert.equal(after.body[0], person.body[0]);
});
