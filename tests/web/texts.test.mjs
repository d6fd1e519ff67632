// SPDX-License-Identifier: GPL-3.0-or-later

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";

import { labelOf, metricsOf, NAMES } from "../../web/compare/pictures.mjs";
import { SHORTCUTS } from "../../web/pose_editor/shortcuts.mjs";
import { joints, nameOf, partName, PARTS } from "../../web/pose_editor/skeleton.mjs";
import { PRESETS } from "../../web/pose_editor/templates.mjs";
import { parse } from "../../web/pose_editor/text.mjs";
import { setLanguage, t, TABLES } from "../../web/texts.mjs";

const WEB = new URL("../../web/", import.meta.url);
const { en: EN, zh: ZH } = TABLES;
const CHINESE = /[\u4e00-\u9fff]/;
const SAME = ["X", "Y", "OpenPose JSON"]; // these have no Chinese name

// { path: text } of the widgets' modules, without their comments.
const MODULES = Object.fromEntries(
  readdirSync(WEB, { recursive: true })
    .filter((path) => /\.m?js$/.test(path) && !/^texts\b/.test(path))
    .map((path) => [path, readFileSync(new URL(path.replaceAll("\\", "/"), WEB), "utf8")])
    .map(([path, text]) => [path, text.replace(/(^|\s)\/\/.*$/gm, "")]),
);

const CODE = Object.values(MODULES).join("\n");

const holes = (text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();

test("both languages have every key, with the same values to fill in", () => {
  assert.deepEqual(Object.keys(ZH), Object.keys(EN));
  for (const key of Object.keys(EN)) assert.deepEqual(holes(ZH[key]), holes(EN[key]), key);
});

test("every Chinese text is Chinese, and no English one is", () => {
  for (const [key, text] of Object.entries(ZH)) {
    const words = text.replace(/\{\w+\}/g, "");
    const isPattern = !/[A-Za-z]{2}/.test(words) && holes(text).length > 0;
    assert.ok(CHINESE.test(text) || SAME.includes(text) || isPattern, `${key}: ${text}`);
    assert.ok(!CHINESE.test(EN[key]), key);
  }
});

test("every key that the modules name is there, and every key is named", () => {
  const named = new Set([...CODE.matchAll(/"((?:[a-z]\w*\.)*[a-z]\w*)"/g)].map(([, key]) => key));
  for (const [, key] of CODE.matchAll(/\bt\("([^"]+)"/g)) assert.ok(key in EN, key);
  const made = [
    ...joints().filter((id) => id.startsWith("body.")), ...Object.keys(PARTS).map((p) => `part.${p}`),
    ...PRESETS.map(({ name }) => `preset.${name}`), ...NAMES.map((name) => `picture.${name}`),
    ...SHORTCUTS.flatMap(({ id, group, shown }) =>
      id ? [`shortcut.${id}`, `help.${group}`, ...(shown ? [] : [`keys.${id}`])] : []),
    ...[0, 1, 2].map((at) => `foot.${at}`), ...[0, 1, 2, 3, 4].map((at) => `finger.${at}`),
    ...[0, 1, 2, 3].map((at) => `finger_joint.${at}`), "compare.left", "compare.right",
  ];
  for (const key of made) assert.ok(key in EN, key);
  const regions = Object.keys(EN).filter((key) => key.startsWith("face.") && !named.has(key));
  const seen = joints().filter((id) => id.startsWith("face.")).map(nameOf);
  for (const key of regions) assert.ok(seen.some((name) => name.includes(EN[key])), key);
  const known = new Set([...named, ...made, ...regions]);
  assert.deepEqual(Object.keys(EN).filter((key) => !known.has(key)), []);
});

test("no module has a text of its own for the eye or the ear", () => {
  const property = /(?:\b(?:title|text|label|summary|placeholder|alt)|"aria-label"): *["`](?!\$\{t)[A-Za-z]/;
  const call = /(?:\bsay|\bwarn|\bsection|new Error|\.edit|\.settle|store\.apply)\(\s*["`]/;
  const child = /html\("(?!a"|div"|i"|span"\))\w+", \{[^{}]*\},\s*["`][A-Za-z]/;
  for (const [path, text] of Object.entries(MODULES)) {
    for (const pattern of [property, call, child]) {
      assert.equal(text.match(pattern)?.[0], undefined, path);
    }
  }
});

test("the language is the one that was set, English where it is unknown", () => {
  try {
    setLanguage("zh");
    assert.equal(t("bar.undo_step", { step: t("step.mirror_person") }), "撤销“镜像人物”（Ctrl+Z）");
    assert.equal(nameOf("left_hand.8"), "左手食指：指尖");
    assert.equal(new Set(joints().map(nameOf)).size, joints().length, "each has its own name");
    assert.ok(joints().every((id) => !/[a-z]/i.test(nameOf(id))));
    assert.ok(Object.keys(PARTS).every((part) => CHINESE.test(partName(part))));
    assert.throws(() => parse("{}", { width: 1, height: 1 }), /没有人物列表/);
    for (const locale of ["fr", undefined, "constructor"]) {
      setLanguage(locale);
      assert.equal(t("bar.undo"), "Undo", locale);
    }
  } finally {
    setLanguage("en");
  }
  assert.throws(() => t("no.such.key"), /no text called "no.such.key"/);
});

test("values are filled in as they are", () => {
  assert.equal(t("parse.no_json", { reason: "$& {key}" }).includes("$& {key}"), true);
});

test("what Compare measured is said in the artist's language, a line each", () => {
  const outputs = { pose_transfer_metrics: [
    { name: "result", ssim: "0.838", psnr: "20.3" }, { name: "source", ssim: "0.679", psnr: "13.7" },
  ] };
  try {
    setLanguage("zh");
    assert.equal(metricsOf(outputs),
      "结果对真值：SSIM 0.838，PSNR 20.3 dB\n源图对真值：SSIM 0.679，PSNR 13.7 dB");
    assert.deepEqual(NAMES.map(labelOf), ["源图", "姿态图", "结果", "真值"]);
  } finally {
    setLanguage("en");
  }
});
