// SPDX-License-Identifier: GPL-3.0-or-later

import assert from "node:assert/strict";
import test from "node:test";

import { afterKey, atPointer } from "../../web/compare/divider.mjs";
import {
  choose, columnsOf, metricsOf, pairOf, sheetsOf, swap, turn,
} from "../../web/compare/pictures.mjs";

const file = (filename) => ({ filename, subfolder: "", type: "temp" });
const OUTPUTS = {
  pose_transfer_truth: [file("t")],
  pose_transfer_source: [file("s")],
  pose_transfer_result: [file("r")],
  pose_transfer_pose_map: [file("p")],
  pose_transfer_sheet: [file("sheet")],
  pose_transfer_metrics: [{ name: "result", ssim: "0.838", psnr: "20.3" }],
};

test("the divider is where the pointer is on the picture, and stays on it", () => {
  const box = { left: 100, width: 200 };
  assert.equal(atPointer(150, box), 0.25);
  assert.equal(atPointer(20, box), 0);
  assert.equal(atPointer(900, box), 1);
  assert.equal(atPointer(100, { left: 100, width: 0 }), 0);
});

test("arrow keys move the divider by hundredths, with Shift and by pages by tenths", () => {
  assert.equal(afterKey(0.5, "ArrowRight"), 0.51);
  assert.equal(afterKey(0.5, "ArrowDown"), 0.49);
  assert.equal(afterKey(0.5, "ArrowLeft", true), 0.4);
  assert.equal(afterKey(0.5, "PageUp"), 0.6);
  assert.equal(afterKey(0.5, "Home"), 0);
  assert.equal(afterKey(0.5, "End"), 1);
  assert.equal(afterKey(0.5, "a"), null);
});

test("the divider stops at the edges, and steps do not drift", () => {
  assert.equal(afterKey(1, "ArrowRight"), 1);
  assert.equal(afterKey(0.05, "PageDown"), 0);
  let at = 0;
  for (let step = 0; step < 70; step += 1) at = afterKey(at, "ArrowRight");
  assert.equal(at, 0.7);
});

test("what a run sent is found by its name, in a fixed order", () => {
  const columns = columnsOf(OUTPUTS);
  assert.deepEqual(Object.keys(columns), ["source", "pose_map", "result", "truth"]);
  assert.deepEqual(columns.result, [file("r")]);
  assert.deepEqual(sheetsOf(OUTPUTS), [file("sheet")]);
  assert.equal(metricsOf(OUTPUTS), "result against truth: SSIM 0.838, PSNR 20.3 dB");
  assert.deepEqual(columnsOf(undefined), {});
  assert.deepEqual(sheetsOf(undefined), []);
  assert.equal(metricsOf({}), "");
});

test("the result is compared with the truth, or with the source where there is none", () => {
  assert.deepEqual(pairOf(["source", "pose_map", "result", "truth"], null),
    { left: "result", right: "truth" });
  assert.deepEqual(pairOf(["source", "pose_map", "result"], null),
    { left: "source", right: "result" });
});

test("a chosen pair holds while both pictures are there", () => {
  const wished = { left: "source", right: "truth" };
  assert.deepEqual(pairOf(["source", "result", "truth"], wished), wished);
  assert.deepEqual(pairOf(["source", "result"], wished), { left: "source", right: "result" });
  assert.deepEqual(pairOf(["source", "result", "truth"], { left: "truth", right: "truth" }),
    { left: "result", right: "truth" });
});

test("the two sides never show the same", () => {
  const pair = { left: "source", right: "truth" };
  assert.deepEqual(choose(pair, "left", "result"), { left: "result", right: "truth" });
  assert.deepEqual(choose(pair, "left", "truth"), { left: "truth", right: "source" });
  assert.deepEqual(choose(pair, "right", "source"), { left: "truth", right: "source" });
  assert.deepEqual(swap(pair), { left: "truth", right: "source" });
});

test("the batch is leafed through in a circle", () => {
  assert.equal(turn(0, 1, 3), 1);
  assert.equal(turn(2, 1, 3), 0);
  assert.equal(turn(0, -1, 3), 2);
});
