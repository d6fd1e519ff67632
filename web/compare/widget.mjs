// SPDX-License-Identifier: GPL-3.0-or-later
// Two pictures over each other, and a divider that shows more of one or of the other.

import { button, html, set } from "../pose_editor/dom.mjs";
import { t } from "../texts.mjs";
import { afterKey, atPointer } from "./divider.mjs";
import { choose, columnsOf, labelOf, metricsOf, pairOf, sheetsOf, swap, turn } from "./pictures.mjs";

const SIDES = ["left", "right"];

// `host` is what the widget needs of ComfyUI:
//   outputs()     what the node sent at its last run, or undefined
//   view(file)    where such a file is served
//   changed()     hears when other pictures were chosen
//   warn(text)    shows what went wrong
export class CompareWidget {
  #wished = null; // { left, right }: names, as the workflow keeps them
  #index = 0; // of the batch
  #at = 0.5;

  constructor(host) {
    this.host = host;
    this.choices = Object.fromEntries(SIDES.map((side) => [side, this.#choice(side)]));
    const bar = html("div", { class: "pt-compare-bar" },
      this.choices.left,
      button({
        symbol: "swap", title: t("compare.swap"), onclick: () => this.#wish(swap(this.pair)),
      }),
      this.choices.right);

    this.layers = Object.fromEntries(SIDES.map((side) => [side, this.#layer(side)]));
    this.divider = html("div", {
      class: "pt-compare-divider", role: "slider", tabindex: 0, "aria-orientation": "horizontal",
      "aria-valuemin": 0, "aria-valuemax": 100, onkeydown: (event) => this.#key(event),
    }, html("i"));
    this.frame = html("div", {
      class: "pt-compare-frame",
      onpointerdown: (event) => this.#press(event),
      onpointermove: (event) => this.#drag(event),
    }, this.layers.left.element, this.layers.right.element, this.divider);
    this.message = html("p", { class: "pt-compare-message", role: "status" });
    this.stage = html("div", { class: "pt-compare-stage" }, this.frame, this.message);

    this.count = html("output", {});
    this.pages = html("div", { class: "pt-compare-pages" },
      button({ symbol: "previous", title: t("compare.previous"), onclick: () => this.#turn(-1) }),
      this.count,
      button({ symbol: "next", title: t("compare.next"), onclick: () => this.#turn(1) }));
    this.metrics = html("p", { class: "pt-compare-metrics" });
    this.download = button({
      symbol: "download", text: t("compare.sheet"), title: t("compare.sheet.title"),
      onclick: () => this.#save(),
    });
    const foot = html("div", { class: "pt-compare-foot" }, this.pages, this.download);
    // The host takes single keys for commands: Delete would remove the selected node.
    const quiet = (event) => event.ctrlKey || event.metaKey || event.stopPropagation();
    this.element = html("div", { class: "pt-compare", onkeydown: quiet },
      bar, this.stage, this.metrics, foot);
    this.show();
  }

  // What the workflow keeps: which pictures were chosen, null before any were.
  get value() {
    return this.#wished ?? "";
  }

  set value(wished) {
    this.#wished = SIDES.every((side) => typeof wished?.[side] === "string")
      ? { left: wished.left, right: wished.right } : null;
    this.show();
  }

  get pair() {
    return pairOf(Object.keys(this.columns), this.#wished);
  }

  // Draws everything anew: a run brought pictures, or others were chosen.
  show() {
    const outputs = this.host.outputs();
    this.columns = columnsOf(outputs);
    const names = Object.keys(this.columns);
    const isEmpty = names.length < 2;
    this.#say(isEmpty ? t("compare.nothing_yet") : "");
    for (const control of this.element.querySelectorAll("button, select")) control.disabled = isEmpty;
    this.metrics.textContent = metricsOf(outputs);
    this.metrics.hidden = !this.metrics.textContent;
    if (isEmpty) return;

    const { pair } = this;
    const batch = this.columns[pair.left].length;
    this.#index = Math.min(this.#index, batch - 1);
    this.pages.hidden = batch === 1;
    this.count.textContent = `${this.#index + 1} / ${batch}`;
    for (const side of SIDES) {
      const name = pair[side];
      this.choices[side].replaceChildren(...names.map((each) =>
        html("option", { value: each, selected: each === name }, labelOf(each))));
      const { picture, tag } = this.layers[side];
      set(picture, { src: this.host.view(this.columns[name][this.#index]), alt: labelOf(name) });
      tag.textContent = labelOf(name);
    }
    const [left, right] = SIDES.map((side) => labelOf(pair[side]));
    set(this.divider, { "aria-label": t("compare.divider", { left, right }) });
    this.#move(this.#at);
  }

  #choice(side) {
    const select = html("select", {
      "aria-label": t(`compare.${side}`), title: t(`compare.${side}`),
      onchange: () => this.#wish(choose(this.pair, side, select.value)),
    });
    return select;
  }

  #layer(side) {
    const picture = html("img", {
      draggable: "false",
      onload: () => this.frame.style.setProperty(
        "--ratio", picture.naturalWidth / picture.naturalHeight),
      onerror: () => this.#say(t("compare.gone")),
    });
    const tag = html("span");
    const element = html("div", { class: `pt-compare-layer pt-compare-${side}` }, picture, tag);
    return { element, picture, tag };
  }

  #wish(pair) {
    this.#wished = pair;
    this.show();
    this.host.changed();
  }

  #turn(by) {
    this.#index = turn(this.#index, by, this.columns[this.pair.left].length);
    this.show();
  }

  #say(text) {
    this.message.textContent = text;
    this.message.hidden = !text;
    this.frame.hidden = Boolean(text);
  }

  #move(at) {
    this.#at = at;
    this.frame.style.setProperty("--at", at);
    const percent = Math.round(at * 100);
    const [left, right] = SIDES.map((side) => labelOf(this.pair[side]));
    const shares = t("compare.shares", { percent, rest: 100 - percent, left, right });
    set(this.divider, { "aria-valuenow": percent, "aria-valuetext": shares });
  }

  #press(event) {
    if (event.button !== 0) return; // the others move the graph
    event.preventDefault(); // or the browser would drag the picture
    event.stopPropagation();
    this.frame.setPointerCapture(event.pointerId);
    this.divider.focus({ preventScroll: true });
    this.#move(atPointer(event.clientX, this.frame.getBoundingClientRect()));
  }

  #drag(event) {
    if (!this.frame.hasPointerCapture(event.pointerId)) return;
    event.stopPropagation();
    this.#move(atPointer(event.clientX, this.frame.getBoundingClientRect()));
  }

  #key(event) {
    const at = afterKey(this.#at, event.key, event.shiftKey);
    if (at === null || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.#move(at);
  }

  async #save() {
    const sheets = sheetsOf(this.host.outputs());
    for (const [number, file] of sheets.entries()) {
      let picture;
      try {
        const answer = await fetch(this.host.view(file));
        if (!answer.ok) return this.host.warn(t("compare.gone"));
        picture = await answer.blob();
      } catch {
        return this.host.warn(t("compare.no_answer"));
      }
      const url = URL.createObjectURL(picture);
      const suffix = sheets.length === 1 ? "" : ` ${number + 1}`;
      html("a", { href: url, download: `${t("compare.file")}${suffix}.png` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000); // browsers still read it after the click
    }
  }
}
