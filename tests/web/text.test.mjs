// SPDX-License-Identifier: GPL-3.0-or-later

import assert from "node:assert/strict";
import test from "node:test";

import { dragJoint, hideJoint, lockJoint, mirrorPerson, swapSides } from "../../web/pose_editor/edit.mjs";
import { jointsOf, pointOf } from "../../web/pose_editor/scene.mjs";
import { format, parse } from "../../web/pose_editor/text.mjs";
import { wholeScene } from "./people.mjs";

const CANVAS = { width: 512, height: 768 };
const body = (points) => ({ pose_keypoints_2d: points });
const row = (count, point) => Array.from({ length: count }, () => point).flat();

test("text and scene are exact both ways", () => {
  const scene = wholeScene();
  let person = dragJoint(scene.people[0], "body.4", [33.333333, -12.3456789]);
  person = hideJoint(lockJoint(person, "left_hand.3", true), "body.9", true);
  const edited = { ...scene, people: [person, scene.people[0]], underlay: { name: "a.png", opacity: 0.35 } };
  const text = format(edited);
  assert.deepEqual(parse(text, CANVAS), edited);
  assert.equal(format(parse(text, CANVAS)), text);
  assert.deepEqual(parse(format(edited, { plain: true }), CANVAS).people[0].body, person.body);
});

test("the plain text has all parts in full and nothing of the editor", () => {
  const scene = wholeScene();
  const text = format({
    ...scene, people: [{ ...lockJoint(scene.people[0], "body.0", true), face: null }],
    underlay: { name: "a.png", opacity: 1 },
  }, { plain: true });
  const [frame] = JSON.parse(text);
  assert.deepEqual(Object.keys(frame), ["canvas_width", "canvas_height", "people"]);
  assert.deepEqual(frame.people[0].face_keypoints_2d, row(70, [0, 0, 0]));
  assert.equal(frame.people[0].foot_keypoints_2d.length, 18);
});

test("frames, people and persons are found in whatever holds them", () => {
  const person = body(row(18, [10, 20, 0.5]));
  const frame = { canvas_width: 64, canvas_height: 128, people: [person, person] };
  for (const wrapped of [frame, [frame], [[frame]]]) {
    const scene = parse(JSON.stringify(wrapped), CANVAS);
    assert.deepEqual([scene.width, scene.height, scene.people.length], [64, 128, 2]);
    assert.deepEqual(scene.people[1].body[17], [10, 20, 0.5]);
  }
  for (const bare of [person, [person]]) {
    const scene = parse(JSON.stringify(bare), CANVAS);
    assert.deepEqual([scene.width, scene.height, scene.people.length], [512, 768, 1]);
  }
  assert.equal(parse('{"people": null}', CANVAS).people.length, 0);
});

test("parts may be null, fractions become pixels, 25 points become body and feet", () => {
  const person = { ...body(row(18, [0.5, 0.25, 1])), face_keypoints_2d: null };
  const scene = parse(JSON.stringify([{ canvas_width: 200, canvas_height: 400, people: [person] }]), CANVAS);
  assert.deepEqual(scene.people[0].body[3], [100, 100, 1]);
  assert.equal(scene.people[0].face, null);
  const points = Array.from({ length: 25 }, (_, index) => [index + 10, 50, 1]);
  const openpose = parse(JSON.stringify({ people: [body(points.flat())] }), CANVAS).people[0];
  assert.deepEqual(openpose.body[8], [19, 50, 1]);
  assert.deepEqual(openpose.feet[0], [29, 50, 1]);
});

test("a figure that is larger than the canvas it has to go on gets one of its own", () => {
  const points = [[100, 50, 1], [900, 1050, 1], ...Array(16).fill([500, 500, 1])];
  const scene = parse(JSON.stringify({ people: [body(points.flat())] }), CANVAS);
  assert.deepEqual([scene.width, scene.height], [1000, 1100]);
});

test("what is no number or marked as absent is absent", () => {
  const points = [[-1, -1, 0], ["x", 1, 1], ...Array(16).fill([5, 5, 1])];
  const person = parse(JSON.stringify({ people: [body(points.flat())] }), CANVAS).people[0];
  assert.equal(jointsOf(person).length, 16);
  assert.equal(pointOf(person, "body.0"), undefined);
});

for (const [text, sentence] of [
  ["walk to the left", /no JSON/],
  ["{}", /no list of people/],
  ["null", /no list of people/],
  ['{"people": [{"foo": 1}]}', /lacks "pose_keypoints_2d"/],
  ['{"people": [{"pose_keypoints_2d": [1, 2]}]}', /no list of x, y, confidence/],
  ['{"people": [{"pose_keypoints_2d": [1, 2, 1]}]}', /has 1 points, expected 18/],
  ['{"canvas_width": 1e6, "canvas_height": 10, "people": []}', /at most 16384/],
  ['{"canvas_width": 16384, "canvas_height": 16384, "people": []}', /134 megapixels/],
  [
    JSON.stringify({ people: [body(Array(18).fill([16000, 16000, 1]).flat())] }),
    /16384x16384 px.*134 megapixels/,
  ],
]) {
  test(`what is no pose is refused with a reason: ${text}`, () => {
    assert.throws(() => parse(text, CANVAS), sentence);
  });
}

test("damaged notes of the editor do no harm", () => {
  const [frame] = JSON.parse(format(wholeScene()));
  const damaged = [
    "body.99", "body.", "body.-1", "body.1.5", "body.2 ", "body. 2", "constructor.0", "body", 3, null,
    ["body.2"], {},
  ];
  frame.pose_transfer_editor = { locked: [[...damaged, "body.2"]], underlay: { name: 5 } };
  const scene = parse(JSON.stringify([frame]), CANVAS);
  assert.deepEqual(scene.people[0].locked, ["body.2"]);
  for (const change of [mirrorPerson, swapSides]) {
    assert.deepEqual(change(scene.people[0]).locked, ["body.5"]);
  }
  assert.equal(scene.underlay, null);
});
