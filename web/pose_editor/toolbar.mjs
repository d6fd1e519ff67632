// SPDX-License-Identifier: GPL-3.0-or-later
// The row above the stage: history, how joints move, zoom, help, done.

import { t } from "../texts.mjs";
import { button, html, set } from "./dom.mjs";

export function toolbar(editor, title) {
  const { store } = editor;
  const undo = button({ symbol: "undo", title: t("bar.undo"), onclick: () => store.undo() });
  const redo = button({ symbol: "redo", title: t("bar.redo"), onclick: () => store.redo() });
  const follow = button({
    symbol: "children", text: t("bar.follow"), class: "pt-toggle",
    title: t("bar.follow.title"),
    onclick: () => store.setOption("follow", !store.options.follow),
  });
  const rigid = button({
    symbol: "length", text: t("bar.rigid"), class: "pt-toggle",
    title: t("bar.rigid.title"),
    onclick: () => store.setOption("rigid", !store.options.rigid),
  });
  const percent = button({ text: "100 %", title: t("bar.whole_canvas"), class: "pt-zoom",
    onclick: () => editor.stage.fit() });
  const element = html("header", { class: "pt-toolbar" },
    html("h1", {}, title),
    html("div", { class: "pt-group" }, undo, redo),
    html("div", { class: "pt-group" }, follow, rigid),
    html("div", { class: "pt-space" }),
    html("div", { class: "pt-group" },
      button({ symbol: "zoomOut", title: t("bar.zoom_out"), onclick: () => editor.zoomBy(0.8) }),
      percent,
      button({ symbol: "zoomIn", title: t("bar.zoom_in"), onclick: () => editor.zoomBy(1.25) })),
    button({ symbol: "help", title: t("bar.help"), onclick: () => editor.help.toggle() }),
    button({ text: t("bar.done"), title: t("bar.done.title"), class: "pt-primary",
      onclick: () => editor.close() }),
  );
  const render = () => {
    undo.disabled = !store.history.canUndo;
    redo.disabled = !store.history.canRedo;
    const { undoLabel, redoLabel } = store.history;
    set(undo, { title: t(undoLabel ? "bar.undo_step" : "bar.undo_nothing", { step: undoLabel }) });
    set(redo, { title: t(redoLabel ? "bar.redo_step" : "bar.redo_nothing", { step: redoLabel }) });
    set(follow, { "aria-pressed": store.options.follow });
    set(rigid, { "aria-pressed": store.options.rigid });
    percent.firstChild.textContent = `${Math.round(editor.stage.view.scale * 100)} %`;
  };
  return { element, render };
}
