// SPDX-License-Identifier: GPL-3.0-or-later
// The panel on the left: what a pose starts from, the photo underneath, the canvas, the text.

import { t } from "../texts.mjs";
import * as actions from "./actions.mjs";
import { button, html } from "./dom.mjs";
import { numberField, section } from "./fields.mjs";
import { figure, portrait } from "./figure.mjs";
import { emptyPerson } from "./scene.mjs";
import { PRESETS } from "./templates.mjs";
import { format, parse } from "./text.mjs";

// Drawn once: only one window is open at a time.
let presetPictures;

function drawPresets() {
  return PRESETS.map(({ body }) => {
    const person = { ...emptyPerson(), body };
    return figure({ people: [person] }, { box: portrait(person, 0.9) });
  });
}

export function presetsPanel({ store }) {
  presetPictures ??= drawPresets();
  const tiles = PRESETS.map((preset, index) => {
    const name = t(`preset.${preset.name}`);
    return html("button", {
      type: "button", class: "pt-preset", title: t("presets.title", { preset: name }),
      onclick: () => actions.choosePreset(store, preset),
    }, presetPictures[index], html("span", {}, name));
  });
  const element = section(t("presets"), html("div", { class: "pt-presets" }, tiles));
  return { element, render() {} };
}

export function wiredPanel(editor) {
  const { store } = editor;
  const take = button({
    symbol: "wired", text: t("wired.take"), title: t("wired.take.title"), class: "pt-wide",
    onclick: () => {
      try {
        const scene = parse(editor.wiredPose, store.scene);
        actions.replaceAll(store, t("step.take_wired"), scene);
      } catch (error) {
        store.say(error.message);
      }
    },
  });
  const hint = html("p", { class: "pt-hint" }, t("wired.hint"));
  const element = section(t("wired"), take, hint);
  const render = () => {
    take.disabled = !editor.wiredPose;
    hint.hidden = Boolean(editor.wiredPose);
  };
  return { element, render };
}

export function photoPanel(editor) {
  const { store } = editor;
  const choose = html("input", {
    type: "file", accept: "image/*", hidden: true,
    onchange: () => choose.files[0] && editor.uploadPhoto(choose.files[0]),
  });
  const upload = button({ symbol: "upload", text: t("photo.upload"), title: t("photo.upload.title"),
    onclick: () => choose.click() });
  const remove = button({ symbol: "remove", text: t("photo.remove"), title: t("photo.remove.title"),
    onclick: () => store.apply(t("step.remove_photo"), { ...store.scene, underlay: null }) });
  const like = button({ symbol: "fit", text: t("photo.canvas"), title: t("photo.canvas.title"),
    onclick: () => editor.fitCanvasToPhoto() });
  const opacity = html("input", {
    type: "range", min: 0, max: 100, "aria-label": t("photo.opacity.name"),
    oninput: () => editor.showOpacity(opacity.valueAsNumber / 100),
    onchange: () => editor.setOpacity(opacity.valueAsNumber / 100),
  });
  const slider = html("label", { class: "pt-field pt-slider" },
    html("span", {}, t("photo.opacity")), opacity);
  const hint = html("p", { class: "pt-hint" }, t("photo.hint"));
  const element = section(t("photo"), hint, slider,
    html("div", { class: "pt-buttons" }, upload, remove, like), choose);
  const render = () => {
    const photo = editor.stage.photo;
    hint.hidden = Boolean(photo);
    slider.hidden = !photo;
    like.hidden = !photo;
    remove.hidden = !store.scene.underlay;
    if (photo && document.activeElement !== opacity) opacity.value = Math.round(photo.opacity * 100);
  };
  return { element, render };
}

export function canvasPanel({ store }) {
  const width = numberField({ label: t("field.width"), title: t("canvas.width"),
    change: (value) => actions.resizeCanvas(store, value, store.scene.height) });
  const height = numberField({ label: t("field.height"), title: t("canvas.height"),
    change: (value) => actions.resizeCanvas(store, store.scene.width, value) });
  const element = section(t("canvas"),
    html("div", { class: "pt-fields" }, width.element, height.element));
  const render = () => {
    width.show(store.scene.width);
    height.show(store.scene.height);
  };
  return { element, render };
}

export function textPanel(editor) {
  const { store } = editor;
  const area = html("textarea", {
    rows: 5, spellcheck: "false", "aria-label": t("json"), placeholder: t("json.placeholder"),
  });
  const apply = button({ text: t("json.use"), symbol: "paste", title: t("json.use.title"),
    onclick: () => editor.takeText(area.value) });
  const copy = button({ text: t("json.copy"), symbol: "copy", title: t("json.copy.title"),
    onclick: () => {
      area.select();
      navigator.clipboard?.writeText(area.value).catch(() => document.execCommand("copy")) ??
        document.execCommand("copy");
      store.say(t("editor.copied"));
    } });
  const details = html("details", { class: "pt-section", ontoggle: () => render() },
    html("summary", {}, t("json")), area,
    html("div", { class: "pt-buttons" }, copy, apply));
  let seen;
  function render() {
    if (!details.open || store.isDragging || seen === store.scene) return;
    seen = store.scene;
    area.value = format(store.scene, { plain: true });
  }
  return { element: details, render };
}
