// SPDX-License-Identifier: GPL-3.0-or-later
// The editor in its node: a small picture of the pose that opens the window, and the value.

import { t } from "../texts.mjs";
import { html, svg } from "./dom.mjs";
import { Editor } from "./editor.mjs";
import { figure } from "./figure.mjs";
import { History } from "./history.mjs";
import { standing } from "./templates.mjs";
import { format, parse } from "./text.mjs";

const DEFAULT_WIDTH = 512; // px, of a pose that tells no canvas
const DEFAULT_HEIGHT = 768;

// Undo goes on where it was when a window is opened again, also for a node that the host made anew.
const histories = new Map();

let open = null; // { editor, widget }: one window at a time

// `host` is what the widget needs of ComfyUI:
//   key()            names the node for as long as the page lives
//   title()          the node's
//   outputs()        what the node sent at its last run, or undefined
//   image(file)      where such a picture is served; address(name) the same for an input file
//   upload(file)     puts a file into the input folder, resolves to its name
//   changed()        hears of every edit
//   guard(isOpen)    keeps the host's own keys away while the window is open
export class PoseWidget {
  #text = "";

  constructor(host) {
    this.host = host;
    this.picture = svg("svg", { class: "pt-figure" });
    this.button = html("button", {
      type: "button", title: t("node.open"), onclick: () => this.open(),
    }, this.picture, html("span", {}, t("node.edit")));
    this.caption = html("p");
    this.element = html("div", { class: "pt-node" }, this.button, this.caption);
    this.show();
  }

  get value() {
    return this.#text;
  }

  set value(text) {
    this.#text = typeof text === "string" ? text : "";
    this.show();
  }

  // The text that is shown: the node's own, else the wired pose.
  get #source() {
    return this.#text.trim() || this.wired().pose;
  }

  scene() {
    const canvas = { width: DEFAULT_WIDTH, height: DEFAULT_HEIGHT };
    return this.#source ? parse(this.#source, canvas) : standing();
  }

  wired() {
    const outputs = this.host.outputs() ?? {};
    const [pose = null] = outputs.pose_transfer_wired_pose ?? [];
    const [file] = outputs.pose_transfer_wired_image ?? [];
    return { pose, image: file ? this.host.image(file) : null };
  }

  // Draws the preview anew: the value changed, or a run brought something.
  show() {
    try {
      const scene = this.scene();
      const { underlay } = scene;
      const url = underlay ? this.host.address(underlay.name) : this.wired().image;
      const photo = url ? { url, opacity: underlay?.opacity ?? 0.6 } : null;
      const next = figure(scene, { photo });
      this.picture.replaceWith(next);
      this.picture = next;
      const { width, height, people } = scene;
      const count = people.length;
      const what = t(count === 1 ? "node.one_person" : "node.people", { count, width, height });
      const origin = this.wired().pose ? "node.as_wired" : "node.not_edited";
      this.#say(this.#text.trim() ? what : t(origin, { what }));
    } catch (error) {
      this.picture.replaceChildren();
      this.#say(error.message, true);
    }
    if (open?.widget === this) open.editor.refresh();
  }

  open() {
    if (open) return;
    const editor = new Editor({
      title: this.host.title(),
      history: this.#history(),
      wired: () => open.widget.wired(),
      upload: (file) => this.host.upload(file),
      address: (name) => this.host.address(name),
      commit: (scene) => open.widget.#commit(scene),
      closed: () => {
        const { widget } = open;
        open = null;
        widget.host.guard(false);
        widget.button.focus();
      },
    });
    open = { editor, widget: this };
    this.host.guard(true);
    editor.open();
  }

  // The history to go on with, at the scene that the node now has.
  #history() {
    const key = this.host.key();
    const history = histories.get(key);
    let scene;
    try {
      scene = this.scene();
    } catch {
      scene = { ...standing(), people: [] }; // the preview says what is wrong with the text
    }
    const text = format(scene);
    // The host's undo goes to a scene that was there before; another workflow's node may bear the
    // same name, and what it was is none of ours.
    if (!history?.seek((other) => format(other) === text)) histories.set(key, new History(scene));
    return histories.get(key);
  }

  #commit(scene) {
    this.#text = format(scene);
    this.show();
    this.host.changed();
  }

  #say(text, wrong = false) {
    this.caption.textContent = text;
    this.caption.title = text;
    this.caption.className = wrong ? "pt-wrong" : "";
  }

  // The host made its graph anew (undo, another workflow): an open window goes on with the node
  // that `find(key)` names, or closes when there is none.
  static reconnect(find) {
    if (!open) return;
    const widget = find(open.widget.host.key());
    if (!widget) return open.editor.close();
    open.widget = widget;
    const { store } = open.editor;
    if (widget.value === format(store.scene)) return;
    store.replaceHistory(widget.#history());
    store.say(t("node.changed_outside"));
  }
}
