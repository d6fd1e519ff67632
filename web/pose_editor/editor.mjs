// SPDX-License-Identifier: GPL-3.0-or-later
// The editor's window: puts the pieces together and knows what lies outside of the scene.

import { t } from "../texts.mjs";
import * as actions from "./actions.mjs";
import { html } from "./dom.mjs";
import { Gestures } from "./gestures.mjs";
import { Help } from "./help.mjs";
import { jointPanel, partsPanel, peoplePanel } from "./inspector.mjs";
import { pointOf } from "./scene.mjs";
import { LOOKS, press } from "./shortcuts.mjs";
import { canvasPanel, photoPanel, presetsPanel, textPanel, wiredPanel } from "./sources.mjs";
import { Stage } from "./stage.mjs";
import { Store } from "./store.mjs";
import { DEFAULT_OPACITY, format, parse } from "./text.mjs";
import { toolbar } from "./toolbar.mjs";
import { pan, toScreen, zoom } from "./viewport.mjs";

export class Editor {
  #wiredOpacity = DEFAULT_OPACITY;
  #panels;
  #closing = new AbortController();
  #size = null; // of the stage, when it was last seen
  #resizes = new ResizeObserver(() => this.#resized());

  // `host` is what the editor needs of ComfyUI:
  //   title                the node's
  //   history              a History of scenes to go on with
  //   wired()              { pose: JSON text or null, image: address or null }
  //   upload(file)         puts a file into the input folder, resolves to its name
  //   address(name)        where a file of the input folder is served
  //   commit(scene)        hears of every finished edit
  //   closed()             hears that the editor was closed
  constructor(host) {
    this.host = host;
    this.store = new Store(host.history, (scene) => host.commit(scene));
    this.stage = new Stage(this.store);
    this.gestures = new Gestures(this.store, this.stage);
    this.help = new Help(() => this.focusFigure());
    this.#panels = [
      toolbar(this, host.title), wiredPanel(this), presetsPanel(this), photoPanel(this),
      canvasPanel(this), peoplePanel(this), jointPanel(this), partsPanel(this), textPanel(this),
    ];
    const [bar, wired, presets, photo, canvas, people, joint, parts, text] =
      this.#panels.map((panel) => panel.element);
    this.status = html("footer", { class: "pt-status", role: "status" });
    this.element = html("dialog", { class: "pt-editor", "aria-label": host.title },
      bar,
      html("aside", { class: "pt-panel pt-left", "aria-label": t("editor.start_from") },
        wired, presets, photo, canvas),
      this.stage.element,
      html("aside", { class: "pt-panel pt-right", "aria-label": t("editor.change") },
        people, joint, parts, text),
      this.status, this.help.element);
    this.#listen();
    this.store.subscribe(() => this.render());
  }

  get wiredPose() {
    return this.host.wired().pose;
  }

  open() {
    document.body.append(this.element);
    this.element.showModal();
    this.#showPhoto();
    this.stage.fit();
    this.#resizes.observe(this.stage.element);
    this.render();
    this.focusPerson();
  }

  close() {
    this.#closing.abort();
    this.#resizes.disconnect();
    this.element.remove();
    this.host.closed();
  }

  render() {
    this.#showPhoto();
    for (const panel of this.#panels) panel.render();
    const text = this.store.message || t("editor.hint");
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  // Something outside of the editor changed: a run brought a picture, or the host undid a step.
  refresh() {
    this.stage.render();
    this.render();
  }

  focusPerson() {
    this.store.select(this.store.selection.person);
    this.stage.element.querySelector(".pt-frame-border").focus({ preventScroll: true });
  }

  // The chosen joint, or else the whole person.
  focusFigure() {
    const { person, joint } = this.store.selection;
    if (joint) this.stage.circle(person, joint)?.focus({ preventScroll: true });
    else this.focusPerson();
  }

  // About the chosen joint, or the middle of the window.
  zoomBy(factor) {
    const { stage, store } = this;
    const { joint } = store.selection;
    const { width, height } = stage.size;
    const about = joint
      ? toScreen(stage.view, pointOf(store.person, joint)) : [width / 2, height / 2];
    stage.look(zoom(stage.view, factor, about));
    this.render();
  }

  // Looks so many windows farther to the right and down.
  panBy(across, down) {
    const { width, height } = this.stage.size;
    this.stage.look(pan(this.stage.view, -across * width, -down * height));
  }

  // From the stage to the right panel, the left one, and back.
  nextRegion() {
    const regions = [".pt-frame-border", ".pt-right button", ".pt-left button", ".pt-toolbar button"];
    const homes = [".pt-stage", ".pt-right", ".pt-left", ".pt-toolbar"];
    const here = homes.findIndex((home) => document.activeElement?.closest(home));
    this.element.querySelector(`${regions[(here + 1) % regions.length]}:not(:disabled)`)?.focus();
  }

  takeText(text) {
    try {
      const scene = parse(text, this.store.scene);
      actions.replaceAll(this.store, t("step.paste"), scene);
    } catch (error) {
      this.store.say(error.message);
    }
  }

  async uploadPhoto(file) {
    try {
      const name = await this.host.upload(file);
      const opacity = this.stage.photo?.opacity ?? DEFAULT_OPACITY;
      const underlay = { name, opacity };
      this.store.apply(t("step.photo"), { ...this.store.scene, underlay });
    } catch (error) {
      this.store.say(error.message);
    }
  }

  async fitCanvasToPhoto() {
    const picture = new Image();
    picture.src = this.stage.photo.url;
    try {
      await picture.decode();
      actions.fitCanvas(this.store, picture.naturalWidth, picture.naturalHeight);
      this.stage.fit();
    } catch {
      this.store.say(t("editor.photo_gone"));
    }
  }

  // While the slider moves; `setOpacity` makes a step of it where the scene keeps it.
  showOpacity(opacity) {
    if (this.store.scene.underlay) {
      this.store.draft({
        ...this.store.scene, underlay: { ...this.store.scene.underlay, opacity },
      });
    } else {
      this.#wiredOpacity = opacity;
      this.refresh();
    }
  }

  setOpacity(opacity) {
    this.showOpacity(opacity);
    this.store.settle(t("step.opacity"));
  }

  #showPhoto() {
    const { underlay } = this.store.scene;
    const wired = this.host.wired().image;
    const url = underlay ? this.host.address(underlay.name) : wired;
    const opacity = underlay?.opacity ?? this.#wiredOpacity;
    const shown = this.stage.photo;
    if (shown?.url === url && shown?.opacity === opacity) return;
    if (!url && !shown) return;
    this.stage.photo = url ? { url, opacity } : null;
    this.stage.render();
  }

  #listen() {
    const { element } = this;
    // Nothing that happens in here is the graph's business.
    for (const type of ["pointerdown", "mousedown", "wheel", "contextmenu"]) {
      element.addEventListener(type, (event) => event.stopPropagation());
    }
    // Keys come to the document, not to the window, when the focused button was just disabled.
    const { signal } = this.#closing;
    document.addEventListener("keydown", (event) => this.#key(event), { signal });
    document.addEventListener("keyup", (event) => {
      event.stopPropagation();
      if (event.key === " ") this.gestures.spaceHeld = false;
    }, { signal });
    // Before the host's own listeners, which would copy and paste nodes.
    document.addEventListener("copy", (event) => this.#copy(event), { signal, capture: true });
    document.addEventListener("paste", (event) => this.#paste(event), { signal, capture: true });
    element.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.#escape();
    });
    this.stage.element.addEventListener("focusin", ({ target }) => {
      const { joint, person, handle } = target.dataset;
      if (joint) {
        this.store.select(Number(person), joint);
        if (!this.gestures.isPressed) this.stage.reveal(Number(person), joint);
      } else if (handle === "move") {
        this.store.select(this.store.selection.person);
      }
    });
  }

  #key(event) {
    event.stopPropagation();
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.preventDefault();
      return this.#escape();
    }
    const field = event.target.closest("input, textarea");
    const typing = field?.type !== "range" && field;
    const control = event.ctrlKey || event.metaKey;
    const undoing = control && ["z", "y"].includes(event.key.toLowerCase());
    if (typing ? !(undoing && typing.tagName === "INPUT") : field && event.key.startsWith("Arrow")) {
      return;
    }
    const scrolls = event.target.closest(".pt-panel, .pt-help") && event.key.toLowerCase() in LOOKS;
    if (scrolls) return;
    if (event.key === "Alt") event.preventDefault(); // or the browser's menu takes the focus
    if (event.target.closest("button, summary") && (event.key === " " || event.key === "Enter")) return;
    if (event.key === " ") {
      this.gestures.spaceHeld = true;
      event.preventDefault();
    } else if (!this.gestures.isActive && press(this, event)) {
      event.preventDefault();
    }
  }

  #escape() {
    if (this.gestures.isActive) this.gestures.cancel();
    else if (this.help.isOpen) this.help.close();
    else this.close();
  }

  #copy(event) {
    if (event.target.closest?.("input, textarea")) return;
    event.stopImmediatePropagation();
    event.clipboardData.setData("text/plain", format(this.store.scene, { plain: true }));
    event.preventDefault();
    this.store.say(t("editor.copied"));
  }

  #paste(event) {
    if (event.target.closest?.("input, textarea")) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    const [photo] = event.clipboardData.files;
    if (photo?.type.startsWith("image/")) this.uploadPhoto(photo);
    else this.takeText(event.clipboardData.getData("text/plain"));
  }

  #resized() {
    const { width, height } = this.stage.size;
    const before = this.#size;
    this.#size = { width, height };
    if (before && (width !== before.width || height !== before.height)) this.stage.fit();
  }
}
