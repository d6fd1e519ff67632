// SPDX-License-Identifier: GPL-3.0-or-later
// The overlay that lists the shortcuts.

import { t } from "../texts.mjs";
import { button, html } from "./dom.mjs";
import { SHORTCUTS } from "./shortcuts.mjs";

export class Help {
  constructor(onClose) {
    this.onClose = onClose;
    this.element = html("div", {
      class: "pt-help", role: "dialog", "aria-label": t("help.title"), hidden: true,
      onclick: (event) => event.target === this.element && this.close(),
    });
  }

  get isOpen() {
    return !this.element.hidden;
  }

  toggle() {
    if (this.isOpen) return this.close();
    if (!this.element.firstChild) this.element.append(card(() => this.close()));
    this.element.hidden = false;
    this.element.querySelector("button").focus();
  }

  close() {
    this.element.hidden = true;
    this.onClose();
  }
}

function card(close) {
  const groups = [...new Set(SHORTCUTS.map(({ group }) => group).filter(Boolean))];
  return html("div", { class: "pt-help-card" },
    html("header", {}, html("h2", {}, t("help.title")),
      button({ symbol: "close", title: t("help.close"), onclick: close })),
    html("div", { class: "pt-help-groups" }, groups.map((group) =>
      html("section", {}, html("h3", {}, t(`help.${group}`)), html("dl", {}, rows(group))))));
}

const rows = (group) =>
  SHORTCUTS.filter((shortcut) => shortcut.group === group).flatMap(({ id, shown }) => [
    html("dt", {}, html("kbd", {}, shown ?? t(`keys.${id}`))), html("dd", {}, t(`shortcut.${id}`)),
  ]);
