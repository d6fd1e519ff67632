// SPDX-License-Identifier: GPL-3.0-or-later
// What a run sent, and which two of its pictures are compared.

import { t } from "../texts.mjs";

export const NAMES = ["source", "pose_map", "result", "truth"];
const PREFIX = "pose_transfer_";

// { name: [file of each picture of the batch] }, in the order of NAMES, without those that lack.
export function columnsOf(outputs) {
  const found = NAMES.map((name) => [name, outputs?.[PREFIX + name] ?? []]);
  return Object.fromEntries(found.filter(([, files]) => files.length > 0));
}

export const sheetsOf = (outputs) => outputs?.[`${PREFIX}sheet`] ?? [];

export const labelOf = (name) => t(`picture.${name}`);

// How near result and source come to the truth, a line for each; empty without a truth.
export const metricsOf = (outputs) => (outputs?.[`${PREFIX}metrics`] ?? [])
  .map(({ name, ...values }) => t("compare.metrics", { name: labelOf(name), ...values }))
  .join("\n");

// Two different names of those that are there: the wished ones where possible, else the result
// beside the truth, else beside the source.
export function pairOf(names, wished) {
  const there = (name) => names.includes(name);
  const preferred = there("truth") ? ["result", "truth"] : ["source", "result"];
  const [left, right] = [wished?.left, wished?.right];
  if (there(left) && there(right) && left !== right) return { left, right };
  return { left: preferred[0], right: preferred[1] };
}

// The pair with another name on one side. What is on the other side already changes places.
export function choose(pair, side, name) {
  const other = side === "left" ? "right" : "left";
  return { [side]: name, [other]: pair[other] === name ? pair[side] : pair[other] };
}

export const swap = ({ left, right }) => ({ left: right, right: left });

// A picture of the batch, counted round.
export const turn = (index, by, count) => (((index + by) % count) + count) % count;
