// SPDX-License-Identifier: GPL-3.0-or-later
// A number with its name: read off the scene, typed in by hand.

import { t } from "../texts.mjs";
import { html } from "./dom.mjs";

// `change(value)` is called when a number was entered; `show(value)` puts one in, null disables.
export function numberField({ label, unit = "px", title, step = 1, change }) {
  const input = html("input", {
    type: "number", step, title, "aria-label": t("field.name", { name: title, unit }),
    onchange: () => {
      // Enter comes here as well; what was entered gives way to what became of it.
      const value = input.valueAsNumber;
      if (Number.isFinite(value)) change(value);
      written = undefined;
      show(shown);
    },
  });
  let shown;
  let written;
  function show(value) {
    shown = value;
    const text = value === null ? "" : String(Math.round(value * 10) / 10);
    // What is being typed is left alone, unless the scene changed under it.
    if (text === written && (input.value === text || document.activeElement === input)) return;
    written = text;
    input.disabled = value === null;
    input.value = text;
  }
  const element = html("label", { class: "pt-field" },
    html("span", {}, label), input, html("span", { class: "pt-unit" }, unit));
  return { element, show };
}

export const section = (title, ...children) =>
  html("section", { class: "pt-section" }, html("h2", {}, title), ...children);
