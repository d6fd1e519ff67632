// SPDX-License-Identifier: GPL-3.0-or-later
// What the pack's widgets say, in the language that ComfyUI is set to.

import { EN } from "./texts/en.mjs";
import { ZH } from "./texts/zh.mjs";

export const TABLES = { en: EN, zh: ZH };

let table = EN;

// `locale` is ComfyUI's setting Comfy.Locale. English where there is no table for it, as ComfyUI
// does with the texts of the nodes.
export function setLanguage(locale) {
  table = Object.hasOwn(TABLES, locale) ? TABLES[locale] : EN;
}

// The text of a key; `values` fill the {names} in it. Throws where the key is unknown, so that a
// slip of the pen is found by the first test that comes there.
export function t(key, values) {
  const text = table[key];
  if (text === undefined) throw new Error(`There is no text called "${key}".`);
  return values ? text.replace(/\{(\w+)\}/g, (_, name) => values[name]) : text;
}
