// SPDX-License-Identifier: GPL-3.0-or-later
// The panel on the left: what a pose starts from, the photo underneath, the canvas, the text.

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
  const tiles = PRESETS.map((preset, index) =>
    html("button", {
      type: "button", class: "pt-preset", title: `Put the person into this pose: ${preset.name}`,
      onclick: () => actions.choosePreset(store, preset),
    }, presetPictures[index], html("span", {}, preset.name)));
  return { element: section("Presets", html("div", { class: "pt-presets" }, tiles)), render() {} };
}

export function wiredPanel(editor) {
  const { store } = editor;
  const take = button({
    symbol: "wired", text: "Take wired pose", class: "pt-wide",
    onclick: () => {
      try {
        const scene = parse(editor.wiredPose, store.scene);
        actions.replaceAll(store, "Take wired pose", scene);
      } catch (error) {
        store.say(error.message);
      }
    },
  });
  const hint = html("p", { class: "pt-hint" });
  const element = section("Detected pose", take, hint);
  const render = () => {
    take.disabled = !editor.wiredPose;
    take.title = "Start again from the pose that is wired to the node";
    hint.hidden = Boolean(editor.wiredPose);
    hint.textContent = "Wire a pose to detected_pose and press Run once; it then waits here.";
  };
  return { element, render };
}

export function photoPanel(editor) {
  const { store } = editor;
  const choose = html("input", {
    type: "file", accept: "image/*", hidden: true,
    onchange: () => choose.files[0] && editor.uploadPhoto(choose.files[0]),
  });
  const upload = button({ symbol: "upload", text: "Upload", title: "Lay a picture of yours underneath",
    onclick: () => choose.click() });
  const remove = button({ symbol: "remove", text: "Remove", title: "Take the uploaded picture away",
    onclick: () => store.apply("Remove photo", { ...store.scene, underlay: null }) });
  const like = button({ symbol: "fit", text: "Canvas like photo",
    title: "Give the canvas the picture's size; the figures are fitted into it",
    onclick: () => editor.fitCanvasToPhoto() });
  const opacity = html("input", {
    type: "range", min: 0, max: 100, "aria-label": "Opacity of the photo",
    oninput: () => editor.showOpacity(opacity.valueAsNumber / 100),
    onchange: () => editor.setOpacity(opacity.valueAsNumber / 100),
  });
  const slider = html("label", { class: "pt-field pt-slider" }, html("span", {}, "Opacity"), opacity);
  const hint = html("p", { class: "pt-hint" },
    "Upload one, or wire a picture to image and press Run once.");
  const element = section("Photo", hint, slider,
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
  const width = numberField({ label: "Width", title: "Width of the canvas",
    change: (value) => actions.resizeCanvas(store, value, store.scene.height) });
  const height = numberField({ label: "Height", title: "Height of the canvas",
    change: (value) => actions.resizeCanvas(store, store.scene.width, value) });
  const element = section("Canvas",
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
    rows: 5, spellcheck: "false", "aria-label": "OpenPose JSON",
    placeholder: "Paste OpenPose JSON here",
  });
  const apply = button({ text: "Use this text", symbol: "paste", title: "Take the pose of this text",
    onclick: () => editor.takeText(area.value) });
  const copy = button({ text: "Copy", symbol: "copy", title: "Copy as OpenPose JSON (Ctrl+C)",
    onclick: () => {
      area.select();
      navigator.clipboard?.writeText(area.value).catch(() => document.execCommand("copy")) ??
        document.execCommand("copy");
      store.say("Copied as OpenPose JSON.");
    } });
  const details = html("details", { class: "pt-section", ontoggle: () => render() },
    html("summary", {}, "OpenPose JSON"), area,
    html("div", { class: "pt-buttons" }, copy, apply));
  let seen;
  function render() {
    if (!details.open || store.isDragging || seen === store.scene) return;
    seen = store.scene;
    area.value = format(store.scene, { plain: true });
  }
  return { element: details, render };
}
